"""Encoded images to pixels inside a TensorFlow graph, as `decode.read_image` does it.

TensorFlow's own operators only, so that the graph serves without Python. Pixels are those of
`read_image` to one level of 255, because Pillow rounds between its two passes. An image that the
graph cannot decode as Pillow does, or larger than the limit, does not fail its batch: it is marked.
docs/images.md lists the formats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_inception.images.graph_gif import first_frame
from keras_inception.images.graph_headers import SIGNATURE, Header, read_header
from keras_inception.images.limits import max_pixels

# Larger images are decoded one after the other, so that memory does not grow with the cores.
_LARGE = 4_000_000
# Pixels that are composited or converted to grey at a time.
_BAND = 500_000


def decode_images(
    encoded: Any, *, height: int, width: int, channels: int, limit: int | None = None
) -> tuple[Any, Any]:
    """Decode a batch of image files.

    Args:
        encoded: N strings, each the bytes of a file.
        height, width, channels: of the result; 3 channels are RGB, 1 is grey.
        limit: the most pixels of an image; default `limits.max_pixels()`.

    Returns:
        (pixels, valid): float32 N x height x width x channels, whole numbers in [0, 255], and
        bool N. Where `valid` is false the image could not be decoded and its pixels are 0.
    """
    headers = tf.map_fn(read_header, encoded, fn_output_signature=SIGNATURE)
    size = tf.cast(headers.height, tf.int64) * tf.cast(headers.width, tf.int64)
    accepted = headers.supported & (size <= (max_pixels() if limit is None else limit))
    count = tf.cast(tf.shape(encoded)[0], tf.int64)

    def decoded(chosen: Any, parallel: int) -> tf.data.Dataset:
        rows = tf.where(chosen)[:, 0]
        parts = tf.nest.map_structure(lambda values: tf.gather(values, rows), (encoded, headers))
        dataset = tf.data.Dataset.from_tensor_slices((rows, *parts))
        return dataset.map(decode, num_parallel_calls=parallel).ignore_errors()

    def decode(row: Any, contents: Any, header: Header) -> tuple[Any, Any]:
        return row, _decode_one(contents, header, height, width, channels)

    # One row more than there are images, so that there is a batch even where none is decodable.
    shape = (height, width, channels)
    images = decoded(accepted & (size <= _LARGE), tf.data.AUTOTUNE)
    images = images.concatenate(decoded(accepted & (size > _LARGE), 1))
    images = images.concatenate(tf.data.Dataset.from_tensors((count, tf.zeros(shape))))
    rows, pixels = images.batch(count + 1).get_single_element()
    target = tf.concat([[count + 1], tf.constant(shape, tf.int64)], axis=0)
    pixels = tf.scatter_nd(rows[:, None], pixels, target)[:count]
    valid = tf.scatter_nd(rows[:, None], tf.ones_like(rows), [count + 1])[:count] > 0
    return tf.ensure_shape(pixels, (None, *shape)), valid


def _decode_one(contents: Any, header: Header, height: int, width: int, channels: int) -> Any:
    def jpeg() -> Any:
        # The accurate transform is Pillow's too; the fast one is a few levels off.
        return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")

    def by(decode: Any) -> Any:
        """RGBA where there may be transparency, composited after the crop; else RGB."""
        return lambda: tf.cond(
            header.alpha, lambda: decode(contents, channels=4), lambda: decode(contents, channels=3)
        )

    def webp(contents: Any, channels: int) -> Any:
        return tf.io.decode_image(contents, channels=channels, expand_animations=False)

    decoders = [
        lambda: tf.zeros((0, 0, 3), tf.uint8),
        jpeg,
        by(tf.io.decode_png),
        lambda: tf.io.decode_gif(first_frame(contents))[0],
        lambda: tf.io.decode_bmp(contents, channels=3),
        by(webp),
    ]
    stored = tf.switch_case(header.kind, decoders)
    image = _centred(upright(stored, header.orientation), height, width)
    fitted = _resized(_converted(image, header.alpha, channels), height, width)
    return tf.ensure_shape(tf.round(fitted), (height, width, channels))


def _centred(image: Any, height: int, width: int) -> Any:
    """The largest centred part of that shape: `geometry.centre_window`."""
    rows, columns = (tf.cast(tf.shape(image)[axis], tf.int64) for axis in (0, 1))
    part_rows = tf.minimum(rows, tf.maximum((2 * columns * height + width) // (2 * width), 1))
    part_columns = tf.minimum(columns, tf.maximum((2 * rows * width + height) // (2 * height), 1))
    top, left = (rows - part_rows) // 2, (columns - part_columns) // 2
    return image[top : top + part_rows, left : left + part_columns]


def _converted(image: Any, alpha: Any, channels: int) -> Any:
    """RGB or RGBA (`alpha`) pixels as opaque RGB or grey, uint8."""

    def on_white() -> Any:
        if channels == 1:
            return _by_bands(image, lambda band: _grey(_on_white(band)), channels)
        return _by_bands(image, _on_white, channels)

    def opaque() -> Any:
        return _by_bands(image, _grey, channels) if channels == 1 else image

    return tf.ensure_shape(tf.cond(alpha, on_white, opaque), (None, None, channels))


def _by_bands(image: Any, convert: Callable[[Any], Any], channels: int) -> Any:
    """Convert a few rows at a time: the numbers on the way need up to 6 times the memory."""
    rows = tf.maximum(1, _BAND // tf.shape(image)[1])
    count = -(-tf.shape(image)[0] // rows)
    shape = (None, None, channels)
    bands = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=shape)
    _, bands = tf.while_loop(
        lambda number, bands: number < count,
        lambda number, bands: (
            number + 1,
            bands.write(number, convert(image[number * rows : (number + 1) * rows])),
        ),
        (0, bands),
        parallel_iterations=1,
    )
    return bands.concat()


def _on_white(image: Any) -> Any:
    """RGBA on white, by Pillow's rounded division by 255."""
    alpha = tf.cast(image[..., 3:], tf.uint16)
    blend = tf.cast(image[..., :3], tf.uint16) * alpha + (255 - alpha) * 255 + 128
    blend = tf.bitwise.right_shift(blend + tf.bitwise.right_shift(blend, 8), 8)
    return tf.cast(blend, tf.uint8)


