"""Conventions of pixels: what a network expects at its input.

Four pixel conventions exist among the public GoogLeNets (docs/design.md); mixing them is the
most reported cause of near-zero accuracy. A spec names its own in `NetworkSpec.pixels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_inception.spec.network import INPUT_NAME_PREFIX, PixelConvention


@dataclass(frozen=True)
class Convention:
    """pixels -> (channels reversed?) * scale - offset, channel by channel after the reversal."""

    reverse_channels: bool
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]


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
