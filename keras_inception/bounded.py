"""Bounded reading of files of unknown origin: sizes are checked before anything is read.

Each reader of a file has one `Allowance`, the bytes that it may unpack or allocate, and takes from
it what headers and shapes announce. `archives` has zip and tar. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The largest public set of this family has 54 MB; no network of it needs more than this.
LEAST_BYTES = 200_000_000
# JSON documents: specs of thousands of modules have some megabytes.
MOST_TEXT = 16_000_000
MOST_DEPTH = 100
# Each takes some 100 bytes as an object, whatever its text; a spec of 5,000 modules has 200,000.
_MOST_VALUES = 1_000_000
_MOST_AXES = 32
# zlib's number for the format of gzip; a file usually has one member.
_GZIP = 31
_MOST_GZIP_MEMBERS = 100
_SHOWN = 200


class Allowance:
    """The bytes that the reader of one file may unpack or allocate.

    Args:
        path: of the file, for messages.
        size: bytes.
    """

    def __init__(self, path: Path, size: int = LEAST_BYTES) -> None:
        self.path = path
        self.size = size
        self._left = size

    def take(self, what: str, size: int) -> None:
        """Take bytes before they are read.

        Raises:
            ValueError: more than is left, or a negative number.
        """
        if not 0 <= size <= self._left:
            raise ValueError(
                f"Expected at most {self.size:,} bytes to unpack from {str(self.path)!r}, which no "
                f"network of this family exceeds. Received: {shown(what)} of {size:,} bytes, with "
                f"{self._left:,} left. The file is damaged, or made to fill the memory."
            )
        self._left -= size

    def take_array(self, name: str, shape: Any, item_size: int) -> None:
        """Take the bytes of an array of a shape.

        Raises:
            ValueError: a shape that no array has, or too many bytes.
        """
        sizes = [int(size) for size in shape]
        if len(sizes) > _MOST_AXES or any(size < 0 for size in sizes):
            raise ValueError(
                f"Expected at most {_MOST_AXES} axes of 0 or more elements in {shown(name)}. "
                f"Received: shape {shown(sizes)} in {str(self.path)!r}."
            )
        self.take(name, math.prod(sizes) * item_size)


def shown(value: object) -> str:
    """Return the `repr` of a value from a file, cut after some characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError) as error:  # integers of thousands of digits; nesting
        text = f"a value that cannot be shown ({type(error).__name__})"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def require_file(path: Path) -> None:
    """Refuse folders, pipes and devices, from which reading may never end.

    Raises:
        ValueError: no regular file.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, device or socket"
        raise ValueError(f"Expected a regular file. Received: {str(path)!r}, which is {kind}.")


def bytes_on_disk(path: Path) -> int:
    """Return the bytes that a file occupies, without the holes of a sparse one."""
    found = path.stat()
    blocks = getattr(found, "st_blocks", None)  # Windows has none
    return found.st_size if blocks is None else min(found.st_size, blocks * 512)


def read_file(path: Path, allowance: Allowance) -> bytes:
    """Return the contents of a regular file.

    Raises:
        ValueError: no regular file, or larger than the allowance.
    """
    require_file(path)
    with path.open("rb") as file:
        allowance.take("the file", os.fstat(file.fileno()).st_size)
        return _read_to_the_end(file, allowance)


def read_gzip(path: Path, allowance: Allowance) -> bytes:
    """Return the unpacked contents of a gzip file.

    Raises:
        ValueError: no regular file, no gzip, or larger than the allowance.
    """
    packed = read_file(path, Allowance(path, allowance.size))
    content: list[bytes] = []
    try:
        while packed:
            if len(content) == _MOST_GZIP_MEMBERS:
                raise ValueError(f"over {_MOST_GZIP_MEMBERS} members")
            member = zlib.decompressobj(wbits=_GZIP)
            content.append(member.decompress(packed, allowance.size + 1))
            allowance.take("the unpacked file", len(content[-1]))
            if not member.eof:
                raise ValueError("it ends before its contents do")
            packed = member.unused_data.lstrip(b"\0")
    except (ValueError, zlib.error) as error:
        if str(error).startswith("Expected"):
            raise
        raise ValueError(f"Expected gzip. Received: {str(path)!r} ({error})") from error
    return b"".join(content)


def _read_to_the_end(file: Any, allowance: Allowance) -> bytes:
    """Return what is left of a file that may be longer than it says."""
    content: bytes = file.read(allowance.size)
    if file.read(1):
        allowance.take("the file", allowance.size + 1)  # raises
    return content


def parsed_json(text: str | bytes, what: str) -> Any:
    """Return the value of a JSON text.

    Args:
        text: at most `MOST_TEXT` characters.
        what: the name of the document in errors, such as "spec".

    Raises:
        ValueError: not JSON, too long, of too many values, nested deeper than `MOST_DEPTH`, or
            with integers of thousands of digits.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(
            f"Expected the JSON of a {what}, at most {MOST_TEXT:,} characters. Received: "
            f"{len(text):,}"
        )
    commas = text.count(b",") if isinstance(text, bytes) else text.count(",")
    if commas > _MOST_VALUES:
        raise ValueError(
            f"Expected the JSON of a {what}, at most {_MOST_VALUES:,} values. Received: over "
            f"{commas:,}"
        )
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of brackets
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ValueError(
            f"Expected the JSON of a {what}. Received text that is not: {reason}"
        ) from error
    if _depth(data) > MOST_DEPTH:
        raise ValueError(
            f"Expected the JSON of a {what}, nested at most {MOST_DEPTH} deep. Received: deeper"
        )
    return data


def _depth(data: Any) -> int:
    """Return how deep lists and objects are nested, at most one more than is allowed."""
    level, depth = [data], 0
    while level and depth <= MOST_DEPTH:
        level = [
            item
            for holder in level
            if isinstance(holder, dict | list)
            for item in (holder.values() if isinstance(holder, dict) else holder)
        ]
        depth += 1
    return depth


def read_text(path: Path) -> str:
    """Return the text of a document; errors name the file.

    Raises:
        FileNotFoundError: no file.
        ValueError: no regular file, none of UTF-8, or one that is too large.
    """
    with naming(path):
        return read_file(path, Allowance(path, 4 * MOST_TEXT)).decode()


def read_json(path: Path, what: str) -> Any:
    """Return the value of a JSON file; errors name the file.

    Raises:
        FileNotFoundError: no file.
        ValueError: no regular file, or none of UTF-8 and JSON.
    """
    text = read_text(path)
    with naming(path):
        return parsed_json(text, what)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path of a file to errors about what it holds."""
    try:
        yield
    except ValueError as error:  # UnicodeDecodeError is one
        if repr(str(path)) in str(error):
            raise
        raise ValueError(f"{error} In {str(path)!r}.") from error
