"""Folders of runs and searches that have not begun: a failure before the first step leaves none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Of this process, each with the folders that were made for it.
_unbegun: dict[Path, list[Path]] = {}


@contextmanager
def removed_if_unbegun(folder: Path) -> Iterator[None]:
    """Remove a new or empty folder if the block fails before `begun` is called.

    A folder that held files stays, and so does an empty one that existed, without what was written
    into it. Hidden files do not count.
    """
    if folder in _unbegun or (folder.exists() and not _is_empty(folder)):
        yield
        return
    _unbegun[folder] = _missing(folder)
    try:
        yield
    except BaseException:
        _discard(folder)
        raise
    finally:
        begun(folder)


def begun(folder: Path) -> None:
    """Keep a folder from now on: its first step has been done, or it is another process's."""
    _unbegun.pop(folder, None)


def remove_unbegun() -> None:
    """Remove all folders that have not begun: for the end of the process."""
    for folder in list(_unbegun):
        _discard(folder)


@contextmanager
def left_as_found(folder: Path) -> Iterator[None]:
    """Remove at the end of the block what it made of the folder and its parents, if it is empty."""
    made = _missing(folder)
    try:
        yield
    finally:
        _remove_empty(made)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and all(item.name.startswith(".") for item in folder.iterdir())


def _missing(folder: Path) -> list[Path]:
    """The folder and its parents that do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _discard(folder: Path) -> None:
    made = _unbegun.pop(folder, None)
    if made is None:
        return
    with suppress(OSError):  # another thread may still write
        for item in folder.iterdir():
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()
    _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
