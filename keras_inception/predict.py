"""From image files to labels with a saved model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_inception.network import inference_model
from keras_inception.preprocessing import model_preprocessing, preprocess_input, read_image
from keras_inception.spec import PixelConvention

LABELS_FILE = "labels.txt"


@dataclass(frozen=True)
class Predictor:
    """A loaded model with its pixel convention and the names of its classes."""

    model: keras.Model
    convention: PixelConvention
    labels: tuple[str, ...]

    @classmethod
    def load(cls, path: Path) -> Predictor:
        """Load a `.keras` file, and the `labels.txt` beside it; without one, labels are numbers.

        Raises:
            ValueError: not a Keras model, not a classifier of this package with a fixed input
                size, or labels that are not as many as its classes.
        """
        model = inference_model(_loaded(path))
        convention = model_preprocessing(model)
        if None in model.input_shape[1:] or len(model.output_shape) != 2:
            raise ValueError(
                f"Expected a classifier of a fixed input size in {str(path)!r}. Received: "
                f"input_shape={model.input_shape[1:]}, output_shape={model.output_shape[1:]}"
            )
        classes = model.output_shape[-1]
        beside = path.with_name(LABELS_FILE)
        if beside.is_file():
            labels = tuple(beside.read_text(encoding="utf-8").splitlines())
        else:
            labels = tuple(str(index) for index in range(classes))
        if len(labels) != classes:
            raise ValueError(
                f"Expected {classes} lines in {str(beside)!r}, one for each class. "
                f"Received: {len(labels)}"
            )
        return cls(model, convention, labels)

    def predict(self, image: Path, top: int) -> list[tuple[str, float]]:
        """The `top` most probable (label, score) of an image file, best first.

        Raises:
            ValueError: a file that is not an image.
        """
        shape = self.model.input_shape[1:]
        channels_first = keras.config.image_data_format() == "channels_first"
        channels, height, width = shape if channels_first else (shape[2], *shape[:2])
        pixels = read_image(image, height=height, width=width, channels=channels)[None]
        if channels_first:
            pixels = pixels.transpose(0, 3, 1, 2)
        inputs = preprocess_input(pixels, convention=self.convention)
        scores = np.asarray(self.model.predict_on_batch(inputs))[0]
        best = np.argsort(-scores, kind="stable")[:top]
        return [(self.labels[index], float(scores[index])) for index in best]


def _loaded(path: Path) -> Any:
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises errors of many kinds for a damaged file
        raise ValueError(
            f"Expected a model that Keras can load. Received: {str(path)!r} "
            f"({type(error).__name__}: {error})"
        ) from error
