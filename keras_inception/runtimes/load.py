"""Load any saved network: pixels in, scores out. Decodes no images.

A `.keras` file, or what `exported` opens: a SavedModel of this package, LiteRT, ONNX, OpenVINO.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_inception.files import LABELS_FILE, MODEL_FILE, read_labels
from keras_inception.runtimes.exported import open_exported, runtime_of
from keras_inception.runtimes.keras_model import Network, keras_network, load_keras

EXPECTED = (
    "a run's folder with its model.keras, a .keras file, a SavedModel's folder, or a .tflite, "
    ".onnx or .xml (OpenVINO) file of `keras-inception export`"
)


def load_network(path: str | os.PathLike[str]) -> Network:
    """Load a network from a file or folder; the labels from the `labels.txt` with it.

    Raises:
        MissingPackageError: the format needs an optional package.
        ValueError: nothing of a known kind, not a classifier of this package, or labels that are
            not as many as the classes.
    """
    path = Path(path)
    if path.is_dir() and (path / MODEL_FILE).is_file():
        path = path / MODEL_FILE
    if path.suffix == ".keras" and path.is_file():
        model = load_keras(path)
        return keras_network(model, _labels(path.with_name(LABELS_FILE), model.output_shape[-1]))
    if runtime_of(path) is None:
        raise ValueError(f"Expected {EXPECTED}. Received: {str(path)!r}")
    scores, shape = open_exported(path)
    beside = path / "assets" / LABELS_FILE if path.is_dir() else path.with_name(LABELS_FILE)
    classes = scores(np.zeros((1, *shape), np.float32)).shape[1]
    return Network(scores, shape, _labels(beside, classes))


def _labels(path: Path, classes: int) -> tuple[str, ...]:
    if not path.is_file():
        return tuple(str(index) for index in range(classes))
    labels = read_labels(path)
    if len(labels) != classes:
        raise ValueError(
            f"Expected {classes} lines in {str(path)!r}, one for each class. "
            f"Received: {len(labels)}"
        )
    return labels
