"""Which files of a folder are to be read as images: one rule for every command.

Links to folders are followed. Hidden folders, `__MACOSX` and the files of operating systems are
left out with a reason; every file is either to be read or left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# Names that suggest an image, to tell split folders from classes; every file is tried.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_MACOS_FOLDER = "__MACOSX"
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")
_IN_HIDDEN_FOLDER = "in a hidden folder"
_IN_MACOS_FOLDER = f"in {_MACOS_FOLDER}, which macOS adds to archives"
_HIDDEN_FILE = "a hidden file"
_SYSTEM_FILE = "a file of the operating system"
# Reasons to leave a file out that nobody needs to act on.
HARMLESS = frozenset({_IN_HIDDEN_FOLDER, _IN_MACOS_FOLDER, _HIDDEN_FILE, _SYSTEM_FILE})


class LeftOut(NamedTuple):
    """A file or folder that is left out, and why."""

    path: str
    reason: str


class Listing(NamedTuple):
    """What a folder holds, at every depth, sorted.

    Attributes:
        files: to be read.
        left_out: files that are not.
        folders: visible folders that were listed, the root included.
        folders_left_out: folders that cannot be listed, or lead back to a folder above them.
    """

    files: list[Path]
    left_out: list[LeftOut]
    folders: list[Path]
    folders_left_out: list[LeftOut]


def list_folder(root: Path) -> Listing:
    """Every file in a folder and below: to be read, or left out with the reason."""
    found = Listing([], [], [], [])
    _walk(root, {}, None, found)
    found.files.sort()
    return found


def _walk(
    folder: Path, above: dict[tuple[int, int], Path], reason: str | None, to: Listing
) -> None:
    """List a folder; `above` are the folders that hold it, by device and inode."""
    try:
        status = folder.stat()
        identity = status.st_dev, status.st_ino
        if identity in above:
            holder = f"a link back to {str(above[identity])!r}, which holds it"
            to.folders_left_out.append(LeftOut(str(folder), holder))
            return
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        to.folders_left_out.append(LeftOut(str(folder), f"cannot be listed: {error.strerror}"))
        return
    if reason is None:
        to.folders.append(folder)
    for entry in entries:
        path = folder / entry.name
        if entry.is_dir():
            inside = reason or _folder_reason(entry.name)
            _walk(path, {**above, identity: folder}, inside, to)
        elif (why := reason or _file_reason(entry)) is not None:
            to.left_out.append(LeftOut(str(path), why))
        else:
            to.files.append(path)


def _folder_reason(name: str) -> str | None:
    if name == _MACOS_FOLDER:
        return _IN_MACOS_FOLDER
    return _IN_HIDDEN_FOLDER if name.startswith(".") else None


def _file_reason(entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith("."):
        return _HIDDEN_FILE
    if entry.name.lower() in _SYSTEM_FILES:
        return _SYSTEM_FILE
    if entry.is_file():
        return None
    if entry.is_symlink() and not os.path.exists(entry.path):
        return "a link that leads nowhere"
    return "not a regular file"  # a pipe or a device, which could be read for ever


def image_files(paths: Iterable[Path]) -> Iterator[Path | LeftOut]:
    """Files as they are named; of folders every file in them and below, by `list_folder`."""
    for path in paths:
        if path.is_dir():
            found = list_folder(path)
            yield from found.files
            yield from (*found.left_out, *found.folders_left_out)
        elif path.exists() and not path.is_file():
            yield LeftOut(str(path), "not a regular file")
        elif path.exists():
            yield path
        else:
            yield LeftOut(str(path), "not found")
