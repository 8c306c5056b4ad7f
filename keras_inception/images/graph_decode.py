"""Encoded images to pixels inside a TensorFlow graph, as `preprocessing.read_image` does it.

TensorFlow's own operators only, so that the graph serves without Python. JPEG (with EXIF
orientation), PNG, BMP and the first frame of a GIF; the largest centred part of the network's
shape is resized to it. Pixels are those of `read_image` to one level of 255: Pillow rounds between
its two passes. An image that cannot be decoded does not fail its batch: it is marked.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_START_OF_SCAN = 0xDA
_APP1 = 0xE1
_EXIF = [ord(letter) for letter in "Exif\0\0"]
_ORIENTATION_TAG = 0x0112
_MOST_MARKERS = 64  # before the picture; a JPEG has about ten


def decode_images(encoded: Any, *, height: int, width: int, channels: int) -> tuple[Any, Any]:
    """Decode a batch of image files.

    Args:
        encoded: N strings, each the bytes of a file.
        height, width, channels: of the result; 3 channels are RGB, 1 is grey.

    Returns:
        (pixels, valid): float32 N x height x width x channels, whole numbers in [0, 255], and
        bool N. Where `valid` is false the image could not be decoded and its pixels are 0.
    """
    count = tf.shape(encoded)[0]

    def decode(position: Any, contents: Any) -> tuple[Any, Any]:
        return position, _decode_one(contents, height, width, channels)

    decoded = tf.data.Dataset.from_tensor_slices(encoded).enumerate()
    decoded = decoded.map(decode, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    # One row more than there are images, so that there is a batch even where none is decodable.
    shape = (height, width, channels)
    sentinel = tf.data.Dataset.from_tensors((tf.cast(count, tf.int64), tf.zeros(shape)))
    rows = decoded.concatenate(sentinel).batch(tf.cast(count, tf.int64) + 1)
    positions, pixels = rows.get_single_element()
    target = tf.concat([[count + 1], shape], axis=0)
    pixels = tf.scatter_nd(positions[:, None], pixels, tf.cast(target, tf.int64))[:count]
    valid = tf.scatter_nd(
        positions[:, None], tf.ones_like(positions), tf.cast([count + 1], tf.int64)
    )
    return tf.ensure_shape(pixels, (None, *shape)), valid[:count] > 0


def _decode_one(contents: Any, height: int, width: int, channels: int) -> Any:
    def jpeg() -> Any:
        # The accurate transform is Pillow's too; the fast one is a few levels off.
        pixels = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
        return upright(pixels, _exif_orientation(tf.io.decode_raw(contents, tf.uint8)))

    def other() -> Any:
        return tf.io.decode_image(contents, channels=3, expand_animations=False)

    image = tf.cast(tf.cond(tf.io.is_jpeg(contents), jpeg, other), tf.int32)
    if channels == 1:
        # ITU-R 601 luma in Pillow's integers.
        weighted = tf.reduce_sum(image * [19595, 38470, 7471], axis=-1, keepdims=True)
        image = tf.bitwise.right_shift(weighted + 0x8000, 16)
    fitted = _fit(tf.cast(image, tf.float32), height, width)
    return tf.ensure_shape(tf.clip_by_value(tf.round(fitted), 0, 255), (height, width, channels))


def _fit(image: Any, height: int, width: int) -> Any:
    """Resize the largest centred part of the shape; a triangle filter that grows with the ratio."""
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    target = tf.constant([height, width], tf.float32)
    scale = tf.reduce_max(target / size) * tf.ones(2)  # the part touches two opposite edges
    translation = (target - size * scale) / 2
    return tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=[height, width],
        scale=scale,
        translation=translation,
        kernel_type="triangle",
        antialias=True,
    )[0]


def _exif_orientation(jpeg: Any) -> Any:
    """The orientation in a JPEG's APP1 segment; 1 (upright) where there is none.

    Source: Exif 2.3, section 4.5: markers of 0xFF, kind and big-endian length, up to the scan.
    """
    jpeg = tf.cast(jpeg, tf.int32)

    def goes_on(start: Any, orientation: Any) -> Any:
        kind = _at(jpeg, start + 1)
        return (_at(jpeg, start) == 0xFF) & (kind != _START_OF_SCAN) & (orientation == 0)

    def read_segment(start: Any, orientation: Any) -> tuple[Any, Any]:
        header = _span(jpeg, start + 4, len(_EXIF))
        is_exif = (_at(jpeg, start + 1) == _APP1) & tf.reduce_all(header == _EXIF)
        orientation = tf.cond(
            is_exif, lambda: _tiff_orientation(jpeg, start + 4 + len(_EXIF)), lambda: orientation
        )
        return start + 2 + _number(_span(jpeg, start + 2, 2), little=False), orientation

    _, orientation = tf.while_loop(
        goes_on, read_segment, (tf.constant(2), tf.constant(0)), maximum_iterations=_MOST_MARKERS
    )
    return tf.where((orientation >= 1) & (orientation <= 8), orientation, 1)


def _tiff_orientation(data: Any, start: Any) -> Any:
    """The orientation among the entries of the first directory of the TIFF block at `start`."""
    little = _at(data, start) == ord("I")
    directory = start + _number(_span(data, start + 4, 4), little)
    count = tf.minimum(_number(_span(data, directory, 2), little), 1024)
    entries = directory + 2 + 12 * tf.range(count)
    tags = _number(_span(data, entries[:, None], 2), little)
    values = _number(_span(data, entries[:, None] + 8, 2), little)
    return tf.reduce_max(tf.where(tags == _ORIENTATION_TAG, values, 0))


def _number(octets: Any, little: Any) -> Any:
    """An unsigned integer of the octets on the last axis."""
    powers = 256 ** tf.range(octets.shape[-1])
    weights = tf.where(little, powers, powers[::-1])
    return tf.reduce_sum(octets * weights, axis=-1)


def _span(data: Any, start: Any, length: int) -> Any:
    return _at(data, start + tf.range(length))


def _at(data: Any, position: Any) -> Any:
    """Octets at positions; beyond either end 0, so that a damaged header is no error."""
    inside = (position >= 0) & (position < tf.size(data))
    return tf.where(inside, tf.gather(data, tf.where(inside, position, 0)), 0)


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


def resized(images: Any, size: Any) -> Any:
    """Images, ... x h x w x C, in (height, width) with antialiasing, float32."""
    if tuple(images.shape[-3:-1]) == tuple(size):
        return tf.cast(images, tf.float32)
    return tf.image.resize(tf.cast(images, tf.float32), size, antialias=True)
