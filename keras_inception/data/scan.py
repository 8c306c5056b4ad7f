"""Scan files: which are images, and the size and format of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import tensorflow as tf

from keras_inception.data.splits import PIXELS, ImageFile
from keras_inception.images.decode import ImageError, ImageInfo, decoding, probe

# Threads that wait for the disk; decoding releases the GIL.
_THREADS = 16


class Place(NamedTuple):
    """The location of the bytes of an encoded image."""

    path: str
    offset: int
    length: int


def scan(
    places: Iterable[Place], progress: Callable[[int], None] | None = None
) -> list[ImageFile | str]:
    """Decode every image once; return its properties, or the reason why it cannot be read.

    Args:
        places: locations of the encoded images.
        progress: called with the number of images scanned so far.
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
        info = probe(content)
    except (OSError, ImageError) as error:
        return getattr(error, "strerror", None) or str(error)
    by_tensorflow = info.jpeg and _tensorflow_decodes(content, info)
    orientation = info.orientation if by_tensorflow else PIXELS
    return ImageFile(*place, info.height, info.width, info.channels, orientation, info.transparent)


def _tensorflow_decodes(content: bytes, info: ImageInfo) -> bool:
    """Return whether TensorFlow reads the JPEG to its end, at an eighth of the size for speed."""
    size = sorted((info.height, info.width))
    try:
        with decoding((info.width, info.height)):
            pixels: Any = tf.io.decode_jpeg(content, ratio=8)
    except tf.errors.InvalidArgumentError:
        return False
    return sorted(pixels.shape[:2]) == [-(-side // 8) for side in size]
