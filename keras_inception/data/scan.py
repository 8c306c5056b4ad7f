"""Which files are images, and what is known of each before it is decoded for training."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import tensorflow as tf
from PIL import Image

from keras_inception.data.splits import PIXELS, ImageFile
from keras_inception.images.decode import UNREADABLE, decode_image

_ORIENTATION_TAG = 274
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")
# Threads that wait for the disk; decoding leaves Python's lock to the others.
_THREADS = 16


class Place(NamedTuple):
    """Where the bytes of an encoded image lie."""

    path: str
    offset: int
    length: int


def scan(
    places: Iterable[Place], progress: Callable[[int], None] | None = None
) -> list[ImageFile | str]:
    """Decode every image once: what is known of it, or the reason why it cannot be read.

    Args:
        places: of the encoded images.
        progress: called with the number of images looked at so far.
    """
    results = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, result in enumerate(pool.map(_probe, places), 1):
            results.append(result)
            if progress is not None:
                progress(done)
    return results


def _probe(place: Place) -> ImageFile | str:
    if not place.length:
        return "zero bytes"
    try:
        content = ImageFile(*place, 0, 0, 0, PIXELS).read()
        with Image.open(io.BytesIO(content)) as opened:
            mode, (width, height) = opened.mode, opened.size
            orientation = opened.getexif().get(_ORIENTATION_TAG, 1)
            jpeg = opened.format in ("JPEG", "MPO") and mode in ("L", "RGB")
        channels = 1 if mode in _GREY_MODES else 3
        if jpeg and _tensorflow_decodes(content, height, width):
            orientation = orientation if orientation in range(1, 9) else 1
            if orientation >= 5:
                height, width = width, height
            return ImageFile(*place, height, width, channels, orientation)
        height, width = decode_image(io.BytesIO(content), channels).shape[:2]
    except UNREADABLE as error:
        return _one_line(error)
    return ImageFile(*place, height, width, channels, PIXELS)


def _tensorflow_decodes(content: bytes, height: int, width: int) -> bool:
    """Whether TensorFlow reads the JPEG to its end, at an eighth of the size to be quick."""
    try:
        pixels: Any = tf.io.decode_jpeg(content, ratio=8)
    except tf.errors.InvalidArgumentError:
        return False
    return tuple(pixels.shape[:2]) == (-(-height // 8), -(-width // 8))


def _one_line(error: BaseException) -> str:
    text = str(error).split("<_io.BytesIO")[0].strip()
    return " ".join(text.split()) or type(error).__name__