def _grey(image: Any) -> Any:
    """ITU-R 601 luma in Pillow's integers."""
    weighted = tf.reduce_sum(tf.cast(image, tf.int32) * [19595, 38470, 7471], -1, keepdims=True)
    return tf.cast(tf.bitwise.right_shift(weighted + 0x8000, 16), tf.uint8)


def _resized(image: Any, height: int, width: int) -> Any:
    """A triangle filter that grows with the ratio; the operator takes whole levels as they are."""
    scale = [height, width] / tf.cast(tf.shape(image)[:2], tf.float32)
    return tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=[height, width],
        scale=scale,
        translation=tf.zeros(2),
        kernel_type="triangle",
        antialias=True,
    )[0]


def upright(pixels: Any, orientation: Any) -> Any:
    """Turn h x w x C pixels as EXIF's orientation asks: 5 to 8 transpose, then some mirror.

    Args:
        pixels: tensor of an image as it is stored.
        orientation: scalar integer tensor, 1 (upright) to 8.
    """
    pixels = tf.cond(orientation < 5, lambda: pixels, lambda: tf.transpose(pixels, (1, 0, 2)))
    for axis, mirrored in ((0, (3, 4, 7, 8)), (1, (2, 3, 6, 7))):
        chosen = tf.reduce_any(orientation == tf.constant(mirrored))
        pixels = tf.cond(chosen, lambda: tf.reverse(pixels, [axis]), lambda: pixels)  # noqa: B023
    return pixels
