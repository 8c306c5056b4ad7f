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

# What precedes a block in a JPEG, and in some files of other formats.
EXIF = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_TEXT, _SHORTS, _LONGS = 2, (3, 8), (4, 9)  # unsigned, signed
_ENTRY_BYTES = 12
# Of the values of TIFF's types 1 to 13 and of BigTIFF's 16.
_UNIT_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)


def octets(contents: Any) -> Any:
    """The bytes of a string as a vector, uint8; one byte of 0 where it is empty."""
    return _not_empty(tf.io.decode_raw(contents, tf.uint8))


def _not_empty(data: Any) -> Any:
    return tf.cond(tf.size(data) > 0, lambda: data, lambda: tf.zeros(1, tf.uint8))


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
    empty, block = tf.size(block) == 0, _not_empty(block)
    little = begins(block, 0, b"II*\0")
    directory = number(block, tf.constant(4), 4, little=little)
    count = number(block, directory, 2, little=little)
    entries = directory + 2 + _ENTRY_BYTES * tf.range(count)
    entries = tf.boolean_mask(entries, entries <= tf.size(block) - _ENTRY_BYTES)
    is_own = number(block, entries, 2, little=little) == _ORIENTATION_TAG
    own = tf.boolean_mask(entries, is_own)
    found = tf.where(tf.size(own) == 1, tf.reduce_max(_value(block, own[:1], little)), UNKNOWN)
    # Pillow stops at the first entry whose data lie outside of the block.
    before = tf.boolean_mask(entries, entries < tf.reduce_max(own))
    damaged = tf.reduce_any(_is_outside(block, before, little))
    found = tf.where(tf.size(own) == 0, ABSENT, tf.where(damaged, UNKNOWN, found))
    found = tf.where(little | begins(block, 0, b"MM\0*"), found, _without_header(block))
    return tf.where(empty, ABSENT, found)


def _is_outside(block: Any, entry: Any, little: Any) -> Any:
    """Whether an entry's data, where they are more than 4 bytes, are not all in the block."""
    kind = number(block, entry + 2, 2, little=little)
    unit = tf.gather(_UNIT_BYTES, tf.where(kind < len(_UNIT_BYTES), kind, 0))
    count, offset = (number(block, entry + place, 4, little=little) for place in (4, 8))
    # Without unit Pillow passes over the entry. Numbers that wrap around are negative.
    too_many = (count < 0) | (count > tf.size(block))
    beyond = (offset < 0) | (offset > tf.size(block) - unit * count)
    return (unit > 0) & (too_many | ((unit * count > 4) & beyond))


def _value(block: Any, entry: Any, little: Any) -> Any:
    """The orientation in an entry: a single integer of 16 or 32 bits; UPRIGHT where it is text."""
    kind = number(block, entry + 2, 2, little=little)
    count = number(block, entry + 4, 4, little=little)
    short, long = among(kind, _SHORTS), among(kind, _LONGS)
    value = tf.where(
        short,
        number(block, entry + 8, 2, little=little),
        number(block, entry + 8, 4, little=little),
    )
    value = tf.where((value >= 1) & (value <= 8), value, UPRIGHT)
    value = tf.where((count == 1) & (short | long), value, UNKNOWN)
    return tf.where(kind == _TEXT, UPRIGHT, value)


def _without_header(block: Any) -> Any:
    """Pillow reads other headers too, if they name the byte order, and behind a second `EXIF`."""
    other = begins(block, 0, b"II") | begins(block, 0, b"MM") | begins(block, 0, EXIF)
    return tf.where(other, UNKNOWN, UPRIGHT)
