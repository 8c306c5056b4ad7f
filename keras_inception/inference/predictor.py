"""From image files to labels with a saved network, one file or a stream of thousands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_inception.images.decode import read_image
from keras_inception.runtimes.keras_model import Network
from keras_inception.runtimes.load import load_network


def load(path: str | os.PathLike[str]) -> Predictor:
    """Load a saved network of any format: `load("RUN").predict("photo.jpg", top=5)`.

    Args:
        path: a run's folder, a .keras file, a SavedModel's folder, or a .tflite, .onnx or .xml
            (OpenVINO) file of `export`. Class names come from the labels.txt beside it.

    Raises:
        MissingPackageError: the format needs an optional package.
        ValueError: not a classifier of this package with a fixed input size, or labels that are
            not as many as its classes.
    """
    return Predictor(load_network(path))


class Answer(NamedTuple):
    """The (label, score) of one file, best first; none and an error for what is no image."""

    image: Path
    labels: list[tuple[str, float]]
    error: str | None = None


@dataclass(frozen=True)
class Predictor:
    """A loaded network that answers with labels."""

    network: Network

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Predictor:
        """Load what `load_network` does: .keras, SavedModel, LiteRT, ONNX, OpenVINO.

        Raises:
            ValueError: not a classifier of this package with a fixed input size, or labels that
                are not as many as its classes.
        """
        return cls(load_network(path))

    def predict(self, image: str | os.PathLike[str], top: int = 5) -> list[tuple[str, float]]:
        """The `top` most probable (label, score) of an image file, best first.

        Raises:
            ValueError: a file that is not an image.
        """
        return self.answers(self._read(Path(image))[None], top)[0]

    def answers(self, pixels: np.ndarray, top: int) -> list[list[tuple[str, float]]]:
        """The same for pixels: uint8 N x h x w x C of the network's size."""
        scores = self.network.scores(pixels.astype(np.float32))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return [
            [(self.network.labels[index], float(row[index])) for index in order]
            for row, order in zip(scores, best, strict=True)
        ]

    def stream(self, images: Iterable[Path], top: int, batch_size: int = 32) -> Iterator[Answer]:
        """An answer for each file, in order; holds one batch of images at a time.

        A file that is no image gets an answer with its error and stops nothing.
        """
        remaining = iter(images)
        with ThreadPoolExecutor() as pool:
            while paths := list(islice(remaining, batch_size)):
                read = list(pool.map(self._read_or_error, paths))
                pixels = [image for image in read if isinstance(image, np.ndarray)]
                found = iter(self.answers(np.stack(pixels), top) if pixels else [])
                for path, image in zip(paths, read, strict=True):
                    if isinstance(image, str):
                        yield Answer(path, [], image)
                    else:
                        yield Answer(path, next(found))

    def _read(self, image: Path) -> np.ndarray:
        height, width, channels = self.network.input_shape
        return read_image(image, height=height, width=width, channels=channels)

    def _read_or_error(self, image: Path) -> np.ndarray | str:
        try:
            return self._read(image)
        except ValueError as error:
            return str(error)
