"""Pixels on their way into a network: conventions, decoding, sizes. Pure functions, no datasets.

Four pixel conventions exist among the public GoogLeNets (docs/design.md); mixing them is the
most reported cause of near-zero accuracy. A spec names its own in `NetworkSpec.pixels`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np
from PIL import Image, ImageOps

from keras_inception.crops import centre_window
from keras_inception.spec import INPUT_NAME_PREFIX, PixelConvention


@dataclass(frozen=True)
class Convention:
    """pixels -> (channels reversed?) * scale - offset, channel by channel after the reversal."""

    reverse_channels: bool
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]


# What Pillow raises on files that are broken or no images.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

CONVENTIONS: dict[PixelConvention, Convention] = {
    # TF-Slim: RGB in [-1, 1]
    "tf": Convention(False, (1 / 127.5,) * 3, (1.0,) * 3),
    # BVLC: BGR minus the ImageNet mean, models/bvlc_googlenet/train_val.prototxt
    "caffe": Convention(True, (1.0,) * 3, (104.0, 117.0, 123.0)),
    # torchvision's transforms: RGB in [0, 1], minus mean, over deviation
    "torch": Convention(
        False,
        tuple(1 / 255 / deviation for deviation in _IMAGENET_DEVIATION),  # type: ignore[arg-type]
        tuple(
            mean / deviation
            for mean, deviation in zip(_IMAGENET_MEAN, _IMAGENET_DEVIATION, strict=True)
        ),  # type: ignore[arg-type]
    ),
    # Google's inception5h: RGB minus 117
    "inception5h": Convention(False, (1.0,) * 3, (117.0,) * 3),
}


def preprocess_input(
    x: Any, data_format: str | None = None, *, convention: PixelConvention = "caffe"
) -> Any:
    """Bring RGB pixels in [0, 255] into the convention a network was trained with.

    Args:
        x: array or tensor, ... x h x w x C (or ... x C x h x w), any numeric dtype, pixels in
            [0, 255], channels in the order RGB. One channel (grey) works for "tf" and
            "inception5h", which treat all channels alike.
        data_format: "channels_last" or "channels_first"; default the global setting.
        convention: "caffe" (BVLC's weights, the default of `GoogLeNet()`), "tf" (TF-Slim,
            torchvision's weights, and the networks trained from scratch here), "torch",
            or "inception5h". `model_preprocessing(model)` tells a model's own.

    Returns:
        float32 of the same shape; a NumPy array for a NumPy array.

    Raises:
        ValueError: an unknown convention or data format, or grey pixels where the channels differ.
    """
    if convention not in CONVENTIONS:
        raise ValueError(
            f"Expected `convention` among {sorted(CONVENTIONS)}. Received: {convention!r}"
        )
    rule = CONVENTIONS[convention]
    data_format = keras.config.image_data_format() if data_format is None else data_format
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            'Expected `data_format` "channels_last" or "channels_first". '
            f"Received: data_format={data_format!r}"
        )
    axis = -1 if data_format == "channels_last" else -3
    channels = x.shape[axis]
    alike = len(set(rule.scale)) == len(set(rule.offset)) == 1 and not rule.reverse_channels
    if channels != 3 and not alike:
        raise ValueError(
            f"Expected 3 channels for the convention {convention!r}, whose channels differ. "
            f"Received: shape={tuple(x.shape)}, data_format={data_format!r}"
        )
    if isinstance(x, np.ndarray):
        x = x.astype("float32")
    elif keras.backend.standardize_dtype(x.dtype) != "float32":
        # Not for float32: tf.data hands on TensorFlow's tensors whatever the backend.
        x = keras.ops.cast(x, "float32")
    if rule.reverse_channels:
        x = np.flip(x, axis) if isinstance(x, np.ndarray) else keras.ops.flip(x, axis)
    shape = (-1,) if axis == -1 else (-1, 1, 1)
    used = 1 if alike else 3
    scale = np.asarray(rule.scale[:used], "float32").reshape(shape)
    offset = np.asarray(rule.offset[:used], "float32").reshape(shape)
    return x * scale - offset


def model_preprocessing(model: keras.Model) -> PixelConvention:
    """The pixel convention a network expects, read from its input's name.

    The name survives `.keras` files, so the convention travels with the model.

    Raises:
        ValueError: a model that does not name it, such as one built on an `input_tensor`.
    """
    names = [tensor.name for tensor in model.inputs]
    for convention in CONVENTIONS:
        if names == [INPUT_NAME_PREFIX + convention]:
            return convention
    raise ValueError(
        f"Expected an input named {INPUT_NAME_PREFIX}CONVENTION. Received: inputs {names}. Give "
        "`preprocess_input` the convention of the network's weights."
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
