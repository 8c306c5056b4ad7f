"""Distortions of training images, a batch at a time. All chance comes from `Draws`.

Images are float32, N x h x w x C, in [0, 255].
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import tensorflow as tf

from keras_inception.spec.recipe import Recipe


class Purpose(IntEnum):
    """What random numbers are for: each purpose has a stream of its own."""

    CROP = 0
    FLIP = 1
    SHIFT = 2
    PHOTOMETRIC = 3
    LIGHTING = 4
    MIXUP = 5


@dataclass(frozen=True)
class Draws:
    """Random numbers of some rows of one batch: a function of seed, step, purpose and row alone.

    The numbers of the whole batch are drawn, and the rows taken: workers that share a batch see
    what one worker would.
    """

    seed: int
    step: Any
    batch_size: int
    first: int
    rows: int

    def uniform(self, purpose: Purpose, columns: int) -> Any:
        """rows x columns, float32 in [0, 1)."""
        seed = self._seed(purpose)
        return self._own(tf.random.stateless_uniform((self.batch_size, columns), seed))

    def normal(self, purpose: Purpose, columns: int) -> Any:
        """rows x columns, float32, mean 0 and deviation 1."""
        seed = self._seed(purpose)
        return self._own(tf.random.stateless_normal((self.batch_size, columns), seed))

    def beta(self, purpose: Purpose, alpha: float) -> Any:
        """rows, float32 in [0, 1], from Beta(alpha, alpha)."""
        seed = self._seed(purpose)
        gamma = tf.random.stateless_gamma((self.batch_size, 2), seed, alpha, dtype=tf.float64)
        # For tiny alphas both may round to 0: the share is then that of either image.
        share = tf.math.divide_no_nan(gamma[:, 0], gamma[:, 0] + gamma[:, 1])
        return self._own(tf.cast(share, tf.float32))

    def _seed(self, purpose: Purpose) -> Any:
        return tf.random.experimental.stateless_fold_in(
            tf.stack([tf.constant(self.seed, tf.int64), self.step]), int(purpose)
        )

    def _own(self, numbers: Any) -> Any:
        return numbers[self.first : self.first + self.rows]


def augmented(images: Any, recipe: Recipe, draws: Draws) -> Any:
    """Mirror, shift and distort images as the recipe says."""
    if recipe.flip:
        # The rows of one image, and a vector of conditions: several times as fast in TensorFlow as
        # a batch and broadcast conditions.
        rows = tf.reshape(images, (-1, *images.shape[2:]))
        mirrored = tf.reshape(tf.reverse(rows, [1]), tf.shape(images))
        chosen = draws.uniform(Purpose.FLIP, 1)[:, 0] < 0.5
        images = tf.compat.v1.where(chosen, mirrored, images)
    if recipe.shift:
        images = shifted(images, recipe.shift, draws)
    if recipe.photometric:
        images = photometric(images, draws)
    return images


def shifted(images: Any, most: int, draws: Draws) -> Any:
    """Move each image by up to `most` pixels in each direction, edges mirrored.

    "SYMMETRIC" repeats the edge, so that no black border tells the shift.
    """
    height, width = images.shape[1:3]
    edge = [most, most]
    padded = tf.pad(images, [[0, 0], edge, edge, [0, 0]], mode="SYMMETRIC")
    offsets = tf.cast(draws.uniform(Purpose.SHIFT, 2) * (2 * most + 1), tf.int32)
    offsets = tf.minimum(offsets, 2 * most)
    rows = offsets[:, :1] + tf.range(height)
    columns = offsets[:, 1:] + tf.range(width)
    moved = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(moved, columns, axis=2, batch_dims=1)


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


def photometric(images: Any, draws: Draws) -> Any:
    """Brightness, contrast and colour by factors from .5 to 1.5, then lighting.

    Each factor blends an image with black, with its mean grey, or with its grey version, as
    Pillow's ImageEnhance does (Howard, arXiv 1312.5402, section 2.2); RGB lighting is
    Krizhevsky's. All are linear in the pixels and clipped once, at the end, so that the random
    order of Howard's would change nothing. Grey images get brightness and contrast.
    """
    channels = images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"Expected images of 1 or 3 channels. Received: shape={images.shape}")
    grey = tf.constant(_GREY[None] if channels == 3 else np.ones((1, 1), np.float32))
    factors = 0.5 + draws.uniform(Purpose.PHOTOMETRIC, 3)[:, :, None, None]
    brightness, contrast, colour = factors[:, 0], factors[:, 1], factors[:, 2]  # N x 1 x 1
    mean = grey @ tf.reduce_mean(images, axis=(1, 2))[:, :, None]  # grey, N x 1 x 1
    # A pixel becomes matrix @ pixel + bias: N x C x C, N x C x 1.
    matrix = brightness * contrast * (colour * tf.eye(channels) + (1 - colour) * grey)
    bias = brightness * (1 - contrast) * mean * tf.ones((channels, 1))
    if channels == 3:
        shares = _LIGHTING_SHARE * draws.normal(Purpose.LIGHTING, 3) * _LIGHTING_DEVIATIONS
        bias += 255 * tf.matmul(shares, _LIGHTING_AXES, transpose_b=True)[:, :, None]
    pixels = tf.reshape(images, (-1, images.shape[1] * images.shape[2], channels))
    pixels = tf.matmul(pixels, matrix, transpose_b=True) + tf.transpose(bias, (0, 2, 1))
    return tf.reshape(tf.clip_by_value(pixels, 0, 255), tf.shape(images))


def mixed_up(images: Any, labels: Any, classes: int, alpha: float, draws: Draws) -> tuple[Any, Any]:
    """Blend each image and its label with its neighbour's (Zhang et al., arXiv 1710.09412).

    Rows 0 and 1 are a pair, rows 2 and 3, and so on: the order is random already, and workers that
    share a batch need no image of each other.

    Returns:
        Images, and labels as float32 N x classes that sum to 1.
    """
    share = draws.beta(Purpose.MIXUP, alpha)
    neighbour = tf.range(tf.shape(images)[0]) ^ 1
    one_hot = tf.one_hot(labels, classes)
    own = share[:, None, None, None]
    images = own * images + (1 - own) * tf.gather(images, neighbour)
    own = share[:, None]
    return images, own * one_hot + (1 - own) * tf.gather(one_hot, neighbour)
