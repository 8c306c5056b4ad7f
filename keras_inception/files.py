"""Files and folders that are complete or absent, and checks of folders to write to.

Files are written under a temporary name, flushed to the disk, and renamed. Standard library only.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp

from keras_inception.bounded import MOST_TEXT, Allowance, read_file
from keras_inception.new_folders import removed_if_unbegun

# The files of a run's folder.
MODEL_FILE = "model.keras"
# The model of the epoch with the highest held-out accuracy.
BEST_FILE = "best.keras"
LABELS_FILE = "labels.txt"
METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"
# The page of a later evaluation of the run.
EVALUATION_FILE = "evaluation.html"
SPEC_FILE = "spec.json"
RECIPE_FILE = "recipe.json"
DATA_FILE = "data.json"
LEFT_OUT_FILE = "left_out.csv"
SCAN_FILE = ".scan.json.gz"
SNAPSHOT_FOLDER = "snapshots"

# Prefix of the names of folders that hold incomplete files. The owner's machine, process and its
# start follow, so that a later process knows whether the owner still runs.
PARTIAL = ".partial-"
_OWNER = re.compile(rf"{re.escape(PARTIAL)}(\w*)\.(\d+)\.(\d*)-")
# After which the leftovers of another machine, or of an older version, are removed.
_OLD_SECONDS = 24 * 3600
_own_folders: set[Path] = set()


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a private folder; it is moved only if the block succeeds.

    A file replaces an existing file or link, a folder only an empty one. The contents are flushed
    to the disk before the move, the name after it. What killed processes left in the folder of
    `path` is removed.
    """
    with _private_folder(path.parent) as folder:
        beside = folder / path.name
        yield beside
        for part in (*beside.rglob("*"), beside):
            _flush(part)
        beside.replace(path)
        _flush(path.parent)


@contextmanager
def _private_folder(parent: Path) -> Iterator[Path]:
    """Make a folder of an unpredictable name that only this user can enter; remove it at the end.

    So nobody else can put a link where a file is about to be written.
    """
    remove_leftovers(parent)
    with temporary_folder(prefix=f"{PARTIAL}{_owner()}-", parent=parent) as folder:
        yield folder


@contextmanager
def temporary_folder(prefix: str = "", parent: Path | None = None) -> Iterator[Path]:
    """Make a folder of `tempfile.mkdtemp`; a signal that ends the process removes it too."""
    folder = Path(mkdtemp(prefix=prefix, dir=parent))
    _own_folders.add(folder)
    try:
        yield folder
    finally:
        _remove(folder)
        _own_folders.discard(folder)


def remove_own_leftovers() -> None:
    """Remove the incomplete files of this process, which is about to end."""
    for folder in list(_own_folders):
        with suppress(OSError):  # another thread may still write; the next process removes it
            _remove(folder)


def remove_leftovers(parent: Path) -> None:
    """Remove from a folder the incomplete files of processes that no longer run."""
    for item in parent.glob(f"{PARTIAL}*"):
        with suppress(OSError):  # another process removes it, or it is another user's
            if _is_leftover(item):
                _remove(item)


def _owner() -> str:
    return f"{_machine()}.{os.getpid()}.{_start_of(os.getpid()) or ''}"


def _machine() -> str:
    return re.sub(r"\W", "", platform.node())[:40]


def _start_of(pid: int) -> str | None:
    """Return when a process began, in clock ticks since the start of the system; None: unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19]


def _is_leftover(item: Path) -> bool:
    owner = _OWNER.match(item.name)
    if owner is None or owner[1] != _machine() or os.name == "nt":
        return time.time() - item.lstat().st_mtime > _OLD_SECONDS
    pid, start = int(owner[2]), owner[3]
    if start:
        return _start_of(pid) != start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


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

    Raises:
        ValueError: no regular file of UTF-8, or one of over `MOST_TEXT` bytes.
    """
    try:
        lines = read_file(path, Allowance(path, MOST_TEXT)).decode().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected labels in UTF-8. Received: {str(path)!r} ({error})") from error
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


def csv_text(text: str) -> str:
    """The printable text for a cell of CSV; spreadsheets compute what begins with =, +, - or @."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def _escaped(letter: str) -> str:
    byte = ord(letter) - 0xDC00  # of a name that is not UTF-8, which Python has as a surrogate
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return letter.encode("unicode_escape").decode()


@contextmanager
def contents_aside(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder in `folder`; its contents move up only if the block succeeds.

    The folder is made, and removed again if the block fails.

    Raises:
        ValueError: it cannot be written.
    """
    with removed_if_unbegun(folder):
        make_writable(folder)
        with _private_folder(folder) as beside:
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
    with suppress(FileNotFoundError), _private_folder(path.parent) as folder:
        path.replace(folder / path.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
