"""Files and folders that are complete or absent, and checks of folders to write to.

Files are written under a temporary name, flushed to the disk, and renamed. Standard library only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

# The files of a run's folder.
MODEL_FILE = "model.keras"
# The model of the epoch with the highest held-out accuracy.
BEST_FILE = "best.keras"
LABELS_FILE = "labels.txt"
METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"
SPEC_FILE = "spec.json"
RECIPE_FILE = "recipe.json"
DATA_FILE = "data.json"
LEFT_OUT_FILE = "left_out.csv"
SCAN_FILE = ".scan.json.gz"
SNAPSHOT_FOLDER = "snapshots"

# Prefix of the names of incomplete files and folders.
PARTIAL = ".partial-"


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it is renamed to `path` only if the block succeeds.

    A file replaces an existing file, a folder only an empty one. The contents are flushed to the
    disk before the rename, the name after it.
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
    """Write a text file under a temporary name and rename it."""
    with aside(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_labels(path: Path, names: Sequence[str]) -> None:
    """Write the names of classes, one a line.

    Raises:
        ValueError: a name with a line break.
    """
    require_single_lines(names)
    write_text(path, "".join(f"{name}\n" for name in names))


def read_labels(path: Path) -> tuple[str, ...]:
    """The names that `write_labels` wrote.

    A line ends at a line feed alone: Unicode has eight more characters at which `str.splitlines`
    would cut a name in two.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    return tuple(lines[:-1] if lines[-1] == "" else lines)


def require_single_lines(names: Iterable[str]) -> None:
    """Refuse names of classes that a label file cannot hold.

    Raises:
        ValueError: a name with a line feed or carriage return.
    """
    broken = [name for name in names if "\n" in name or "\r" in name]
    if broken:
        raise ValueError(
            f"Expected names of classes without line breaks. Received: {broken[:10]}. Rename them."
        )


def printable(text: str) -> str:
    r"""The text with everything escaped that a terminal cannot show: \xff, \n, \u2028."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    byte = ord(letter) - 0xDC00  # of a name that is not UTF-8, which Python has as a surrogate
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return letter.encode("unicode_escape").decode()


@contextmanager
def contents_aside(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder in `folder`; its contents move up only if the block succeeds."""
    with TemporaryDirectory(dir=folder, prefix=PARTIAL) as name:
        beside = Path(name)
        yield beside
        for part in beside.rglob("*"):
            _flush(part)
        for part in beside.iterdir():
            part.replace(folder / part.name)
        _flush(folder)


def keras_file(path: Path) -> Path:
    """The .keras file of a run's folder, or the file itself.

    Raises:
        ValueError: neither.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    if file.suffix != ".keras" or not file.is_file():
        raise ValueError(
            f"Expected a folder that holds {MODEL_FILE}, or a .keras file. Received: {str(path)!r}"
        )
    return file


def require_empty(folder: Path) -> None:
    """Check that a folder is new or empty; hidden files, left by a killed process, do not count.

    Raises:
        ValueError: it holds files, or it is a file.
    """
    if folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir()):
        return
    if folder.exists():
        raise ValueError(
            f"Expected a new or empty folder. Received: {str(folder)!r}, which holds files. "
            "Choose another one."
        )


def make_writable(folder: Path) -> None:
    """Create a folder, or check that an existing one can be written.

    Raises:
        ValueError: it cannot be written.
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
    windows = os.name == "nt"
    if windows and path.is_dir():  # folders cannot be opened there
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a file or folder, if it exists; what a kill leaves of it has a hidden name."""
    beside = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    with suppress(FileNotFoundError):
        path.replace(beside)
        _remove(beside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
