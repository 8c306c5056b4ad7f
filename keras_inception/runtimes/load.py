"""Load any saved network: pixels in, scores out. Decodes no images.

A `.keras` file, or what `exported` opens: a SavedModel of this package, LiteRT, ONNX, OpenVINO.
"""

from __future__ import annotations

import os
from pathlib import Path

import keras

from keras_inception.files import LABELS_FILE, MODEL_FILE, read_labels
from keras_inception.runtimes.exported import (
    answering_none,
    limit_tensorflow,
    open_exported,
    runtime_of,
)
from keras_inception.runtimes.keras_model import Network, keras_network, load_keras
from keras_inception.runtimes.probe import check_exported
from keras_inception.weights.cache import cache_folder

EXPECTED = (
    "a run's folder with its model.keras, a .keras file, a SavedModel's folder, or a .tflite, "
    ".onnx or .xml (OpenVINO) file of `keras-inception export`"
)


def load_network(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    cache: bool = False,
    is_own: bool = False,
) -> Network:
    """Load a network from a file or folder; the labels from the `labels.txt` with it.

    Args:
        path: the file or folder.
        threads: that compute; default the runtime's own number, usually one for each core.
            TensorFlow has one number for the whole process, fixed by its first operation.
        is_own: an export that this process has just written, which is opened without a check in a
            child process.
        cache: keep what OpenVINO compiles in the cache of this package, for a faster next start.

    Raises:
        MissingPackageError: the format needs an optional package.
        ValueError: nothing of a known kind, not a classifier of this package, labels that are
            not as many as the classes, or a number of threads that cannot be set.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"Expected 1 or more threads. Received: {threads}")
    path = Path(path)
    if path.is_dir() and (path / MODEL_FILE).is_file():
        path = path / MODEL_FILE
    if path.suffix == ".keras" and path.is_file():
        if threads is not None:
            _limit_keras(threads)
        model = load_keras(path)
        return keras_network(model, _labels(path.with_name(LABELS_FILE), model.output_shape[-1]))
    if runtime_of(path) is None:
        raise ValueError(f"Expected {EXPECTED}. Received: {str(path)!r}")
    if not is_own:
        check_exported(path)
    kept = cache_folder() / "openvino" if cache else None
    scores, shape, answered = open_exported(path, threads=threads, cache=kept)
    beside = path / "assets" / LABELS_FILE if path.is_dir() else path.with_name(LABELS_FILE)
    return Network(answering_none(scores, answered[1]), shape, _labels(beside, answered[1]))


def _limit_keras(threads: int) -> None:
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            "Expected KERAS_BACKEND=tensorflow to set the number of threads of a .keras file, or "
            f"an exported format. Received: {backend!r}"
        )
    limit_tensorflow(threads)


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
