"""Splits as streams of what a network takes in: NumPy arrays, for every backend.

A training stream is a pure function of (split, recipe, step): batch i of the run is the same
whenever it is asked for, order, augmentation and all, and on however many workers. Whole images are
decoded and resized by Pillow, as everywhere; random crops of files by TensorFlow (`stream_decode`)
under that backend, which decodes only the crop of a JPEG, and by Pillow under the others.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any

import keras
import numpy as np

from keras_inception.data.augment import (
    Draws,
    Purpose,
    augmented,
    generator,
    mixed_up,
    pixel_places,
)
from keras_inception.data.splits import AnySplit, FileSplit, Split
from keras_inception.images.conventions import preprocess_input
from keras_inception.images.geometry import halvings_of, random_window
from keras_inception.images.resize import Filter, resize
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe

# Images and labels of one batch.
Batch = tuple[np.ndarray, np.ndarray]
Stream = Generator[Batch, None, None]
# Uniform numbers of `random_window`, one that chooses the interpolation, and one that mirrors.
CROP_DRAWS, ROW_DRAWS = 23, 24
# The paper's random interpolations, each as probable (section 6).
INTERPOLATIONS: tuple[Filter, ...] = ("bilinear", "nearest", "area", "cubic")


def training_batches(
    split: AnySplit,
    spec: NetworkSpec,
    recipe: Recipe,
    *,
    start_step: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
) -> Stream:
    """Stream (images, labels) for training without end; threads prepare batches ahead.

    Args:
        split: the training images.
        spec: gives the input size, the channels and the pixel convention.
        recipe: gives the batch size, the augmentation and the seed.
        start_step: number of the first batch; batch i does not depend on it.
        shard_index, shard_count: worker s of n gets the rows [s * B / n, (s + 1) * B / n) of each
            batch of B, and reads no others.

    Returns:
        float32 images, rows x h x w x C (or rows x C x h x w, by the global data format) in the
        convention of the spec, and int32 labels; with mixup, float32 labels of rows x classes.
        Each pass over the split has its own order; a batch may contain the end of one pass and
        the start of the next. `close` ends the threads.

    Raises:
        ValueError: a batch that the workers cannot share evenly, an odd share with mixup, or no
            common size of the images.
    """
    batch = _TrainingBatch(split, spec, recipe, shard_index, shard_count)
    steps = itertools.count(start_step)
    if recipe.crop != "paper":
        return _prepared((batch.of_whole_images, (step,)) for step in steps)
    if isinstance(split, Split) or keras.backend.backend() != "tensorflow":
        return _prepared((batch.of_crops, (step,)) for step in steps)
    decoded = _decoded_crops(
        split,
        batch.size,
        batch.channels,
        lambda: map(batch.crop_draws, itertools.count(start_step)),
        batch.rows,
    )
    return _prepared((batch.finished, arguments) for arguments in zip(steps, decoded, strict=False))


def placed_batches(
    split: Split, spec: NetworkSpec, recipe: Recipe, *, start_step: int = 0
) -> Generator[tuple[np.ndarray, ...], None, None]:
    """The batches of `training_batches` for one worker that holds the images on its device.

    For images of the network's size that are at most mirrored and shifted (`is_placed`).

    Returns:
        int32: positions in the split (N), rows (N x height) and columns (N x width) that each
        image consists of, and labels (N).
    """
    batch = _TrainingBatch(split, spec, recipe, 0, 1)
    return (batch.placed(step) for step in itertools.count(start_step))


def is_placed(split: Split, spec: NetworkSpec, recipe: Recipe) -> bool:
    """Whether training only takes pixels of these images from other places."""
    return (
        network_size(split, spec) == split.shape[:2]
        and recipe.crop == "none"
        and not recipe.photometric
        and not recipe.mixup
    )


class _TrainingBatch:
    """One worker's share of batch `step` of a run: a pure function of the step."""

    def __init__(
        self,
        split: AnySplit,
        spec: NetworkSpec,
        recipe: Recipe,
        shard_index: int,
        shard_count: int,
    ) -> None:
        self.rows = _shard_rows(recipe, shard_index, shard_count)
        self.size, self.channels = network_size(split, spec), spec.input_shape[2]
        self._first = shard_index * self.rows
        self._split, self._spec, self._recipe = split, spec, recipe
        self._labels = split.labels.astype(np.int32)
        # Crops are mirrored one by one, before they grow to the input.
        crops = recipe.crop == "paper"
        self._after_crops = replace(recipe, flip=False) if crops else recipe

    def of_whole_images(self, step: int) -> Batch:
        positions = self._positions(step)
        return self.finished(step, self._split.fitted(positions, self.size, self.channels))

    def of_crops(self, step: int) -> Batch:
        positions, uniforms = self.crop_draws(step)
        crops = [
            _random_crop(self._split, position, numbers, self.size, self.channels)
            for position, numbers in zip(positions.tolist(), uniforms.tolist(), strict=True)
        ]
        return self.finished(step, np.stack(crops))

    def finished(self, step: int, images: np.ndarray) -> Batch:
        """Augment images of the network's size, and bring them into its convention."""
        images = augmented(images, self._after_crops, self._draws(step))
        labels = self._labels[self._positions(step)]
        if self._recipe.mixup:
            classes, alpha = self._spec.classes, self._recipe.mixup
            images, labels = mixed_up(images, labels, classes, alpha, self._draws(step))
        return _network_input(images, self._spec), labels

    def placed(self, step: int) -> tuple[np.ndarray, ...]:
        """See `placed_batches`."""
        positions = self._positions(step)
        places = pixel_places(self.size, self._recipe, self._draws(step))
        return positions.astype(np.int32), *places, self._labels[positions]

    def crop_draws(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the split, and the uniform numbers of each row (`ROW_DRAWS`)."""
        crop = self._draws(step).uniform(Purpose.CROP, CROP_DRAWS)
        flip = self._draws(step).uniform(Purpose.FLIP, 1)
        mirrored = flip if self._recipe.flip else np.ones_like(flip)
        return self._positions(step), np.concatenate([crop, mirrored], axis=1)

    def _draws(self, step: int) -> Draws:
        recipe = self._recipe
        return Draws(recipe.seed, step, recipe.batch_size, self._first, self.rows)

    def _positions(self, step: int) -> np.ndarray:
        begin = step * self._recipe.batch_size + self._first
        rows = np.arange(begin, begin + self.rows)
        return _shuffled(rows, len(self._split), self._recipe.seed)


def evaluation_batches(
    split: AnySplit,
    spec: NetworkSpec,
    batch_size: int,
    *,
    shard_index: int = 0,
    shard_count: int = 1,
) -> Stream:
    """Stream every image of the split once, in order; the last batch may be smaller.

    Each image is its largest centred part of the input's shape, resized: what `read_image` gives.

    Args:
        split, spec: as for `training_batches`.
        batch_size: images of a batch of this worker.
        shard_index, shard_count: worker s of n gets the images [s * N / n, (s + 1) * N / n),
            rounded down.

    Returns:
        float32 images and int32 labels, as `training_batches`.
    """
    size, channels = network_size(split, spec), spec.input_shape[2]
    begin, end = (len(split) * shard // shard_count for shard in (shard_index, shard_index + 1))
    labels = split.labels.astype(np.int32)

    def finished(positions: np.ndarray) -> Batch:
        return _network_input(split.fitted(positions, size, channels), spec), labels[positions]

    return _prepared(
        (finished, (np.arange(first, min(first + batch_size, end)),))
        for first in range(begin, end, batch_size)
    )


def padded_evaluation_batches(
    split: AnySplit,
    spec: NetworkSpec,
    batch_size: int,
    shard_index: int = 0,
    shard_count: int = 1,
) -> Generator[tuple[np.ndarray, np.ndarray, np.ndarray], None, None]:
    """A worker's share of a split, in as many full batches for each worker.

    Returns:
        Images, labels and weights, batch_size / shard_count rows each; the weight is 1 for an image
        of the split and 0 for a row that only fills up.
    """
    rows = batch_size // shard_count
    height, width = network_size(split, spec)
    nothing = _network_input(np.zeros((0, height, width, spec.input_shape[2])), spec)
    empty = itertools.repeat((nothing, np.zeros(0, np.int32)))
    batches = evaluation_batches(
        split, spec, rows, shard_index=shard_index, shard_count=shard_count
    )
    for images, labels in itertools.islice(
        itertools.chain(batches, empty), -(-len(split) // batch_size)
    ):
        missing = rows - len(images)
        weights = np.pad(np.ones(len(images), np.float32), (0, missing))
        fill = [(0, missing), *[(0, 0)] * 3]
        yield np.pad(images, fill), np.pad(labels, (0, missing)), weights


def sample_pixels(split: AnySplit, spec: NetworkSpec, count: int) -> np.ndarray:
    """The first `count` images in the size of the network, pixels in [0, 255].

    Returns:
        float32 in the global data format, such as an exported model takes.
    """
    size, channels = network_size(split, spec), spec.input_shape[2]
    positions = np.arange(min(count, len(split)))
    return _data_format(split.fitted(positions, size, channels).astype(np.float32))


# A function and its arguments.
_Task = tuple[Callable[..., Batch], tuple[Any, ...]]


def _prepared(tasks: Iterable[_Task]) -> Stream:
    """The results of functions of their arguments, in order, a few computed ahead by threads."""
    workers = os.cpu_count() or 1
    pending: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
    try:
        for function, arguments in _error_last(tasks):
            pending.append(pool.submit(function, *arguments))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _error_last(tasks: Iterable[_Task]) -> Iterator[_Task]:
    """The tasks; an error among them is raised in its turn, after the batches before it."""
    try:
        yield from tasks
    except Exception as error:
        yield _fail, (error,)


def _fail(error: Exception) -> Batch:
    raise error


def _decoded_crops(
    split: FileSplit,
    size: tuple[int, int],
    channels: int,
    rows: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]],
    batch_size: int,
) -> Iterator[np.ndarray]:
    from keras_inception.data.stream_decode import cropped_images  # imports TensorFlow

    return iter(cropped_images(split, size, channels, rows, batch_size).as_numpy_iterator())


def _random_crop(
    split: AnySplit, position: int, numbers: list[float], size: tuple[int, int], channels: int
) -> np.ndarray:
    """The paper's random part of an image, randomly interpolated and mirrored."""
    window = random_window(*split.size_of(position), numbers)
    if isinstance(split, Split):
        top, left, height, width = window
        part = split.images[position, top : top + height, left : left + width]
    else:
        content, reduced, _ = split.part(position, window, channels, halvings_of(window, size))
        part = np.frombuffer(content, np.uint8).reshape(reduced.height, reduced.width, channels)
    if numbers[CROP_DRAWS] < 0.5:
        part = part[:, ::-1]
    method = INTERPOLATIONS[int(numbers[CROP_DRAWS - 1] * len(INTERPOLATIONS))]
    return np.clip(resize(part, size, method), 0, 255)


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


def network_size(split: AnySplit, spec: NetworkSpec) -> tuple[int, int]:
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


def _shuffled(index: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions in the split of the images `index` of a run."""
    passes, within = np.divmod(index, count)
    positions = np.empty_like(index)
    for number in np.unique(passes):
        own = passes == number
        positions[own] = _order(int(number), count, seed)[within[own]]
    return positions


@lru_cache(maxsize=4)  # neighbouring passes of two streams
def _order(number: int, count: int, seed: int) -> np.ndarray:
    return generator(seed, number, Purpose.ORDER).permutation(count)


def _data_format(images: np.ndarray) -> np.ndarray:
    if keras.config.image_data_format() == "channels_first":
        return np.ascontiguousarray(np.moveaxis(images, -1, -3))
    return images


def _network_input(images: np.ndarray, spec: NetworkSpec) -> np.ndarray:
    return np.asarray(preprocess_input(_data_format(images), convention=spec.pixels))
