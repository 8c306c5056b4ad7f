"""Splits as tf.data streams of what a network takes in.

A training stream is a pure function of (split, recipe, step): batch i of the run is the same
whenever it is asked for, order, augmentation and all, and on however many workers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_inception.data.augment import Draws, Purpose, augmented, mixed_up
from keras_inception.data.splits import AnySplit, Split
from keras_inception.data.stream_decode import (
    CROP_DRAWS,
    PARALLEL,
    ROW_DRAWS,
    decoded_rows,
    resized,
)
from keras_inception.images.conventions import preprocess_input
from keras_inception.images.geometry import centre_window
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe

# tf.random.experimental.index_shuffle puts this constant before the user's seed.
_SHUFFLE_KEY = 498247692


def training_batches(
    split: AnySplit,
    spec: NetworkSpec,
    recipe: Recipe,
    *,
    start_step: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
) -> tf.data.Dataset:
    """An endless stream of (images, labels) for training.

    Args:
        split: the training images.
        spec: gives the input size, the channels and the pixel convention.
        recipe: gives the batch size, the augmentation and the seed.
        start_step: the first batch; batch i is the same whatever the stream starts with.
        shard_index, shard_count: worker s of n gets the rows [s * B / n, (s + 1) * B / n) of each
            batch of B, and reads no others.

    Returns:
        float32 images, rows x h x w x C (or rows x C x h x w, by the global data format) in the
        convention of the spec, and int32 labels; with mixup, float32 labels of rows x classes.
        Each pass over the split has an order of its own; batches run on across passes.

    Raises:
        ValueError: a batch that the workers cannot share evenly, an odd share with mixup, or no
            common size of the images.
    """
    rows = _shard_rows(recipe, shard_index, shard_count)
    size, channels = _network_size(split, spec), spec.input_shape[2]
    count = len(split)
    labels = tf.constant(split.labels.astype(np.int32))
    first = shard_index * rows

    def draws(step: Any) -> Draws:
        return Draws(recipe.seed, step, recipe.batch_size, first, rows)

    def chosen(step: Any) -> tuple[Any, Any]:
        index = step * recipe.batch_size + first + tf.range(rows, dtype=tf.int64)
        return step, _shuffled(index, count, recipe.seed)

    def row_draws(step: Any) -> Any:
        crop = draws(step).uniform(Purpose.CROP, CROP_DRAWS)
        flip = draws(step).uniform(Purpose.FLIP, 1)
        return tf.concat([crop, flip if recipe.flip else tf.ones_like(flip)], axis=1)

    in_memory = split if isinstance(split, Split) and recipe.crop == "none" else None
    # Images that are decoded one by one are mirrored there, before they grow to the input's size.
    batch_recipe = recipe if in_memory is not None else replace(recipe, flip=False)

    def finished(step: Any, positions: Any, images: Any) -> tuple[Any, Any]:
        images = tf.ensure_shape(images, (rows, *size, channels))
        images = augmented(images, batch_recipe, draws(step))
        own = tf.gather(labels, positions)
        if recipe.mixup:
            images, own = mixed_up(images, own, spec.classes, recipe.mixup, draws(step))
        return _network_input(images, spec), own

    chosen_rows = tf.data.Dataset.counter(start_step, dtype=tf.int64).map(chosen)
    if in_memory is not None:
        pixels = tf.constant(in_memory.images)
        images = chosen_rows.map(
            lambda step, positions: _centred(tf.gather(pixels, positions), size), PARALLEL
        )
    else:
        images = decoded_rows(
            chosen_rows.map(lambda step, positions: (positions, row_draws(step))),
            split,
            size,
            channels,
            random=recipe.crop == "paper",
        ).batch(rows, drop_remainder=True)
    return (
        tf.data.Dataset.zip((chosen_rows, images))
        .map(lambda rows, images: finished(rows[0], rows[1], images), PARALLEL)
        .prefetch(PARALLEL)
        .with_options(_options())
    )


def evaluation_batches(
    split: AnySplit,
    spec: NetworkSpec,
    batch_size: int,
    *,
    shard_index: int = 0,
    shard_count: int = 1,
) -> tf.data.Dataset:
    """Every image of the split once, in order; the last batch may be short.

    Each image is its largest centred part of the input's shape, resized with antialiasing.

    Args:
        split, spec: as for `training_batches`.
        batch_size: images of a batch of this worker.
        shard_index, shard_count: worker s of n gets the images [s * N / n, (s + 1) * N / n),
            rounded down.

    Returns:
        float32 images and int32 labels, as `training_batches`.
    """
    size, channels = _network_size(split, spec), spec.input_shape[2]
    begin, end = (len(split) * shard // shard_count for shard in (shard_index, shard_index + 1))
    labels = tf.data.Dataset.from_tensor_slices(split.labels[begin:end].astype(np.int32))
    if isinstance(split, Split):
        images = (
            tf.data.Dataset.from_tensor_slices(split.images[begin:end])
            .batch(batch_size)
            .map(lambda images: _centred(images, size), PARALLEL)
        )
    else:
        positions = tf.data.Dataset.range(begin, end).batch(batch_size)
        images = decoded_rows(
            positions.map(lambda rows: (rows, tf.ones((tf.size(rows), ROW_DRAWS)))),
            split,
            size,
            channels,
            random=False,
        ).batch(batch_size)
    return (
        tf.data.Dataset.zip((images, labels.batch(batch_size)))
        .map(lambda images, labels: (_network_input(images, spec), labels), PARALLEL)
        .prefetch(PARALLEL)
        .with_options(_options())
    )


def network_pixels(images: Any, spec: NetworkSpec) -> Any:
    """Images in the size of the network, their pixels still in [0, 255].

    Args:
        images: h x w x C or N x h x w x C, channels last.
        spec: gives the size; where it gives none, the images keep theirs.

    Returns:
        float32 tensor; channels first if that is the global data format.
    """
    size = [
        own if wanted is None else wanted
        for own, wanted in zip(images.shape[-3:-1], spec.input_shape[:2], strict=True)
    ]
    return _data_format(_centred(images, size))


def sample_pixels(split: AnySplit, spec: NetworkSpec, count: int) -> np.ndarray:
    """The first `count` images in the size of the network, pixels in [0, 255].

    Returns:
        float32 in the global data format, such as an exported model takes.
    """
    size, channels = _network_size(split, spec), spec.input_shape[2]
    count = min(count, len(split))
    if isinstance(split, Split):
        return np.asarray(network_pixels(split.images[:count], spec))
    rows = tf.data.Dataset.from_tensors(
        (tf.range(count, dtype=tf.int64), tf.ones((count, ROW_DRAWS)))
    )
    images = decoded_rows(rows, split, size, channels, random=False).batch(count)
    return np.asarray(_data_format(images.get_single_element()))


def _options() -> tf.data.Options:
    """No tuning while it runs: as many calls as there are cores.

    Its thread looks less and less often, and an iterator's end waits for its next look: after 60
    seconds of training up to 60 more (TensorFlow 2.21).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _shard_rows(recipe: Recipe, shard_index: int, shard_count: int) -> int:
    """Images of a batch that one worker gets."""
    if not 0 <= shard_index < shard_count:
        raise ValueError(
            f"Expected `shard_index` from 0 to {shard_count - 1}. "
            f"Received: shard_index={shard_index}"
        )
    rows, rest = divmod(recipe.batch_size, shard_count)
    if rest:
        raise ValueError(
            f"Expected a batch that {shard_count} workers share evenly. "
            f"Received: batch_size={recipe.batch_size}"
        )
    if recipe.mixup and rows % 2:
        raise ValueError(
            "Expected an even number of images for each worker, since mixup blends pairs. "
            f"Received: batch_size={recipe.batch_size}, shard_count={shard_count}"
        )
    return rows


