"""Bounded reading of files of unknown origin: sizes are checked before anything is read.

Each reader of a file has one `Allowance`, the bytes that it may unpack or allocate, and takes from
it what headers and shapes announce. Archives are read into memory, never unpacked to the disk.
Standard library only.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

# The largest public set of this family has 54 MB; no network of it needs more than this.
LEAST_BYTES = 200_000_000
# JSON documents: specs of thousands of modules have some megabytes.
MOST_TEXT = 16_000_000
MOST_DEPTH = 100
# Weights have a few hundred members; a zip's directory takes some hundred bytes for each.
_MOST_MEMBERS = 10_000
_MOST_DIRECTORY = 4_000_000
_MOST_TAR_MEMBERS = 1_000
_MOST_AXES = 32
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error)
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
        ValueError: no regular file, no gzip, or larger than the allowance when unpacked.
    """
    require_file(path)
    try:
        with gzip.open(path) as file:
            content = _read_to_the_end(file, allowance)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"Expected gzip. Received: {str(path)!r} ({error})") from error
    allowance.take("the unpacked file", len(content))
    return content


def _read_to_the_end(file: Any, allowance: Allowance) -> bytes:
    """Return what is left of a file that may be longer than it says."""
    content: bytes = file.read(allowance.size)
    if file.read(1):
        allowance.take("the file", allowance.size + 1)  # raises
    return content


def check_zip(path: Path, allowance: Allowance) -> list[str]:
    """Check the members of a zip by its directory, and return their names.

    Raises:
        ValueError: no regular file, no zip, members that together exceed the allowance, that
            overlap, are encrypted, are links, occur twice, or have names outside the archive.
    """
    require_file(path)
    with _opened(path) as archive:
        return _checked_members(archive, allowance)


def read_zip(path: Path, allowance: Allowance, *names: str) -> list[bytes]:
    """Return members of a zip by name; `check_zip` names what is refused.

    Raises:
        ValueError: as `check_zip`, or a member is missing or damaged.
    """
    require_file(path)
    with _opened(path) as archive:
        found = _checked_members(archive, allowance)
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(
                f"Expected a zip that holds {', '.join(names)}. Received: {str(path)!r} without "
                f"{', '.join(missing)}."
            )
        try:
            return [archive.read(name) for name in names]
        except _ZIP_ERRORS as error:
            raise ValueError(f"Expected a whole zip. Received: {str(path)!r} ({error})") from error


def _opened(path: Path) -> zipfile.ZipFile:
    size = _directory_size(path)
    if size > _MOST_DIRECTORY:
        raise ValueError(
            f"Expected a zip of at most {_MOST_MEMBERS:,} members. Received: {str(path)!r} with a "
            f"directory of {size:,} bytes."
        )
    try:
        return zipfile.ZipFile(path)
    except (*_ZIP_ERRORS, ValueError) as error:
        raise ValueError(f"Expected a zip. Received: {str(path)!r} ({error})") from error


def _directory_size(path: Path) -> int:
    """Return the bytes of a zip's directory, which `ZipFile` reads whole, by its end records."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        start = max(0, length - 0xFFFF - 22 - 20 - 56)
        file.seek(start)
        tail = file.read()
        end = tail.rfind(b"PK\5\6")
        sizes = [0]
        if 0 <= end <= len(tail) - 22:
            sizes.append(struct.unpack_from("<L", tail, end + 12)[0])
        if end >= 20 and tail[end - 20 :].startswith(b"PK\6\7"):  # zip64: the record is before it
            (offset,) = struct.unpack_from("<Q", tail, end - 12)
            for place in (start + end - 20 - 56, offset):
                if 0 <= place <= length - 56:
                    file.seek(place)
                    sizes.append(struct.unpack("<40xQ8x", file.read(56))[0])
    return max(size for size in sizes if size != 0xFFFFFFFF)


def _checked_members(archive: zipfile.ZipFile, allowance: Allowance) -> list[str]:
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    path, names = str(allowance.path), [member.filename for member in members]
    if len(members) > _MOST_MEMBERS or len(set(names)) < len(names):
        raise ValueError(
            f"Expected a zip of at most {_MOST_MEMBERS:,} members of different names. Received: "
            f"{path!r} with {len(names):,} members, {len(set(names)):,} names."
        )
    ends = [member.header_offset for member in members[1:]] + [archive.start_dir]
    for member, end in zip(members, ends, strict=True):
        if reason := _unacceptable(member, end):
            raise ValueError(
                f"Expected an ordinary zip. Received: {path!r}, whose member "
                f"{shown(member.filename)} {reason}."
            )
        allowance.take(f"member {member.filename}", member.file_size)
    return names


def _unacceptable(member: zipfile.ZipInfo, end: int) -> str | None:
    """Return what is wrong with a member, if anything; `end` is where the next one starts."""
    parts = PurePosixPath(member.filename.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in member.filename:
        return "has a name outside of the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in _ZIP_METHODS:
        return f"has the compression method {member.compress_type}"
    if member.header_offset + 30 + len(member.filename) + member.compress_size > end:
        return "overlaps another one"
    return None


def tar_files(path: Path, allowance: Allowance) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the files of a tar or gzipped tar, by names inside of it.

    Raises:
        ValueError: no regular file, no tar, too many or too large members, or links, devices and
            sparse files among them.
    """
    require_file(path)
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    data = read_gzip(path, allowance) if is_gzip else read_file(path, allowance)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive, start=1):
                if content := _tar_member(archive, member, count, path, len(data)):
                    yield content
    except (tarfile.TarError, EOFError, OSError, RecursionError, OverflowError) as error:
        raise ValueError(f"Expected a tar. Received: {str(path)!r} ({error})") from error


def _tar_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, count: int, path: Path, most: int
) -> tuple[PurePosixPath, bytes] | None:
    """Return a file's name and contents, None for a folder."""
    if count > _MOST_TAR_MEMBERS:
        raise ValueError(
            f"Expected at most {_MOST_TAR_MEMBERS:,} members. Received: more, in {str(path)!r}."
        )
    ordinary = member.isdir() or (member.isreg() and not member.issparse())
    if not ordinary or not 0 <= member.size <= most:
        raise ValueError(
            f"Expected a tar of ordinary files. Received: {str(path)!r} with "
            f"{shown(member.name)}, a link, a device, a sparse file, or one of more bytes "
            f"({member.size:,}) than the tar."
        )
    content = None if member.isdir() else archive.extractfile(member)
    if content is None:
        return None
    parts = (part for part in PurePosixPath(member.name).parts if part not in ("/", ".."))
    return PurePosixPath(*parts), content.read()


def parsed_json(text: str | bytes, what: str) -> Any:
    """Return the value of a JSON text.

    Args:
        text: at most `MOST_TEXT` characters.
        what: the name of the document in errors, such as "spec".

    Raises:
        ValueError: not JSON, too long, nested deeper than `MOST_DEPTH`, or with integers of
            thousands of digits.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(
            f"Expected the JSON of a {what}, at most {MOST_TEXT:,} characters. Received: "
            f"{len(text):,}"
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


def read_json(path: Path, what: str) -> Any:
    """Return the value of a JSON file; errors name the file.

    Raises:
        FileNotFoundError: no file.
        ValueError: no regular file, or none of UTF-8 and JSON.
    """
    try:
        return parsed_json(read_file(path, Allowance(path, 4 * MOST_TEXT)).decode(), what)
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(f"{error} In {str(path)!r}.") from error
