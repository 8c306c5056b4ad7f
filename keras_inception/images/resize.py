"""Resizing of arrays: as files are resized, and by the filters of training's random crops.

The latter are those of `tf.image.resize`, in NumPy alone.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from PIL import Image

Filter = Literal["bilinear", "nearest", "area", "cubic"]


def resize(images: np.ndarray, size: tuple[int, int], method: Filter) -> np.ndarray:
    """Resize images, ... x h x w x C, to (height, width).

    Args:
        images: any numeric dtype.
        size: of the result.
        method: of `tf.image.resize` without antialiasing. "cubic" may leave the range of the
            pixels.

    Returns:
        float32.
    """
    images = images.astype(np.float32, copy=False)
    *front, height, width, channels = images.shape
    if (height, width) == tuple(size):
        return images
    rows = _weights(height, size[0], method) @ images.reshape(*front, height, width * channels)
    rows = rows.reshape(*front, size[0], width, channels)
    return np.asarray(_weights(width, size[1], method) @ rows)


def resize_floats(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize whole images as `decode.fitted` does, by Pillow's filter, without rounding to levels.

    Args:
        images: N x h x w x C of any range, such as changes of pixels.
        size: (height, width) of the result.

    Returns:
        float32.
    """
    planes = np.moveaxis(images.astype(np.float32, copy=False), -1, 1)  # N x C x h x w
    resized = [
        np.asarray(Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR))
        for plane in np.ascontiguousarray(planes.reshape(-1, *planes.shape[2:]))
    ]
    return np.moveaxis(np.stack(resized).reshape(*planes.shape[:2], *size), 1, -1)


@cache
def _weights(source: int, target: int, method: Filter) -> np.ndarray:
    """Return target x source: the weight of each pixel in each new one; rows sum to 1."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale - 0.5
    pixels = np.arange(source)
    distances = np.abs(pixels - centres[:, None])
    if method == "nearest":
        nearest = np.minimum(np.floor((np.arange(target) + 0.5) * scale), source - 1)
        weights = (pixels == nearest[:, None]).astype(np.float64)
    elif method == "area":  # the part of each pixel within the new one
        ends = np.arange(target + 1)[:, None] * scale
        weights = np.minimum(ends[1:], pixels + 1) - np.maximum(ends[:-1], pixels)
    elif method == "cubic":
        weights = _keys(distances)
    else:  # bilinear: the edge pixels are repeated beyond the edges
        weights = 1 - np.abs(pixels - np.clip(centres, 0, source - 1)[:, None])
    if method != "cubic":
        weights = np.maximum(weights, 0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)


def _keys(distances: np.ndarray) -> np.ndarray:
    """Cubic convolution with a = -.5 (Keys 1981)."""
    near = (1.5 * distances - 2.5) * distances**2 + 1
    far = ((-0.5 * distances + 2.5) * distances - 4) * distances + 2
    return np.where(distances < 1, near, np.where(distances < 2, far, 0.0))
