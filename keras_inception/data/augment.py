"""Distortions of training images, a batch at a time, in NumPy. All randomness is in `Draws`.

Images are N x h x w x C, in [0, 255].
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from keras_inception.spec.recipe import Recipe


class Purpose(IntEnum):
    """The purpose of random numbers; each purpose has its own stream."""

    CROP = 0
    FLIP = 1
    SHIFT = 2
    PHOTOMETRIC = 3
    LIGHTING = 4
    MIXUP = 5
    ORDER = 6


def generator(seed: int, step: int, purpose: Purpose) -> np.random.Generator:
    """Return a generator that depends only on the arguments."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step, purpose))))


@dataclass(frozen=True)
class Draws:
    """Random numbers of some rows of a batch, which depend only on seed, step, purpose and row.

    The numbers are drawn for the whole batch and the rows selected, so workers that share a batch
    get the same numbers as a single worker.
    """

    seed: int
    step: int
    batch_size: int
    first: int
    rows: int

    def uniform(self, purpose: Purpose, columns: int) -> np.ndarray:
        """rows x columns, float32 in [0, 1)."""
        return self._own(purpose).random((self.batch_size, columns), np.float32)[self._rows]

    def normal(self, purpose: Purpose, columns: int) -> np.ndarray:
        """rows x columns, float32, mean 0 and deviation 1."""
        numbers = self._own(purpose).standard_normal((self.batch_size, columns), np.float32)
        return numbers[self._rows]

    def beta(self, purpose: Purpose, alpha: float) -> np.ndarray:
        """rows, float32 in [0, 1], from Beta(alpha, alpha)."""
        shares = self._own(purpose).beta(alpha, alpha, self.batch_size)
        return shares.astype(np.float32)[self._rows]

    def _own(self, purpose: Purpose) -> np.random.Generator:
        return generator(self.seed, self.step, purpose)

    @property
    def _rows(self) -> slice:
        return slice(self.first, self.first + self.rows)


def augmented(images: np.ndarray, recipe: Recipe, draws: Draws) -> np.ndarray:
    """Mirror, shift and distort images according to the recipe."""
    if recipe.flip:
        chosen = _mirrored(draws)
        images = np.where(chosen[:, :, None, None], images[:, :, ::-1], images)
    if recipe.shift:
        images = shifted(images, recipe.shift, draws)
    if recipe.photometric:
        images = photometric(images, draws)
    return images


def shifted(images: np.ndarray, most: int, draws: Draws) -> np.ndarray:
    """Move each image by up to `most` pixels in each direction, edges mirrored.

    "symmetric" repeats the edge, so that no black border reveals the shift.
    """
    count, height, width, _ = images.shape
    edge = (most, most)
    padded = np.pad(images, ((0, 0), edge, edge, (0, 0)), mode="symmetric")
    offsets = _offsets(most, draws)
    windows = sliding_window_view(padded, (height, width), (1, 2))  # N x m x m x C x h x w
    moved = windows[np.arange(count), offsets[:, 0], offsets[:, 1]]
    return np.ascontiguousarray(np.moveaxis(moved, 1, 3))


def pixel_places(
    size: tuple[int, int], recipe: Recipe, draws: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """Where `augmented` takes each row and each column from, without photometric distortions.

    Returns:
        int32, N x height and N x width.
    """
    offsets = _offsets(recipe.shift, draws) - recipe.shift
    rows, columns = (
        _reflected(np.arange(length) + offsets[:, axis : axis + 1], length)
        for axis, length in enumerate(size)
    )
    if recipe.flip:
        columns = np.where(_mirrored(draws), size[1] - 1 - columns, columns)
    return rows.astype(np.int32), columns.astype(np.int32)


def _mirrored(draws: Draws) -> np.ndarray:
    """rows x 1: which images are mirrored."""
    return draws.uniform(Purpose.FLIP, 1) < 0.5


def _offsets(most: int, draws: Draws) -> np.ndarray:
    """rows x 2, integers from 0 to 2 * most."""
    offsets = (draws.uniform(Purpose.SHIFT, 2) * (2 * most + 1)).astype(int)
    return np.minimum(offsets, 2 * most)


def _reflected(places: np.ndarray, length: int) -> np.ndarray:
    """Places beyond an edge, mirrored at it; the edge itself is repeated."""
    places = places % (2 * length)
    return np.minimum(places, 2 * length - 1 - places)


# Weights of red, green and blue in Pillow's grey (ITU-R 601).
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
# Principal components of ImageNet's RGB values in [0, 1] (columns), and the deviations along them
# (Krizhevsky et al., 2012, section 4.1), as published in fb.resnet.torch's datasets/imagenet.lua.
_LIGHTING_DEVIATIONS = np.array([0.2175, 0.0188, 0.0045], np.float32)
_LIGHTING_AXES = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]],
    np.float32,
)
# Deviation of the share of each component that is added: .1 in the paper above.
_LIGHTING_SHARE = 0.1


def photometric(images: np.ndarray, draws: Draws) -> np.ndarray:
    """Brightness, contrast and colour by factors from .5 to 1.5, then lighting.

    Each factor blends an image with black, with its mean grey, or with its grey version, as
    Pillow's ImageEnhance does (Howard, arXiv 1312.5402, section 2.2); RGB lighting is
    Krizhevsky's. All are linear in the pixels and clipped once at the end, so Howard's random order
    would make no difference. Grey images get brightness and contrast.
    """
    count, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"Expected images of 1 or 3 channels. Received: shape={images.shape}")
    pixels = images.reshape(count, height * width, channels).astype(np.float32, copy=False)
    grey = _GREY[None] if channels == 3 else np.ones((1, 1), np.float32)  # 1 x C
    factors = 0.5 + draws.uniform(Purpose.PHOTOMETRIC, 3)[:, :, None, None]
    brightness, contrast, colour = factors[:, 0], factors[:, 1], factors[:, 2]  # N x 1 x 1
    mean = pixels.mean(axis=1, keepdims=True) @ grey.T  # grey, N x 1 x 1
    # A row of pixels becomes pixel @ matrix + bias: N x C x C, N x 1 x C.
    matrix = brightness * contrast * (colour * np.eye(channels, dtype=np.float32))
    matrix = matrix + brightness * contrast * (1 - colour) * grey.T
    bias = brightness * (1 - contrast) * mean * np.ones((1, channels), np.float32)
    if channels == 3:
        shares = _LIGHTING_SHARE * draws.normal(Purpose.LIGHTING, 3) * _LIGHTING_DEVIATIONS
        bias = bias + 255 * (shares @ _LIGHTING_AXES.T)[:, None]
    return np.clip(pixels @ matrix + bias, 0, 255).reshape(images.shape)


def mixed_up(
    images: np.ndarray, labels: np.ndarray, classes: int, alpha: float, draws: Draws
) -> tuple[Any, Any]:
    """Blend each image and its label with its neighbour's (Zhang et al., arXiv 1710.09412).

    Rows 0 and 1 are a pair, rows 2 and 3, and so on. The order is already random, and workers that
    share a batch need no images of each other.

    Returns:
        Images, and labels as float32 N x classes that sum to 1.
    """
    share = draws.beta(Purpose.MIXUP, alpha)
    neighbour = np.arange(len(images)) ^ 1
    one_hot = np.eye(classes, dtype=np.float32)[labels]
    own = share[:, None, None, None]
    images = own * images + (1 - own) * images[neighbour]
    own = share[:, None]
    return images, own * one_hot + (1 - own) * one_hot[neighbour]
