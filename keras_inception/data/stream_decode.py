"""Random crops of encoded images, in a tf.data stream.

Only the window of a JPEG is decoded, at 1/2 to 1/8 where that suffices. Other files are decoded
with Pillow and reduced by the same factor (`FileSplit.part`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_inception.data.splits import PIXELS, FileSplit
from keras_inception.data.stream import CROP_DRAWS, ROW_DRAWS
from keras_inception.images.geometry import halvings_of, random_window
from keras_inception.images.graph_decode import upright
from keras_inception.images.limits import PIXELS_IN_FLIGHT

PARALLEL = tf.data.AUTOTUNE
# Images that one call reads, and the bytes that their files may have together.
_MOST_READ, _BYTES_READ = 32, 2**24


def cropped_images(
    split: FileSplit,
    size: tuple[int, int],
    channels: int,
    rows: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]],
    batch_size: int,
) -> tf.data.Dataset:
    """Return batches of float32 random crops in [0, 255], N x h x w x C; the last may be smaller.

    Args:
        split: the images.
        size, channels: of the result.
        rows: gives pairs of positions in the split (N) and uniform numbers (N x ROW_DRAWS).
        batch_size: images of a batch.
    """
    if keras.backend.backend() != "tensorflow":
        with suppress(RuntimeError):  # TensorFlow is already initialized
            tf.config.set_visible_devices([], "GPU")  # the devices belong to the other backend
    signature = (tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None, ROW_DRAWS), tf.float32))
    dataset = tf.data.Dataset.from_generator(rows, output_signature=signature)
    options = tf.data.Options()
    # No autotuning: its thread checks at growing intervals, and the end of an iterator waits for
    # the next check: after 60 seconds of training, up to 60 more (TensorFlow 2.21).
    options.autotune.enabled = False
    images = _cropped_rows(dataset, split, size, channels).batch(batch_size)
    return images.prefetch(PARALLEL).with_options(options)


def _cropped_rows(
    rows: tf.data.Dataset, split: FileSplit, size: tuple[int, int], channels: int
) -> tf.data.Dataset:
    """Return one crop, float32 h x w x C in [0, 255], per position of (positions, uniforms)."""
    read = _reader(split, size, channels)
    types = (tf.string, tf.int32, tf.int32, tf.int32)

    def parts(positions: Any, uniforms: Any) -> Any:
        return *tf.numpy_function(read, (positions, uniforms), types), uniforms[:, CROP_DRAWS - 1 :]

    def image(content: Any, window: Any, orientation: Any, halvings: Any, uniforms: Any) -> Any:
        window = tf.ensure_shape(window, (4,))
        pixels = tf.cond(
            orientation == PIXELS,
            lambda: _pixels(content, window, channels),
            lambda: _jpeg_window(content, window, orientation, halvings, channels),
        )
        pixels.set_shape((None, None, channels))
        pixels = tf.cond(uniforms[1] < 0.5, lambda: tf.reverse(pixels, [1]), lambda: pixels)
        return _interpolated(pixels, size, uniforms[0])

    at_once, parallel = _bounds(split)
    return rows.unbatch().batch(at_once).map(parts, PARALLEL).unbatch().map(image, parallel)


def _bounds(split: FileSplit) -> tuple[int, int]:
    """Return how many images one call reads and how many are decoded at a time, to bound memory."""
    largest_file = max(file.length for file in split.files)
    # A progressive JPEG is held in full while it is decoded, for any window.
    largest_image = max(file.height * file.width for file in split.files)
    return (
        min(_MOST_READ, max(1, _BYTES_READ // largest_file)),
        min(os.cpu_count() or 1, max(1, PIXELS_IN_FLIGHT // largest_image)),
    )


def _reader(
    split: FileSplit, size: tuple[int, int], channels: int
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]:
    """Return (positions, uniforms) -> contents, stored windows, orientations, halvings."""

    def read(positions: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, ...]:
        parts, halvings = [], []
        for position, numbers in zip(positions.tolist(), uniforms.tolist(), strict=True):
            window = random_window(*split.size_of(position), numbers)
            halvings.append(halvings_of(window, size))
            parts.append(split.part(position, window, channels, halvings[-1]))
        contents = np.array([part.content for part in parts], object)
        windows = np.array([part.window for part in parts], np.int32)
        orientations = np.array([part.orientation for part in parts], np.int32)
        return contents, windows, orientations, np.array(halvings, np.int32)

    return read


def _pixels(content: Any, window: Any, channels: int) -> Any:
    shape = tf.stack([window[2], window[3], channels])
    return tf.reshape(tf.io.decode_raw(content, tf.uint8), shape)


def _jpeg_window(content: Any, window: Any, orientation: Any, halvings: Any, channels: int) -> Any:
    """Decode only the window, at 1/2 to 1/8 where that suffices, and turn it upright."""

    def at(ratio: int) -> Callable[[], Any]:
        return lambda: tf.image.decode_and_crop_jpeg(
            content,
            window // ratio,
            channels=channels,
            ratio=ratio,
            dct_method="INTEGER_ACCURATE",  # exactly Pillow's pixels, at the same speed
        )

    pixels = tf.switch_case(halvings, [at(1), at(2), at(4), at(8)])
    return tf.cond(orientation == 1, lambda: pixels, lambda: upright(pixels, orientation))


def _interpolated(pixels: Any, size: tuple[int, int], uniform: Any) -> Any:
    """Resize with a random interpolation: bilinear, nearest, area or cubic (section 6)."""

    def by(method: str) -> Callable[[], Any]:
        return lambda: tf.cast(tf.image.resize(pixels, size, method=method), tf.float32)

    def cubic() -> Any:
        return tf.clip_by_value(tf.image.resize(pixels, size, method="bicubic"), 0, 255)

    methods = [*(by(method) for method in ("bilinear", "nearest", "area")), cubic]
    return tf.switch_case(tf.cast(uniform * len(methods), tf.int32), methods)
