"""Bytes of a file inside a TensorFlow graph, and the orientation in an EXIF block among them.

Positions outside of the data read as 0, so that a damaged header is no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

UPRIGHT = 1
# An orientation that is there but cannot be read as `decode` reads it: the image is not valid.
UNKNOWN = -1
# No orientation in the block: Pillow then looks for it elsewhere.
ABSENT = 0

_ORIENTATION_TAG = 0x0112
_SHORTS, _LONGS = (3, 8), (4, 9)  # unsigned, signed
_ENTRY_BYTES = 12


def octets(contents: Any) -> Any:
    """The bytes of a string as a vector, uint8."""
    return tf.io.decode_raw(contents, tf.uint8)


def at(data: Any, position: Any) -> Any:
    """Bytes at positions, int32."""
    inside = (position >= 0) & (position < tf.size(data))
    return tf.where(inside, tf.cast(tf.gather(data, tf.where(inside, position, 0)), tf.int32), 0)


def number(data: Any, start: Any, length: int, *, little: Any) -> Any:
    """Unsigned integers of `length` bytes at positions; those of 4 bytes wrap around."""
    powers = 256 ** tf.range(length)
    weights = tf.where(little, powers, powers[::-1])
    return tf.reduce_sum(at(data, start[..., None] + tf.range(length)) * weights, axis=-1)


def begins(data: Any, start: Any, text: bytes) -> Any:
    """Whether the data has that text at a position."""
    return tf.reduce_all(at(data, start + tf.range(len(text))) == list(text))


def among(values: Any, others: Sequence[int]) -> Any:
    """Whether each of some integers is one of others."""
    return tf.reduce_any(values[..., None] == tf.constant(others), axis=-1)


def exif_orientation(block: Any) -> Any:
    """The orientation in the first directory of a TIFF block.

    Args:
        block: uint8 vector, from the byte order to the end.

    Returns:
        int32, 1 to 8; ABSENT without the tag, UNKNOWN where it is written in a rare way.
    """
    little = begins(block, 0, b"II*\0")
    directory = number(block, tf.constant(4), 4, little=little)
    count = number(block, directory, 2, little=little)
    entries = directory + 2 + _ENTRY_BYTES * tf.range(count)
    entries = tf.boolean_mask(entries, entries <= tf.size(block) - _ENTRY_BYTES)
    tags = number(block, entries, 2, little=little)
    own = tf.boolean_mask(entries, tags == _ORIENTATION_TAG)
    values = _value(block, own[:1], little)
    found = tf.where(tf.size(own) == 1, tf.reduce_max(values), UNKNOWN)
    found = tf.where(tf.size(own) == 0, ABSENT, found)
    return tf.where(little | begins(block, 0, b"MM\0*"), found, _without_header(block))


def _value(block: Any, entry: Any, little: Any) -> Any:
    """The orientation in an entry: a single integer of 16 or 32 bits."""
    kind = number(block, entry + 2, 2, little=little)
    count = number(block, entry + 4, 4, little=little)
    short, long = among(kind, _SHORTS), among(kind, _LONGS)
    value = tf.where(
        short,
        number(block, entry + 8, 2, little=little),
        number(block, entry + 8, 4, little=little),
    )
    value = tf.where((value >= 1) & (value <= 8), value, UPRIGHT)
    return tf.where((count == 1) & (short | long), value, UNKNOWN)


def _without_header(block: Any) -> Any:
    """Pillow reads other headers too, if they name the byte order."""
    other = begins(block, 0, b"II") | begins(block, 0, b"MM")
    return tf.where(other, UNKNOWN, UPRIGHT)
