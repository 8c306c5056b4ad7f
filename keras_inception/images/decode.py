"""Image files and bytes to pixels, by Pillow."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from keras_inception.images.geometry import centre_window

# What Pillow raises on files that are broken or no images.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


def read_image(path: Path | BinaryIO, *, height: int, width: int, channels: int) -> np.ndarray:
    """Read an image file as a network sees it: its largest centred part of that shape, resized.

    Args:
        path: any format that Pillow reads. EXIF orientation is applied; the first frame counts;
            transparency is dropped; of 16 bits the upper 8 count.
        height, width: of the result, in pixels.
        channels: 3 for RGB, 1 for grey; other modes are converted.

    Returns:
        uint8, height x width x channels.

    Raises:
        ValueError: a file that cannot be read as an image, or another number of channels.
    """
    try:
        pixels = decode_image(path, channels)
    except ValueError as error:
        raise ValueError(f"Expected an image. Received: {str(path)!r} ({error})") from error
    return fit_image(pixels, height=height, width=width)


def fit_image(pixels: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """The largest centred part of that shape of an image, resized.

    Args:
        pixels: uint8, h x w x C, C of 1 or 3.
        height, width: of the result, in pixels.

    Returns:
        uint8, height x width x C.
    """
    top, left, rows, columns = centre_window(pixels.shape[0], pixels.shape[1], height, width)
    part = pixels[top : top + rows, left : left + columns]
    image = Image.fromarray(part[..., 0] if part.shape[2] == 1 else part)
    fitted = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(fitted, dtype=np.uint8).reshape(height, width, part.shape[2])


def decode_image(source: Path | BinaryIO, channels: int) -> np.ndarray:
    """All pixels of an image, upright.

    Args:
        source: any format that Pillow reads, converted as `read_image` says.
        channels: 3 for RGB, 1 for grey.

    Returns:
        uint8, h x w x channels.

    Raises:
        ValueError: cannot be read as an image, pixels without a known range (floating point), or
            another number of channels.
    """
    if channels not in (1, 3):
        raise ValueError(f"Expected a network of 1 or 3 channels. Received: channels={channels}")
    try:
        with Image.open(source) as opened:
            upright = _eight_bits(ImageOps.exif_transpose(opened))
            upright.info.pop("transparency", None)
            image = upright.convert("RGB" if channels == 3 else "L")
    except UNREADABLE as error:
        # Without the path, which an OSError of the system repeats.
        raise ValueError(getattr(error, "strerror", None) or str(error)) from error
    return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its upper byte, as decoders treat 16-bit colour; Pillow would clip it."""
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.clip(np.asarray(image, np.int64) >> 8, 0, 255).astype(np.uint8))
