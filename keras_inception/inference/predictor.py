"""From images to labels with a saved network: one image, a folder, or a stream of thousands."""

from __future__ import annotations

import http.client
import os
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from keras_inception.images.decode import ImageError, check_size, converted, fitted, read_image
from keras_inception.images.listing import LeftOut, image_files, refusal
from keras_inception.runtimes.keras_model import Network
from keras_inception.runtimes.load import load_network

BATCH_SIZE = 32
_URL = ("http://", "https://")
_URL_SECONDS = 30
_MOST_URL_BYTES = 100_000_000
_LONGEST_PATH = 4096  # characters; what is given as a path may be a whole document
_EXPECTED = (
    "a path, a URL, an open image file or its bytes, a PIL image, an array of pixels in [0, 255] "
    "(h x w, h x w x 1, 3 or 4, or a batch of them), or a list or folder of these"
)


class Answer(NamedTuple):
    """The labels of one image.

    Attributes:
        image: its path or URL; of bytes, images and arrays what they are.
        labels: (label, score) each, best first; none where there is an error.
        error: why there are no labels, in one line.
    """

    image: str
    labels: list[tuple[str, float]]
    error: str | None = None

    @property
    def label(self) -> str:
        """The best label."""
        return self.labels[0][0]

    @property
    def score(self) -> float:
        """The score of the best label."""
        return self.labels[0][1]


def load(
    path: str | os.PathLike[str], *, threads: int | None = None, batch_size: int = BATCH_SIZE
) -> Predictor:
    """Load a saved classifier for inference, in any format.

        model = keras_inception.load("saved_models/RUN")
        model("cat.jpg").label

    Args:
        path: a run's folder, a `.keras` file, a SavedModel, or a `.tflite`, `.onnx` or `.xml`
            (OpenVINO) file of `export`. The names of the classes are in the labels.txt with it.
        threads: that compute, and that read images; default one for each core. TensorFlow has one
            number for the whole process, which its first operation fixes.
        batch_size: images that the network sees at once.

    Raises:
        ValueError: not a classifier of this package with a fixed input size, labels that are
            not as many as its classes, or a number of threads that cannot be set.
    """
    return Predictor(load_network(path, threads=threads, cache=True), threads, batch_size)


@dataclass(frozen=True)
class Predictor:
    """A loaded classifier: call it with images.

    Attributes:
        network: its scores, input shape and labels.
        threads: that read images; default one for each core.
        batch_size: images that the network sees at once.
    """

    network: Network
    threads: int | None = None
    batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        _check_batch_size(self.batch_size)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the scores."""
        return self.network.labels

    def __call__(self, images: Any, top: int = 5, *, batch_size: int | None = None) -> Any:
        """Classify images.

        Each is cropped to its largest centred part of the network's shape, resized, and brought
        into the network's pixel convention, as in training.

        Args:
            images: a path, a URL, an image file opened in binary mode or its bytes, a PIL image,
                or an array of pixels in [0, 255], RGB, RGBA or grey, of any height and width; or
                a list of these, a folder, or a batch of arrays.
            top: labels for each image, at most as many as there are classes.
            batch_size: images that the network sees at once; default that of `load`.

        Returns:
            An `Answer` for one image. For a list, a batch or a folder a list of them, in order;
            those that cannot be read have an `error` and stop nothing.

        Raises:
            ValueError: one image that cannot be read, a folder without images, or what is none of
                these.
        """
        if not isinstance(top, Integral) or top < 1:
            raise ValueError(f"Expected `top` of 1 or more. Received: top={top!r}")
        single = _is_single(images)
        answers = list(self.stream([images] if single else _each(images), top, batch_size))
        if not answers:
            raise ValueError(f"Expected images. Received: none in {images!r}")
        if not single:
            return answers
        if answers[0].error is not None:
            raise ValueError(answers[0].error)
        return answers[0]

    def stream(
        self, images: Iterable[Any], top: int = 5, batch_size: int | None = None
    ) -> Iterator[Answer]:
        """An answer for each image, in order; holds one batch of images at a time.

        Args:
            images: of single images, as for a call; `LeftOut` gets an answer with its reason.
            top, batch_size: as for a call.
        """
        batch_size = self.batch_size if batch_size is None else batch_size
        _check_batch_size(batch_size)
        remaining = iter(images)
        with ThreadPoolExecutor(self.threads) as pool:
            while batch := list(islice(remaining, batch_size)):
                read = list(pool.map(self._read_or_error, batch))
                pixels = [image for image in read if isinstance(image, np.ndarray)]
                found = iter(self.answers(np.stack(pixels), top) if pixels else [])
                for source, image in zip(batch, read, strict=True):
                    if isinstance(image, str):
                        yield Answer(_name(source), [], image)
                    else:
                        yield Answer(_name(source), next(found))

    def answers(self, pixels: np.ndarray, top: int) -> list[list[tuple[str, float]]]:
        """The (label, score) of pixels: uint8 N x h x w x C of the network's size."""
        scores = self.network.scores(pixels.astype(np.float32))
        return best_labels(scores, self.network.labels, top)

    def _read_or_error(self, source: Any) -> np.ndarray | str:
        if isinstance(source, LeftOut):
            return _not_an_image(source.path, source.reason)
        try:
            return self._read(source)
        except ValueError as error:
            return str(error)

    def _read(self, source: Any) -> np.ndarray:
        height, width, channels = self.network.input_shape
        if _is_url(source):
            source = _fetched(source)
        elif _is_file(source):
            source = _contents(source)
        if isinstance(source, str | os.PathLike):
            source = Path(source)
            if (reason := refusal(source)) is not None:
                raise ValueError(_not_an_image(str(source), reason))
        if isinstance(source, bytearray | memoryview):
            source = bytes(source)
        if isinstance(source, Path | bytes):
            return read_image(source, height=height, width=width, channels=channels)
        try:
            image = source if isinstance(source, Image.Image) else _array_image(np.asarray(source))
            return fitted(converted(image, channels), height, width)
        except ImageError as error:
            raise ValueError(_not_an_image(_name(source), error)) from None


