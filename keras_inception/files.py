"""Files and folders that are whole or not there, folders that can be written, and their lock.

What is written is written aside, flushed to the disk, and renamed. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

# The files of a run's folder.
MODEL_FILE = "model.keras"
LABELS_FILE = "labels.txt"
METRICS_FILE = "metrics.json"
SPEC_FILE = "spec.json"
RECIPE_FILE = "recipe.json"
SNAPSHOT_FOLDER = "snapshots"

LOCK_FILE = ".lock"
# How names of files and folders that are not complete begin.
PARTIAL = ".partial-"


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it gets the name of `path` only when all went well.

    A file takes the place of one that was there, a folder only an empty one's. What was written is
    on the disk before it gets its name, and the name is on the disk after.
    """
    beside = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")  # two processes, two names
    try:
        yield beside
        for part in (*beside.rglob("*"), beside):
            _flush(part)
        beside.replace(path)
        _flush(path.parent)
    finally:
        _remove(beside)


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it."""
    with aside(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def contents_aside(folder: Path) -> Iterator[Path]:
    """A hidden folder in `folder` to write to; what is in it moves up only when all went well."""
    with TemporaryDirectory(dir=folder, prefix=PARTIAL) as name:
        beside = Path(name)
        yield beside
        for part in beside.rglob("*"):
            _flush(part)
        for part in beside.iterdir():
            part.replace(folder / part.name)
        _flush(folder)


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds files; hidden ones, which a killed process left, do not count.

    Raises:
        ValueError: it does, or it is a file.
    """
    if folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir()):
        return
    if folder.exists():
        raise ValueError(
            f"Expected a new or empty folder. Received: {str(folder)!r}, which holds files. "
            "Choose another one."
        )


def make_writable(folder: Path) -> None:
    """Make a folder, or see that the one that is there can be written.

    Raises:
        ValueError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"Expected a folder that can be written. Received: {str(folder)!r} "
            f"({error.strerror}). Choose another one."
        ) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; the system lets go of it when the process ends.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Expected a folder in which no other run is going on. Received: {str(folder)!r}, "
                "which a running process has locked. Wait for it, or choose another folder."
            ) from None
        yield
