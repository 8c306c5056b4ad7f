"""A Keras model as a network: its input shape, pixel convention, data format and scores."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_inception.files import keras_file
from keras_inception.images.conventions import model_preprocessing, preprocess_input
from keras_inception.network.nested import FLAT_FORM, flat_classifier
from keras_inception.runtimes.exported import Scores, answering_none
from keras_inception.weights.keras_file import check_model


@dataclass(frozen=True)
class Network:
    """A loaded network.

    Attributes:
        scores: float32 pixels in [0, 255], N x h x w x C, RGB or grey -> float32 N x classes.
        input_shape: (height, width, channels).
        labels: the names of the classes; their numbers if there is no labels.txt next to the file.
        model: the Keras model, if it is one.
    """

    scores: Scores
    input_shape: tuple[int, int, int]
    labels: tuple[str, ...]
    model: keras.Model | None = None


def keras_network(model: keras.Model, labels: tuple[str, ...]) -> Network:
    """Wrap a classifier of this package that is already built or loaded."""

    def scores(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict_on_batch(network_input(model, pixels)))

    checked = answering_none(scores, model.output_shape[-1])
    return Network(checked, image_shape(model), labels, model)


def image_shape(model: keras.Model) -> tuple[Any, ...]:
    """Return (height, width, channels) of a model's input, for both data formats."""
    shape = tuple(model.input_shape[1:])
    return (*shape[1:], shape[0]) if is_channels_first(model) else shape


def network_input(model: keras.Model, pixels: Any) -> Any:
    """Convert pixels in [0, 255], N x h x w x C, to the convention and data format of a model.

    Raises:
        ValueError: if the model does not name its convention.
    """
    inputs = preprocess_input(pixels, "channels_last", convention=model_preprocessing(model))
    if not is_channels_first(model):
        return inputs
    transpose = np.transpose if isinstance(inputs, np.ndarray) else keras.ops.transpose
    return transpose(inputs, (0, 3, 1, 2))


def is_channels_first(model: keras.Model) -> bool:
    """Return whether a model computes on N x C x h x w, independent of the global setting."""
    return any(getattr(layer, "data_format", None) == "channels_first" for layer in model.layers)


def load_keras(path: str | os.PathLike[str]) -> keras.Model:
    """Load the classifier of a run's folder or a `.keras` file.

    Returns:
        One flat graph (`flat_classifier`).

    Raises:
        ValueError: if it is not one, or not a classifier with a fixed input size.
    """
    path = keras_file(Path(path))
    model = flat_classifier(load_any_keras(path))
    if None in image_shape(model) or len(model.output_shape) != 2:
        raise ValueError(
            f"Expected a classifier of a fixed input size in {str(path)!r}. Received: "
            f"input_shape={model.input_shape[1:]}, output_shape={model.output_shape[1:]}. Give its "
            f"input a height and width (`input_shape`), or build the flat form: {FLAT_FORM}"
        )
    return model


def load_any_keras(path: Path) -> keras.Model:
    """Load any model of a `.keras` file, checked before Keras reads it.

    Raises:
        ValueError: if Keras cannot load it, or it holds what `model.save` does not write.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            check_model(path)
            model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds of errors for a damaged file
        raise ValueError(
            f"Expected a model that Keras can load. Received: {str(path)!r} "
            f"({type(error).__name__}: {error})"
        ) from error
    for warning in caught:  # not shown before the error of a file that cannot be loaded
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return model
