"""Scan files: which are images, and the size and format of each."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import keras
import PIL

from keras_inception.bounded import MOST_TEXT, Allowance, bytes_on_disk, read_gzip
from keras_inception.data.splits import PIXELS, ImageFile
from keras_inception.files import aside
from keras_inception.images.decode import ImageError, ImageInfo, decoding, probe
from keras_inception.images.limits import max_pixels

# Threads that wait for the disk; decoding releases the GIL.
_THREADS = 16
# Of a digest of an image's bytes: 64 bits tell the images of a data set apart.
_DIGITS = 16
_MOST_JPEG_BYTES = 2**25
# Raised when `ImageFile` or what is read as an image changes.
_VERSION = 1
# Paths and digests as JSON shrink to a quarter.
_MOST_EXPANSION = 20


class Place(NamedTuple):
    """The location of the bytes of an encoded image."""

    path: str
    offset: int
    length: int
    modified: int  # of the file that holds it, nanoseconds since 1970

    @classmethod
    def of_file(cls, path: Path) -> Place:
        """A whole file."""
        status = path.stat()
        return cls(str(path), 0, status.st_size, status.st_mtime_ns)


Scanned = dict[Place, ImageFile | str]


def scan(
    places: Sequence[Place],
    progress: Callable[[int, int], None] | None = None,
    known: Scanned | None = None,
) -> Scanned:
    """Decode every image once: what is known of it, or the reason why it cannot be read.

    Args:
        places: of the encoded images.
        progress: called with the number of images scanned so far, and of all.
        known: of an earlier scan: its images are not read again, as long as their files have the
            size and the time of modification that they had.
    """
    results: Scanned = {}
    known = known or {}
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda place: known.get(place) or _probe(place), places)
        for place, result in zip(places, found, strict=True):
            results[place] = result
            if progress is not None:
                progress(len(results), len(places))
    return results


def save_scan(path: Path, scanned: Scanned) -> None:
    """Write what is known of images, for `load_scan`."""
    rows = [
        [*place, result if isinstance(result, str) else result[3:]]
        for place, result in scanned.items()
    ]
    with aside(path) as beside, gzip.open(beside, "wt", encoding="ascii") as file:
        json.dump({"rules": _rules(), "images": rows}, file)


def load_scan(path: str | os.PathLike[str] | None) -> Scanned:
    """What `save_scan` wrote; nothing where the file is missing, damaged, or of other rules."""
    if path is None:
        return {}
    path = Path(path)
    try:
        allowance = Allowance(path, max(MOST_TEXT, _MOST_EXPANSION * bytes_on_disk(path)))
        document = json.loads(read_gzip(path, allowance).decode("ascii"))
        if document["rules"] != _rules():
            return {}
        scanned: Scanned = {}
        for *place, result in document["images"]:
            key = Place(*place)
            _require_values(key)
            known = result if isinstance(result, str) else ImageFile(*key[:3], *result)
            if isinstance(known, ImageFile):
                _require_values(known)
            scanned[key] = known
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return {}
    return scanned


def _require_values(row: tuple[Any, ...]) -> None:
    """Refuse a row whose values are not of the types of its fields, or negative.

    Raises:
        ValueError: another type, or below zero.
    """
    for (name, kind), value in zip(get_type_hints(type(row)).items(), row, strict=True):
        if type(value) is not kind or (kind is int and value < 0):
            raise ValueError(name)


def _rules() -> list[Any]:
    """What decides, beside a file, whether and how it is read."""
    decoder = "Pillow"
    if _with_tensorflow():
        import tensorflow as tf

        decoder = tf.__version__
    return [_VERSION, PIL.__version__, decoder, max_pixels()]


def _with_tensorflow() -> bool:
    """Whether TensorFlow decodes the random crops of JPEGs; under other backends Pillow does."""
    return keras.backend.backend() == "tensorflow"


def _probe(place: Place) -> ImageFile | str:
    if not place.length:
        return "zero bytes"
    where = place[:3]
    image = ImageFile(*where, 0, 0, 0, PIXELS)
    try:
        with image.open() as file:
            info = probe(file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
        by_tensorflow = info.jpeg and _with_tensorflow() and _tensorflow_decodes(image, info)
    except (OSError, ImageError) as error:
        return getattr(error, "strerror", None) or str(error)
    orientation = info.orientation if by_tensorflow else PIXELS
    return ImageFile(
        *where, info.height, info.width, info.channels, orientation, info.transparent, digest
    )


def _tensorflow_decodes(image: ImageFile, info: ImageInfo) -> bool:
    """Return whether TensorFlow reads the JPEG to its end, at an eighth of the size for speed.

    A file of more bytes than a photograph has is left to Pillow, which need not hold all of them.
    """
    if image.length > _MOST_JPEG_BYTES:
        return False
    import tensorflow as tf

    size = sorted((info.height, info.width))
    try:
        with decoding((info.width, info.height)):
            pixels: Any = tf.io.decode_jpeg(image.read(), ratio=8)
    except tf.errors.InvalidArgumentError:
        return False
    return sorted(pixels.shape[:2]) == [-(-side // 8) for side in size]
