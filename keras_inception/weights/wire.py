"""Bounds on a protocol buffer before it is parsed: the fields of its wire format are counted.

A parsed message takes a hundred times the two bytes of an empty one, and a packed integer eight
times its one byte. Format: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import Any

from keras_inception.bounded import Allowance

# GoogLeNet's files have some thousands.
_MOST_FIELDS = 200_000
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_LARGEST_ELEMENT = 8


def check_message(data: bytes, descriptor: Any, allowance: Allowance, what: str) -> None:
    """Refuse a message of more fields, or larger packed ones, than weights have.

    Args:
        data: the message.
        descriptor: of its type, as protobuf's Python classes have in `DESCRIPTOR`.
        allowance: of the reader; packed numbers are taken from it.
        what: the kind of file, for messages.

    Raises:
        ValueError: naming the file.
    """
    fields = 0
    waiting = [(0, len(data), descriptor)]
    while waiting:
        place, end, message = waiting.pop()
        while place < end:
            fields += 1
            if fields > _MOST_FIELDS:
                raise ValueError(
                    f"Expected {what} of at most {_MOST_FIELDS:,} fields. Received: more, in "
                    f"{str(allowance.path)!r}."
                )
            tag, place = _varint(data, place, end)
            kind = tag & 7
            if kind == _VARINT:
                _, place = _varint(data, place, end)
            elif kind in (_FIXED_32, _FIXED_64):
                place += 4 if kind == _FIXED_32 else 8
            elif kind == _BYTES:
                size, place = _varint(data, place, end)
                field = message.fields_by_number.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    waiting.append((place, min(place + size, end), field.message_type))
                elif field is not None and field.type not in (field.TYPE_BYTES, field.TYPE_STRING):
                    allowance.take(field.name, size * _widening(field))
                place += size
            else:  # groups, which no file of weights has
                raise ValueError(
                    f"Expected {what}. Received: {str(allowance.path)!r}, "
                    f"with a field of wire type {kind}."
                )


def _widening(field: Any) -> int:
    """Return how many bytes an element takes for each that it has in the file, at most."""
    fixed = (field.TYPE_FLOAT, field.TYPE_DOUBLE, field.TYPE_FIXED32, field.TYPE_FIXED64)
    return 1 if field.type in fixed else _LARGEST_ELEMENT


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """Return a variable-length integer and the place after it; at the end of the data, 0."""
    value = shift = 0
    while place < end:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            break
    return value, place
