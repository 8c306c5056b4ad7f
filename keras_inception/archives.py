"""Zip and tar of unknown origin: members are checked by the directory before any is read.

Archives are read into memory, never unpacked to the disk. Standard library only.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from keras_inception.bounded import Allowance, read_file, read_gzip, require_file, shown

# Weights have a few hundred members; a zip's directory takes some hundred bytes for each.
_MOST_MEMBERS = 10_000
_MOST_DIRECTORY = 4_000_000
_MOST_TAR_MEMBERS = 1_000
# Bytes of the records at the end of a zip: the last one, and those of zip64 before it.
_END, _LOCATOR, _END_64 = 22, 20, 56
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error)


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
            return [_member(archive, name) for name in names]
        except _ZIP_ERRORS as error:
            raise ValueError(f"Expected a whole zip. Received: {str(path)!r} ({error})") from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member; `ZipFile.read` unpacks the whole of one that is longer than it says."""
    with archive.open(name) as member:
        return member.read(archive.getinfo(name).file_size + 1)


def _opened(path: Path) -> zipfile.ZipFile:
    _check_end(path)
    try:
        return zipfile.ZipFile(path)
    except (*_ZIP_ERRORS, ValueError) as error:
        raise ValueError(f"Expected a zip. Received: {str(path)!r} ({error})") from error


def _check_end(path: Path) -> None:
    """Refuse a zip whose directory is large, or in which readers would find different directories.

    `ZipFile` reads the directory whole, and finds it by its size, before the end records; the
    readers of other libraries, such as torch's, find it by its offset.
    """
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - _END_64 - _LOCATOR - _END))
        tail = file.read()
    locator, end = tail[-_LOCATOR - _END : -_END], tail[-_END:]
    if len(end) < _END or not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0":
        raise ValueError(
            f"Expected a zip, without a comment or anything else after it. Received: {str(path)!r}"
        )
    size, offset = struct.unpack_from("<2L", end, 12)
    place = pointed = length - _END
    if locator.startswith(b"PK\6\7"):
        place = length - _END_64 - _LOCATOR - _END
        size, offset = struct.unpack_from("<2Q", tail.ljust(_END_64), 40)
        pointed = struct.unpack_from("<Q", locator, 8)[0] if tail.startswith(b"PK\6\6") else -1
    if offset + size != place or pointed != place:
        raise ValueError(
            f"Expected a zip, with nothing before it. Received: {str(path)!r}, whose directory is "
            "not where its end record says."
        )
    if size > _MOST_DIRECTORY:
        raise ValueError(
            f"Expected a zip of at most {_MOST_MEMBERS:,} members. Received: {str(path)!r} with a "
            f"directory of {size:,} bytes."
        )


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
