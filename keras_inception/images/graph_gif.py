"""The first frame of a GIF as a file of its own, inside a TensorFlow graph.

TensorFlow decodes every frame of a file before it returns the first, and knows no transparency:
the transparent index gets the colour white instead.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_inception.images.graph_exif import at, number, octets

_EXTENSION, _CONTROL = 0x21, 0xF9
_HEADER_BYTES, _PALETTE_FLAG = 13, 0x80
_TRAILER = b";"


def first_frame(contents: Any) -> Any:
    """A GIF of the first frame alone, opaque, with white where it was transparent.

    Args:
        contents: scalar string, a GIF.

    Raises:
        tf.errors.InvalidArgumentError: the frame does not fill the image, its transparent colour is
            not in the palette, or there is more than one control extension, of which Pillow mixes
            what they say.
    """
    data = octets(contents)
    shared = _palette_bytes(at(data, 10))
    descriptor, control, controls = _find_image(data, _HEADER_BYTES + shared)
    own = _palette_bytes(at(data, descriptor + 9))
    palette = tf.where(own > 0, descriptor + 10, _HEADER_BYTES)
    colours = tf.where(own > 0, own, shared)
    transparent = (control > 0) & (at(data, control + 3) % 2 == 1)
    entry = 3 * at(data, control + 6)
    place = tf.stack([number(data, descriptor + offset, 2, little=True) for offset in (1, 3, 5, 7)])
    canvas = [0, 0, *(number(data, tf.constant(offset), 2, little=True) for offset in (6, 8))]
    complete = (
        tf.reduce_all(place == tf.stack(canvas))
        & ~(transparent & (entry >= colours))
        & (controls < 2)
    )
    with tf.control_dependencies([tf.debugging.Assert(complete, ["Expected a whole frame"])]):
        end = _after_blocks(data, descriptor + 11 + own)  # the smallest code precedes the blocks
    frame = tf.strings.join([tf.strings.substr(contents, 0, end), _TRAILER])
    return tf.cond(
        transparent,
        lambda: _with(_with(frame, palette + entry, b"\xff\xff\xff"), control + 3, b"\0"),
        lambda: frame,
    )


def _palette_bytes(flags: Any) -> Any:
    """Bytes of the palette that a header's flags announce."""
    size = 3 * tf.bitwise.left_shift(2, flags % 8)
    return tf.where(flags >= _PALETTE_FLAG, size, 0)


def _find_image(data: Any, start: Any) -> tuple[Any, Any, Any]:
    """Where the first image's descriptor begins, the last control extension before it or -1, and
    how many there are.
    """

    def next_extension(position: Any, control: Any, controls: Any) -> tuple[Any, Any, Any]:
        is_control = at(data, position + 1) == _CONTROL
        return (
            _after_blocks(data, position + 2),
            tf.where(is_control, position, control),
            controls + tf.cast(is_control, tf.int32),
        )

    return tf.while_loop(
        lambda position, control, controls: at(data, position) == _EXTENSION,
        next_extension,
        (start, tf.constant(-1), tf.constant(0)),
    )


def _after_blocks(data: Any, start: Any) -> Any:
    """The position after blocks, each a length and as many bytes, up to a length of 0."""
    (last,) = tf.while_loop(
        lambda position: at(data, position) > 0,
        lambda position: (position + 1 + at(data, position),),
        (start,),
    )
    return last + 1


def _with(text: Any, position: Any, other: bytes) -> Any:
    """A string with some of its bytes replaced."""
    after = position + len(other)
    rest = tf.strings.substr(text, after, tf.strings.length(text) - after)
    return tf.strings.join([tf.strings.substr(text, 0, position), other, rest])
