"""The lock of a folder: one process writes to a run or a search at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_inception.new_folders import begun

LOCK_FILE = ".lock"


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; the system releases it when the process ends.

    Raises:
        ValueError: another process holds it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        begun(folder)  # it is the other process's
        raise ValueError(
            f"Expected a folder in which no other run is going on. Received: {str(folder)!r}, "
            "which a running process has locked. Wait for it, or choose another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()
