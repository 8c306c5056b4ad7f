"""Which files of a folder are to be read as images: one rule for every command.

Links to folders are followed. Hidden files and folders and those of operating systems are left out
with a reason; every file is either to be read or left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

# Names that suggest an image, to tell split folders from classes; every file is tried.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# In lower case. macOS adds __MACOSX to archives, Synology's servers add @eaDir to folders.
_SYSTEM_FOLDERS = ("__macosx", "@eadir", "$recycle.bin", "system volume information")
_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
_IN_HIDDEN_FOLDER = "in a hidden folder"
_IN_SYSTEM_FOLDER = "in a folder of the operating system"
_HIDDEN_FILE = "a hidden file"
_SYSTEM_FILE = "a file of the operating system"
# Folders that link to each other have as many paths as orders without such a limit.
_MOST_LINKS = 4
_NOT_REGULAR = "not a regular file"  # a pipe or a device, which could be read for ever
# Reasons to leave a file out that nobody needs to act on.
HARMLESS = frozenset({_IN_HIDDEN_FOLDER, _IN_SYSTEM_FOLDER, _HIDDEN_FILE, _SYSTEM_FILE})


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


class _Pending(NamedTuple):
    """A folder that is still to be listed.

    Attributes:
        above: the folders that hold it, by device and inode.
        links: how many of these, and of the folder itself, are links.
        reason: why its files are left out, if they are.
    """

    folder: Path
    above: Mapping[tuple[int, int], Path]
    links: int
    reason: str | None


def list_folder(root: Path) -> Listing:
    """Every file in a folder and below: to be read, or left out with the reason."""
    found = Listing([], [], [], [])
    pending = [_Pending(root, {}, 0, None)]
    while pending:  # not by recursion, which ends at a depth that file systems exceed
        pending += _list(pending.pop(), found)
    for part in found:
        part.sort()
    return found


def _list(pending: _Pending, to: Listing) -> list[_Pending]:
    """Add what a folder holds; return the folders in it."""
    folder, above, links, reason = pending
    try:
        status = folder.stat()
        identity = status.st_dev, status.st_ino
        if identity in above:
            holder = f"a link back to {str(above[identity])!r}, which holds it"
            to.folders_left_out.append(LeftOut(str(folder), holder))
            return []
        if links > _MOST_LINKS:
            nested = f"a link inside {_MOST_LINKS} others"
            to.folders_left_out.append(LeftOut(str(folder), nested))
            return []
        with os.scandir(folder) as scanned:
            entries = list(scanned)
    except OSError as error:
        to.folders_left_out.append(LeftOut(str(folder), f"cannot be listed: {error.strerror}"))
        return []
    if reason is None:
        to.folders.append(folder)
    inside = []
    for entry in entries:
        path = folder / entry.name
        if _holds(entry.is_dir):
            why = reason or _folder_reason(entry.name)
            below = links + entry.is_symlink()
            inside.append(_Pending(path, {**above, identity: folder}, below, why))
        elif (why := reason or _file_reason(entry)) is not None:
            to.left_out.append(LeftOut(str(path), why))
        else:
            to.files.append(path)
    return inside


def _holds(kind: Callable[[], bool]) -> bool:
    """The answer of a directory's entry; no where links lead in a circle or nowhere."""
    try:
        return kind()
    except OSError:
        return False


def _folder_reason(name: str) -> str | None:
    if name.lower() in _SYSTEM_FOLDERS:
        return _IN_SYSTEM_FOLDER
    return _IN_HIDDEN_FOLDER if name.startswith(".") else None


def _file_reason(entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith("."):
        return _HIDDEN_FILE
    if entry.name.lower() in _SYSTEM_FILES:
        return _SYSTEM_FILE
    if _holds(entry.is_file):
        return None
    if entry.is_symlink() and not os.path.exists(entry.path):
        return "a link that leads nowhere"
    return _NOT_REGULAR


def image_files(paths: Iterable[Path]) -> Iterator[Path | LeftOut]:
    """Files as they are named; of folders every file in them and below, by `list_folder`."""
    for path in paths:
        if os.path.isdir(path):
            found = list_folder(path)
            yield from found.files
            yield from (*found.left_out, *found.folders_left_out)
        elif (reason := refusal(path)) is not None:
            yield LeftOut(str(path), reason)
        else:
            yield path


def refusal(path: Path) -> str | None:
    """Why a path is not a file that can be read; None where it is one."""
    try:
        return None if stat.S_ISREG(os.stat(path).st_mode) else _NOT_REGULAR
    except (FileNotFoundError, NotADirectoryError):
        return "not found"
    except (OSError, ValueError) as error:  # denied; a name that no file can have
        return getattr(error, "strerror", None) or str(error)
