"""Splits as tf.data streams of what a network takes in.

A training stream is a pure function of (split, recipe, step): batch i of the run is the same
whenever it is asked for, order, augmentation and all, and on however many workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_inception.crops import Window, centre_window, random_window
from keras_inception.data.augment import Draws, Purpose, augmented, mixed_up
from keras_inception.data.splits import PIXELS, AnySplit, Split
from keras_inception.preprocessing import preprocess_input
from keras_inception.recipe import Recipe
from keras_inception.spec import NetworkSpec

# Uniform numbers of `random_window`, one that chooses the interpolation, and one that mirrors.
_CROP_DRAWS, _ROW_DRAWS = 23, 24
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
        crop = draws(step).uniform(Purpose.CROP, _CROP_DRAWS)
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
            lambda step, positions: _centred(tf.gather(pixels, positions), size), _PARALLEL
        )
    else:
        images = _decoded_rows(
            chosen_rows.map(lambda step, positions: (positions, row_draws(step))),
            split,
            size,
            channels,
            random=recipe.crop == "paper",
        ).batch(rows, drop_remainder=True)
    return (
        tf.data.Dataset.zip((chosen_rows, images))
        .map(lambda rows, images: finished(rows[0], rows[1], images), _PARALLEL)
        .prefetch(_PARALLEL)
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
            .map(lambda images: _centred(images, size), _PARALLEL)
        )
    else:
        positions = tf.data.Dataset.range(begin, end).batch(batch_size)
        images = _decoded_rows(
            positions.map(lambda rows: (rows, tf.ones((tf.size(rows), _ROW_DRAWS)))),
            split,
            size,
            channels,
            random=False,
        ).batch(batch_size)
    return (
        tf.data.Dataset.zip((images, labels.batch(batch_size)))
        .map(lambda images, labels: (_network_input(images, spec), labels), _PARALLEL)
        .prefetch(_PARALLEL)
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
        (tf.range(count, dtype=tf.int64), tf.ones((count, _ROW_DRAWS)))
    )
    images = _decoded_rows(rows, split, size, channels, random=False).batch(count)
    return np.asarray(_data_format(images.get_single_element()))


_PARALLEL = tf.data.AUTOTUNE


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


def _decoded_rows(
    rows: tf.data.Dataset,
    split: AnySplit,
    size: tuple[int, int],
    channels: int,
    *,
    random: bool,
) -> tf.data.Dataset:
    """One image, float32 h x w x C in [0, 255], for each position of (positions, uniforms)."""
    read = _reader(split, size, channels, random=random)
    types = (tf.string, tf.int32, tf.int32, tf.int32)

    def parts(positions: Any, uniforms: Any) -> Any:
        return *tf.numpy_function(read, (positions, uniforms), types), uniforms[
            :, _CROP_DRAWS - 1 :
        ]

    def image(content: Any, window: Any, orientation: Any, ratio: Any, uniforms: Any) -> Any:
        window = tf.ensure_shape(window, (4,))
        pixels = tf.cond(
            orientation == PIXELS,
            lambda: _pixels(content, window, channels),
            lambda: _jpeg_window(content, window, orientation, ratio, channels),
        )
        pixels.set_shape((None, None, channels))
        pixels = tf.cond(uniforms[1] < 0.5, lambda: tf.reverse(pixels, [1]), lambda: pixels)
        return _interpolated(pixels, size, uniforms[0]) if random else _resized(pixels, size)

    return rows.map(parts, _PARALLEL).unbatch().map(image, _PARALLEL)


def _reader(
    split: AnySplit, size: tuple[int, int], channels: int, *, random: bool
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]:
    """A function (positions, uniforms) -> contents, stored windows, orientations, DCT ratios."""
    # How many pixels of the window there must be for each of the input's when a JPEG is decoded
    # at 1/2, 1/4 or 1/8. The window's edges are then rounded: by an eighth of the input's pixels
    # at most where images are evaluated.
    least = 1 if random else 4

    def read(positions: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, ...]:
        parts, ratios = [], []
        for position, numbers in zip(positions.tolist(), uniforms.tolist(), strict=True):
            height, width = split.size_of(position)
            window = (
                random_window(height, width, numbers)
                if random
                else centre_window(height, width, *size)
            )
            parts.append(split.part(position, window, channels))
            ratios.append(_dct_ratio(window, size, least))
        contents = np.array([part.content for part in parts], object)
        windows = np.array([part.window for part in parts], np.int32)
        orientations = np.array([part.orientation for part in parts], np.int32)
        return contents, windows, orientations, np.array(ratios, np.int32)

    return read


def _dct_ratio(window: Window, size: tuple[int, int], least: int) -> int:
    """The largest of 0 (1/1) to 3 (1/8) halvings that leaves `least` pixels for each wanted."""
    room = min(window.height // (least * size[0]), window.width // (least * size[1]))
    return min(3, max(room, 1).bit_length() - 1)


def _pixels(content: Any, window: Any, channels: int) -> Any:
    shape = tf.stack([window[2], window[3], channels])
    return tf.reshape(tf.io.decode_raw(content, tf.uint8), shape)


def _jpeg_window(content: Any, window: Any, orientation: Any, halvings: Any, channels: int) -> Any:
    """Decode nothing but the window, at 1/2 to 1/8 where that suffices, and turn it upright."""

    def at(ratio: int) -> Callable[[], Any]:
        return lambda: tf.image.decode_and_crop_jpeg(
            content,
            window // ratio,
            channels=channels,
            ratio=ratio,
            dct_method="INTEGER_ACCURATE",  # exactly Pillow's pixels, and as fast
        )

    pixels = tf.switch_case(halvings, [at(1), at(2), at(4), at(8)])
    return tf.cond(orientation == 1, lambda: pixels, lambda: _upright(pixels, orientation))


def _upright(pixels: Any, orientation: Any) -> Any:
    """Apply EXIF's orientation: 5 to 8 transpose, then some mirror down or right."""
    pixels = tf.cond(orientation < 5, lambda: pixels, lambda: tf.transpose(pixels, (1, 0, 2)))
    for axis, mirrored in ((0, (3, 4, 7, 8)), (1, (2, 3, 6, 7))):
        chosen = tf.reduce_any(orientation == tf.constant(mirrored))
        pixels = tf.cond(chosen, lambda: tf.reverse(pixels, [axis]), lambda: pixels)  # noqa: B023
    return pixels