def _not_an_image(name: str, reason: object) -> str:
    return f"Expected an image. Received: {name[:_LONGEST_PATH]!r} ({reason})"


def _check_batch_size(batch_size: int) -> None:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"Expected `batch_size` of 1 or more. Received: batch_size={batch_size!r}")


def best_labels(
    scores: np.ndarray, labels: Sequence[str], top: int
) -> list[list[tuple[str, float]]]:
    """The (label, score) of each row of scores, N x classes, best first."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(labels[index], float(row[index])) for index in order]
        for row, order in zip(scores, best, strict=True)
    ]


def _is_single(images: Any) -> bool:
    """Whether an input is one image.

    Raises:
        ValueError: neither one image nor several.
    """
    if isinstance(images, str | os.PathLike):
        return _is_url(images) or not os.path.isdir(images)
    if isinstance(images, bytes | bytearray | memoryview | Image.Image) or _is_file(images):
        return True
    if hasattr(images, "__array__"):
        return np.ndim(images) != 4
    if isinstance(images, Iterable) and not isinstance(images, dict):
        return False
    raise ValueError(f"Expected {_EXPECTED}. Received: {type(images).__name__}")


def _each(images: Any) -> Iterator[Any]:
    """Single images of a list, a batch or a folder, folders in a list included."""
    if isinstance(images, str | os.PathLike):
        yield from image_files([Path(images)])
        return
    for image in images:
        if _is_single(image):
            yield image
        else:
            yield from _each(image)


def _name(source: Any) -> str:
    if isinstance(source, LeftOut):
        return source.path
    if isinstance(source, str | os.PathLike):
        return str(source)
    return type(source).__name__


def _is_url(source: Any) -> bool:
    return isinstance(source, str) and source.lower().startswith(_URL)


def _is_file(source: Any) -> bool:
    return hasattr(source, "read") and hasattr(source, "seek")


def _contents(file: Any) -> bytes:
    """The bytes of an open file.

    Raises:
        ValueError: it is a text file, or closed.
    """
    try:
        content = file.read()
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected an open image file. Received: {error}") from None
    if not isinstance(content, bytes):
        raise ValueError(f"Expected an image file opened in binary mode. Received: {_name(file)}")
    return content


def _fetched(url: str) -> bytes:
    """The bytes behind a URL.

    Raises:
        ValueError: no answer, or too many bytes.
    """
    try:
        with urllib.request.urlopen(url, timeout=_URL_SECONDS) as response:
            content = response.read(_MOST_URL_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())  # one line
        raise ValueError(f"Expected an image at {url!r}. Received: {reason}") from error
    if len(content) > _MOST_URL_BYTES:
        raise ValueError(
            f"Expected an image of at most {_MOST_URL_BYTES:,} bytes at {url!r}. Received: more"
        )
    return content


def _array_image(pixels: np.ndarray) -> Image.Image:
    """A Pillow image of an array, whose pixels must lie in [0, 255].

    Raises:
        ValueError: another shape, type or range.
    """
    shape, kind = pixels.shape, pixels.dtype.kind
    if len(shape) == 3 and shape[2] == 1:
        pixels = pixels[..., 0]
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and shape[2] in (3, 4))
    if not fits or kind not in "uif" or not pixels.size:
        raise ValueError(
            f"Expected {_EXPECTED}. Received: an array of shape {shape}, dtype {pixels.dtype}"
        )
    check_size(pixels.shape[1::-1])
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255):
        raise ValueError(
            f"Expected pixels in [0, 255], not prepared for a network. Received: from {low:g} to "
            f"{high:g}"
        )
    if kind == "f" and high <= 1 and np.any(pixels % 1):
        raise ValueError(
            f"Expected pixels in [0, 255]. Received: from {low:g} to {high:g}. Multiply by 255."
        )
    return Image.fromarray(np.round(pixels).astype(np.uint8))
