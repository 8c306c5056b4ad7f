"""Checks of a `.keras` file before Keras, or the reader of its weights, opens it."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import keras

from keras_inception.archives import read_zip
from keras_inception.bounded import (
    LEAST_BYTES,
    MOST_TEXT,
    Allowance,
    bytes_on_disk,
    parsed_json,
)
from keras_inception.weights.hdf5 import check_hdf5

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
# Of one image; the widest network of this family needs some 60 MB.
_MOST_ACTIVATIONS = 1_000_000_000


def own_allowance(path: Path) -> Allowance:
    """Return what a file of this package may unpack: Keras compresses nothing.

    A network of a spec of one's own may be larger than the public ones, and then its file is.
    """
    return Allowance(path, max(LEAST_BYTES, 2 * bytes_on_disk(path)))


def checked_keras_file(path: Path) -> tuple[dict[str, Any], io.BytesIO]:
    """Return the configuration and the weights of a `.keras` file, after their checks.

    Raises:
        ValueError: no `.keras` file of Keras 3, or one that no `model.save` writes.
        OSError: its weights are no HDF5.
    """
    allowance = own_allowance(path)
    config, weights = read_zip(path, allowance, CONFIG, WEIGHTS)
    if len(config) > MOST_TEXT:
        allowance.take(CONFIG, allowance.size + 1)
    document = parsed_json(config, "`.keras` file")
    if not isinstance(document, dict):
        raise ValueError(
            f"Expected a `.keras` file with the configuration of a model. Received: {str(path)!r}"
        )
    content = io.BytesIO(weights)
    check_hdf5(content, own_allowance(path))
    content.seek(0)
    return document, content


def check_model(path: Path) -> None:
    """Refuse a `.keras` file whose model would take more memory than a network of this family.

    The model is built without its weights.

    Raises:
        ValueError: as `checked_keras_file`, or too large.
        Exception: whatever Keras raises for a configuration that it cannot build.
    """
    document, _ = checked_keras_file(path)
    document.pop("compile_config", None)
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(document, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected a model. Received: {type(model).__name__} in {str(path)!r}")
    allowance = own_allowance(path)
    for weight in model.weights:
        allowance.take_array(weight.path, weight.shape, 4)
    check_activations(model, path)


def check_activations(model: keras.Model, path: Path) -> None:
    """Refuse a model that computes more than a network of this family on one image.

    Raises:
        ValueError: naming the layer.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            check_activations(layer, path)
        for tensor in keras.tree.flatten(getattr(layer, "output", None)):
            shape = [size or 1 for size in getattr(tensor, "shape", ())]
            if 4 * math.prod(shape) > _MOST_ACTIVATIONS:
                raise ValueError(
                    f"Expected layers of at most {_MOST_ACTIVATIONS:,} bytes for one image. "
                    f"Received: layer {layer.name!r} of shape {tuple(shape)} in {str(path)!r}."
                )
