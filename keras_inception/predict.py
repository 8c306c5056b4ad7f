"""From image files to labels with a saved model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

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
            ValueError: not a Keras model, not a classifier of this package, or labels that are
                not as many as its classes.
        """
        model = keras.models.load_model(path, compile=False)
        convention = model_preprocessing(model)
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
        height, width, channels = self.model.input_shape[1:]
        pixels = read_image(image, height=height, width=width, channels=channels)
        inputs = preprocess_input(pixels[None], "channels_last", convention=self.convention)
        scores = np.asarray(self.model.predict_on_batch(inputs))[0]
        best = np.argsort(-scores, kind="stable")[:top]
        return [(self.labels[index], float(scores[index])) for index in best]
