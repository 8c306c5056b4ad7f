"""Image files and bytes to pixels, by Pillow: the one place where a file becomes an image.

What happens to an image on the way is in docs/images.md; `graph_decode` does the same inside a
TensorFlow graph. The size in a file's header is checked before its pixels are decoded, and the
number of pixels that all threads decode at a time is bounded.
"""

from __future__ import annotations

import functools
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from keras_inception.images.geometry import centre_window
from keras_inception.images.limits import (
    MEGAPIXELS_VARIABLE,
    PIXELS_IN_FLIGHT,
    PixelBudget,
    max_pixels,
)

# Formats of photographs and graphics (MPO opens as JPEG). Of the others that Pillow reads, some
# start programs (EPS) or hold a second file whose size is unknown until it is decoded (ICO).
# A decoder of JPEG 2000 takes 24 bytes for a pixel, the others up to 16.
_JPEG_2000 = "JPEG2000"
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", _JPEG_2000, "PPM")
Source = Path | str | bytes | BinaryIO

_ORIENTATION_TAG = 274
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_LEVELS = range(65536)
_GREY_MODES = ("1", "L", "LA", "La", *_SIXTEEN_BITS)
# Grey PNGs of 2 and 4 bits: Pillow widens their pixels to 8 bits, but not the transparent level.
_WIDENED = {"L;2": 85, "L;4": 17}

# By default Pillow allocates an image in blocks of 16 MiB, and glibc keeps freed ones in the heap
# of each thread: gigabytes after large images. What is above 32 MiB it returns to the system.
Image.core.set_block_size(2**30)
_IN_FLIGHT = PixelBudget(PIXELS_IN_FLIGHT)
# Python's filters of warnings belong to the whole process: one thread at a time changes them.
_QUIET = threading.Lock()


class ImageError(ValueError):
    """A file that cannot be used as an image. The message is one line, without the file's name."""


class ImageInfo(NamedTuple):
    """What is known of an image that was decoded once.

    Attributes:
        height, width: of the upright image.
        channels: 1 for grey, 3 for colour; a palette counts as colour.
        orientation: EXIF's, 1 (upright) to 8; `height` and `width` have it applied.
        jpeg: whether it is a grey or RGB JPEG, which TensorFlow may decode too.
        transparent: whether it has pixels that are not opaque; they are composited on white.
    """

    height: int
    width: int
    channels: int
    orientation: int
    jpeg: bool
    transparent: bool


def read_image(
    source: Source, *, height: int, width: int, channels: int, limit: int | None = None
) -> np.ndarray:
    """Read an image file as a network sees it: its largest centred part of that shape, resized.

    Args:
        source: a path, the bytes, or a binary file, of one of `FORMATS`. EXIF orientation is
            applied; the first frame counts; transparency is composited on white; 16-bit pixels
            keep their high byte.
        height, width: of the result, in pixels.
        channels: 3 for RGB, 1 for grey; other modes are converted.
        limit: the most pixels of an image; default `limits.max_pixels()`.

    Returns:
        uint8, height x width x channels.

    Raises:
        ValueError: a file that cannot be read as an image, an image of more pixels than the
            limit, or another number of channels.
    """
    try:
        with opened(source, channels, limit) as image:
            return fitted(image, height, width)
    except ImageError as error:
        raise ImageError(f"Expected an image. Received: {_named(source)} ({error})") from None


