"""Pixel conventions: the pixel values that a network expects at its input.

`spec.pixels` has them as data. A spec names its own in `NetworkSpec.pixels`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_inception.spec.network import INPUT_NAME_PREFIX
from keras_inception.spec.pixels import CONVENTIONS, RAW


def preprocess_input(
    x: Any,
    data_format: str | None = None,
    *,
    model: keras.Model | None = None,
    convention: str | None = None,
) -> Any:
    """Convert RGB pixels in [0, 255] to the convention of a network.

    There is no default convention: the networks of this package have four, and pixels in another
    one cost most of the accuracy without an error.

    Args:
        x: array or tensor, ... x h x w x C (or ... x C x h x w), any numeric dtype, pixels in
            [0, 255], channels in the order RGB. One channel (grey) works for "tf", "inception5h"
            and "raw", which treat all channels alike.
        data_format: "channels_last" or "channels_first"; default the global setting.
        model: the network for the pixels; its convention is used.
        convention: instead of `model`: "caffe" (BVLC's weights, those of `GoogLeNet()`),
            "tf" (TF-Slim, torchvision's weights, and the networks trained from scratch here),
            "torch", "inception5h", or "raw", which changes no value.

    Returns:
        float32 of the same shape; a NumPy array for a NumPy array.

    Raises:
        ValueError: not exactly one of `model` and `convention`, an unknown convention or data
            format, or grey pixels where the channels differ.
    """
    convention = _chosen_convention(model, convention)
    rule = CONVENTIONS[convention]
    data_format = _chosen_data_format(data_format)
    axis = -1 if data_format == "channels_last" else -3
    alike = rule.channels_alike
    if x.shape[axis] != 3 and not alike:
        raise ValueError(
            f"Expected 3 channels for the convention {convention!r}, whose channels differ. "
            f"Received: shape={tuple(x.shape)}, data_format={data_format!r}"
        )
    x = _as_float32(x)
    if convention == RAW:
        return x
    if rule.reverse_channels:
        x = np.flip(x, axis) if isinstance(x, np.ndarray) else keras.ops.flip(x, axis)
    shape = (-1,) if axis == -1 else (-1, 1, 1)
    used = 1 if alike else 3
    scale = np.asarray(rule.scale[:used], "float32").reshape(shape)
    offset = np.asarray(rule.offset[:used], "float32").reshape(shape)
    return x * scale - offset


def restored_pixels(x: np.ndarray, convention: str) -> np.ndarray:
    """RGB or grey pixels in [0, 255], uint8, of images in a convention; channels last.

    Undoes `preprocess_input`; values outside are clipped.
    """
    rule = CONVENTIONS[convention]
    used = x.shape[-1]
    pixels = (x + np.asarray(rule.offset[:used])) / np.asarray(rule.scale[:used])
    if rule.reverse_channels:
        pixels = pixels[..., ::-1]
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _chosen_convention(model: keras.Model | None, convention: str | None) -> str:
    if (model is None) == (convention is None):
        raise ValueError(
            "Expected `model`, the network that is to see the pixels, or `convention`, its pixel "
            f"convention among {sorted(CONVENTIONS)} (that of `GoogLeNet()` is 'caffe'). Received: "
            + ("neither" if model is None else "both")
        )
    if convention is None:
        convention = model_preprocessing(model)
    if convention not in CONVENTIONS:
        raise ValueError(
            f"Expected `convention` among {sorted(CONVENTIONS)}. Received: {convention!r}"
        )
    return convention


def _chosen_data_format(data_format: str | None) -> str:
    if data_format is None:
        return keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            'Expected `data_format` "channels_last" or "channels_first". '
            f"Received: data_format={data_format!r}"
        )
    return data_format


def _as_float32(x: Any) -> Any:
    """Return a new array for an array of any dtype; float32 tensors unchanged."""
    if isinstance(x, np.ndarray):
        return x.astype("float32")
    if keras.backend.standardize_dtype(x.dtype) == "float32":
        return x  # tf.data passes TensorFlow tensors under every backend
    return keras.ops.cast(x, "float32")


def model_preprocessing(model: keras.Model) -> str:
    """Return the pixel convention of a network, read from the name of its input.

    The name survives `.keras` files, so the convention travels with the model. "raw" is a network
    built with `include_preprocessing`: it takes pixels in [0, 255].

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
