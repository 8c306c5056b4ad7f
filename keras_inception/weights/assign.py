"""Assign arrays to a model: all or nothing."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from keras_inception.spec.network import NetworkSpec
from keras_inception.weights.source import Arrays, mismatch


def assign(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Set every weight of a model from arrays of the same names and shapes.

    Args:
        model: the paths of its weights ("3a_3x3_conv/kernel") are the names.
        arrays: exactly the model's weights.

    Raises:
        ValueError: if names or shapes differ; lists all differences. No weight is changed.
    """
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    received = {name: tuple(array.shape) for name, array in arrays.items()}
    missing = [
        f" - {name} {shape}" for name, shape in shapes.items() if received.get(name) != shape
    ]
    unexpected = [
        f" + {name} {shape}" for name, shape in received.items() if shapes.get(name) != shape
    ]
    if missing or unexpected:
        raise mismatch(f"Expected the weights of {model.name!r}", missing, unexpected)
    for weight in model.weights:
        weight.assign(arrays[weight.path])


def without_absent_heads(
    arrays: Mapping[str, np.ndarray], model: keras.Model, spec: NetworkSpec
) -> Arrays:
    """Drop the weights of main and auxiliary classifiers that a model was built without."""
    heads = tuple(f"{name}_" for name in ("predictions", *(aux.name for aux in spec.aux)))
    present = {weight.path for weight in model.weights}
    absent = tuple(head for head in heads if not any(path.startswith(head) for path in present))
    return {name: array for name, array in arrays.items() if not name.startswith(absent)}