def fit_image(pixels: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """The largest centred part of that shape of an image, resized.

    Args:
        pixels: uint8, h x w x C, C of 1 or 3.
        height, width: of the result, in pixels.

    Returns:
        uint8, height x width x C.
    """
    return fitted(as_image(pixels), height, width)


def probe(source: bytes | BinaryIO) -> ImageInfo:
    """Decode an image once to know that it can be used; a JPEG at an eighth of its size.

    Args:
        source: the bytes, or a file, of which no more is read than the decoder needs.

    Raises:
        ImageError: it cannot be read as an image, or has more pixels than `limits.max_pixels()`.
    """
    image = _open(source)
    with decoding(image.size):
        try:
            return _probed(image)
        finally:
            del image  # with it its pixels, and what its decoder holds; the file is the caller's


def _probed(image: Image.Image) -> ImageInfo:
    with _one_error():
        channels = 1 if image.mode in _GREY_MODES else 3
        jpeg = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
        if jpeg:
            full = image.size
            image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
        else:
            image.load()
            full = image.size
            _converted(image.crop((0, 0, 1, 1)), channels)  # whether it can be
        orientation = _orientation(image)
        width, height = full if orientation < 5 else full[::-1]
        transparent = not jpeg and _is_transparent(image)
        return ImageInfo(height, width, channels, orientation if jpeg else 1, jpeg, transparent)


@contextmanager
def opened(source: Source, channels: int, limit: int | None = None) -> Iterator[Image.Image]:
    """An image, decoded and upright, in mode "RGB" (3 channels) or "L" (1 channel).

    Its pixels count as in flight as long as the context lasts; it is closed at the end.

    Args:
        source, channels, limit: as for `read_image`.

    Raises:
        ValueError: as `read_image`; an `ImageError` does not name the source.
    """
    _require_channels(channels)
    image = _open(source, limit)
    with decoding(image.size):
        converted = _decoded(image, channels)
        del image  # with it its pixels, and what its decoder holds
        try:
            yield converted
        finally:  # before another thread may decode, whoever still refers to it
            converted.close()


def _decoded(image: Image.Image, channels: int) -> Image.Image:
    """The image upright, in mode "RGB" or "L"; its file is closed."""
    try:
        with _one_error():
            converted = _converted(_upright(image), channels)
    except ImageError:
        image.close()
        raise
    if converted is not image:
        image.close()
    return converted


def converted(image: Image.Image, channels: int) -> Image.Image:
    """A Pillow image as its file would be decoded: upright, in mode "RGB" or "L".

    Raises:
        ValueError: more pixels than `limits.max_pixels()`, pixels whose range is not known, or
            another number of channels.
    """
    _require_channels(channels)
    with _one_error():
        check_size(image.size)
        return _converted(_upright(image), channels)


def fitted(image: Image.Image, height: int, width: int) -> np.ndarray:
    """`fit_image` for a Pillow image of mode "RGB" or "L"."""
    top, left, rows, columns = centre_window(image.height, image.width, height, width)
    part = image.crop((left, top, left + columns, top + rows))
    return as_pixels(part.resize((width, height), Image.Resampling.BILINEAR))


def as_image(pixels: np.ndarray) -> Image.Image:
    """A Pillow image of pixels, uint8 h x w x C, C of 1 or 3."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def as_pixels(image: Image.Image) -> np.ndarray:
    """The pixels of an image of mode "RGB" or "L", uint8 h x w x C."""
    return np.asarray(image, np.uint8).reshape(image.height, image.width, -1)


def decoding(size: tuple[int, int]) -> AbstractContextManager[None]:
    """Wait for the pixels of an image of that (width, height), and count them as in flight."""
    return _IN_FLIGHT.spend(size[0] * size[1])


def _require_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(f"Expected a network of 1 or 3 channels. Received: channels={channels}")


def _named(source: Source) -> str:
    """A source as a message names it: by its path, never by its contents."""
    if isinstance(source, Path | str):
        return repr(str(source))
    return f"{len(source):,} bytes" if isinstance(source, bytes) else "a file in memory"


# --- opening --------------------------------------------------------------------------------------


def _open(source: Source, limit: int | None = None) -> Image.Image:
    """The image as Pillow opens it: its header is read, its pixels are not."""
    most = max_pixels() if limit is None else limit
    with _one_error(), _quiet():
        if Image.MAX_IMAGE_PIXELS is not None:  # Pillow refuses twice as many
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, most)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        try:
            image = Image.open(file, formats=_formats())
        except Image.DecompressionBombError:
            raise ImageError(f"more pixels than {_described(most, limit)}") from None
        try:
            check_size(image.size, limit, image.format)
            _eight_bit_transparency(image)
        except ValueError:
            image.close()
            raise
    return image


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the installed Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def check_size(size: tuple[int, ...], limit: int | None = None, kind: str | None = None) -> None:
    """Refuse an image without pixels, or of more than the limit.

    Args:
        size: (width, height).
        limit: default `limits.max_pixels()`.
        kind: Pillow's name of the format; JPEG 2000 has half the limit.

    Raises:
        ImageError: another size.
    """
    width, height = size
    most = max_pixels() if limit is None else limit
    formats = ""
    if kind == _JPEG_2000:
        most, formats = most // 2, " of a JPEG 2000 file"
    if width * height < 1:
        raise ImageError(f"{width} x {height} pixels")
    if width * height > most:
        described = _described(most, limit, formats)
        raise ImageError(f"{width} x {height} pixels, more than {described}")


def _described(most: int, limit: int | None, formats: str = "") -> str:
    setting = f"; {MEGAPIXELS_VARIABLE} sets it" if limit is None else ""
    return f"the limit{formats} of {most / 1e6:g} megapixels{setting}"


def _eight_bit_transparency(image: Image.Image) -> None:
    """Bring the transparent level or colour of a PNG to the 8 bits that its pixels will have."""
    if not isinstance(image, PngImageFile) or not image.tile:
        return
    level, mode = image.info.get("transparency"), image.tile[0].args
    if isinstance(level, int) and mode in _WIDENED:
        image.info["transparency"] = level * _WIDENED[mode]
    elif isinstance(level, tuple) and mode == "RGB;16B":
        image.info["transparency"] = tuple(part >> 8 for part in level)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings of odd headers from the terminal."""
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _one_error() -> Iterator[None]:
    """Turn whatever Pillow raises, which is more than it documents, into an `ImageError`."""
    try:
        yield
    except Exception as error:
        raise ImageError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    """The reason alone: no path, which the system and Pillow repeat, and nothing of the bytes."""
    text = getattr(error, "strerror", None) or str(error)
    text = re.sub(r"(cannot identify image file) .*", r"\1", text, flags=re.DOTALL)
    text = re.sub(r"""<_io\.[^>]*>|\(?\b(chunk )?b('[^']*'|"[^"]*")\)?""", "", text)
    return " ".join(text.split()) or type(error).__name__


# --- pixels ---------------------------------------------------------------------------------------


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation of a loaded image; 1 (upright) where there is none or it is damaged."""
    try:
        with _quiet():
            found = image.getexif().get(_ORIENTATION_TAG, 1)
        return int(found) if found in _TURNS else 1
    except Exception:  # Pillow raises whatever a damaged EXIF block leads it to
        return 1


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """The image in mode "RGB" or "L" on white. Large images are copied no more than needed."""
    mode = "RGB" if channels == 3 else "L"
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.mode in _SIXTEEN_BITS:
        image = _high_byte(image)
    if image.mode == "LAB":  # which Pillow converts to RGB alone
        image = image.convert("RGB")
    if image.has_transparency_data:
        layers = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", layers.size, "white")
        image.paste(layers, mask=layers)
    return image if image.mode == mode else image.convert(mode)


def _is_transparent(image: Image.Image) -> bool:
    """Whether a loaded image has pixels that are not opaque."""
    if image.mode in _SIXTEEN_BITS:
        image = _high_byte(image)
    if not image.has_transparency_data:
        return False
    if image.mode not in ("RGBA", "LA"):
        image = image.convert("RGBA")
    return image.getchannel("A").getextrema()[0] != 255


def _high_byte(image: Image.Image) -> Image.Image:
    """16-bit grey by its high byte, as decoders treat 16-bit colour; Pillow would clip it.

    By tables, since NumPy needs several times the memory.
    """
    levels = image if image.mode == "I" else image.convert("I")
    grey = levels.point([level >> 8 for level in _LEVELS], "L")
    if (transparent := image.info.get("transparency")) is not None:
        grey.putalpha(levels.point([255 * (level != transparent) for level in _LEVELS], "L"))
    return grey