def _interpolated(pixels: Any, size: tuple[int, int], uniform: Any) -> Any:
    """Resize by bilinear, nearest, area or cubic interpolation, each as probable (section 6)."""

    def by(method: str) -> Callable[[], Any]:
        return lambda: tf.cast(tf.image.resize(pixels, size, method=method), tf.float32)

    def cubic() -> Any:
        return tf.clip_by_value(tf.image.resize(pixels, size, method="bicubic"), 0, 255)

    methods = [*(by(method) for method in ("bilinear", "nearest", "area")), cubic]
    return tf.switch_case(tf.cast(uniform * len(methods), tf.int32), methods)


def _resized(images: Any, size: Any) -> Any:
    if tuple(images.shape[-3:-1]) == tuple(size):
        return tf.cast(images, tf.float32)
    return tf.image.resize(tf.cast(images, tf.float32), size, antialias=True)


def _centred(images: Any, size: Any) -> Any:
    """The largest centred part of the shape `size` of images of one size, resized to it."""
    top, left, height, width = centre_window(*images.shape[-3:-1], *size)
    return _resized(images[..., top : top + height, left : left + width, :], size)


def _data_format(images: Any) -> Any:
    if keras.config.image_data_format() == "channels_first":
        return tf.einsum("...hwc->...chw", images)
    return images


def _network_input(images: Any, spec: NetworkSpec) -> Any:
    return preprocess_input(_data_format(images), convention=spec.pixels)