def _network_size(split: AnySplit, spec: NetworkSpec) -> tuple[int, int]:
    """(height, width) of the network's input; where the spec leaves it open, that of the images."""
    height, width = (
        own if wanted is None else wanted
        for own, wanted in zip(split.shape[:2], spec.input_shape[:2], strict=True)
    )
    if height is None or width is None:
        raise ValueError(
            "Expected a spec with a fixed input size, since the images differ in size. "
            f"Received: input_shape={spec.input_shape}"
        )
    return height, width


def _shuffled(index: Any, count: int, seed: int) -> Any:
    """Positions in the split of the images `index` (a vector) of a run."""
    epoch = index // count
    seeds = tf.stack(
        [tf.fill(tf.shape(index), tf.constant(n, tf.int64)) for n in (_SHUFFLE_KEY, seed)]
        + [epoch],
        axis=1,
    )
    return tf.raw_ops.RandomIndexShuffle(
        index=index % count, seed=seeds, max_index=tf.constant(count - 1, tf.int64), rounds=4
    )


def _centred(images: Any, size: Any) -> Any:
    """The largest centred part of the shape `size` of images of one size, resized to it."""
    top, left, height, width = centre_window(*images.shape[-3:-1], *size)
    return resized(images[..., top : top + height, left : left + width, :], size)


def _data_format(images: Any) -> Any:
    if keras.config.image_data_format() == "channels_first":
        return tf.einsum("...hwc->...chw", images)
    return images


def _network_input(images: Any, spec: NetworkSpec) -> Any:
    return preprocess_input(_data_format(images), convention=spec.pixels)
