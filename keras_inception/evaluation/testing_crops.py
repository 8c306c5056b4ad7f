"""The crops of testing as pixels: section 7's 144, Krizhevsky's 10, or one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_inception.data.splits import PIXELS, AnySplit, Part, Split
from keras_inception.images.geometry import Crops, Scale, Window, mirrors, scales


def crop_views(
    split: AnySplit, size: int, channels: int, crops: Crops, *, views_at_once: int = 64
) -> Iterator[tuple[int, np.ndarray]]:
    """The crops of every image in order, a few images or one scale of one image at a time.

    So memory holds 36 crops of an image at once, not all 144 of a batch.

    Args:
        size: of the network's square input.
        channels: 1 or 3.
        crops: `keras_inception.images.geometry.scales` lays them out.
        views_at_once: about how many crops of equally large images come together.

    Yields:
        The position of the first image, and images x crops x size x size x channels, float32 in
        [0, 255]. A position comes once for each scale.

    Raises:
        ValueError: images in memory of another number of channels.
    """
    if isinstance(split, Split) and split.shape[2] != channels:  # files are decoded as asked
        raise ValueError(
            f"Expected images of {channels} channels, as the network takes. Received: images of "
            f"{split.shape[2]}"
        )
    position = 0
    while position < len(split):
        height, width = split.size_of(position)
        layout = scales(height, width, size, crops)
        if isinstance(split, Split):
            views = len(layout[0].squares) * (2 if mirrors(crops) else 1)
            images = split.images[position : position + max(1, views_at_once // views)]
        else:
            whole = Window(0, 0, height, width)
            images = _pixels(split.part(position, whole, channels), channels)[None]
        for scale in layout:
            yield position, _views(images, scale, size, mirrored=mirrors(crops))
        position += len(images)


def _pixels(part: Part, channels: int) -> np.ndarray:
    """A whole image, upright: height x width x channels."""
    if part.orientation == PIXELS:
        shape = (part.window.height, part.window.width, channels)
        return np.frombuffer(part.content, np.uint8).reshape(shape)
    stored = tf.io.decode_jpeg(part.content, channels=channels, dct_method="INTEGER_ACCURATE")
    return upright(np.asarray(stored), part.orientation)


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Apply EXIF's orientation: 5 to 8 transpose, then some mirror down or right."""
    turned = stored.swapaxes(0, 1) if orientation >= 5 else stored
    turned = turned[::-1] if orientation in (3, 4, 7, 8) else turned
    return turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned


def _views(images: np.ndarray, scale: Scale, size: int, *, mirrored: bool) -> np.ndarray:
    resized = _resized(images, scale.height, scale.width)
    views = [
        _resized(resized[:, top : top + side, left : left + side], size, size)
        for top, left, side in scale.squares
    ]
    stacked = np.stack(views, axis=1)  # N x K x size x size x C
    return np.concatenate([stacked, stacked[:, :, :, ::-1]], axis=1) if mirrored else stacked


def _resized(images: Any, height: int, width: int) -> np.ndarray:
    if images.shape[1:3] == (height, width):
        return np.asarray(images, np.float32)
    pixels = tf.cast(images, tf.float32)
    return np.asarray(tf.image.resize(pixels, (height, width), antialias=True))
