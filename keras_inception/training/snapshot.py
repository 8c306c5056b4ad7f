"""Snapshots that survive being killed, a full disk and bit rot.

A snapshot is one file, written aside: at any moment the folder holds the last complete ones. No
model; arrays and JSON only.
"""

from __future__ import annotations

import json
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_inception.archives import check_zip
from keras_inception.bounded import (
    LEAST_BYTES,
    Allowance,
    bytes_on_disk,
    parsed_json,
    shown,
)
from keras_inception.files import aside
from keras_inception.spec.validation import is_finite

KEPT = 2
# Differences that an error lists.
_MOST_DIFFERENCES = 20
_DOCUMENT = "document"
# Of the year 9999, the last that Python's dates have.
_LAST_SECOND = 253_000_000_000
_PROGRESS: dict[str, Any] = {
    "step": int,
    "epoch": int,
    "sums": dict,
    "history": dict,
    "seconds": int | float,
    "finished": bool,
}


class Snapshot(NamedTuple):
    """What a snapshot holds: numbers for JSON, and arrays by name."""

    document: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Snapshots:
    """The snapshots of a run, the newest `KEPT` of them, in a folder of their own.

    Args:
        folder: of the snapshots; made when the first is saved.
        every_steps: steps between two snapshots; None: no matter how many.
        every_minutes: minutes between two snapshots; None: no matter how long.
    """

    def __init__(
        self, folder: Path, *, every_steps: int | None = None, every_minutes: float | None = 10.0
    ) -> None:
        self.folder = folder
        self._every_steps = every_steps
        self._every_minutes = every_minutes
        self._last_saved = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether a snapshot should follow this step."""
        if self._every_steps and step % self._every_steps == 0:
            return True
        seconds = time.monotonic() - self._last_saved
        return self._every_minutes is not None and seconds >= 60 * self._every_minutes

    def save(self, step: int, snapshot: Snapshot) -> None:
        """Write the snapshot of a step, then remove all but the newest.

        Raises:
            OSError: it cannot be written; the earlier ones are as they were.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        document = np.array(json.dumps(snapshot.document))
        with aside(self.folder / f"step-{step:09d}.npz") as path, path.open("wb") as file:
            np.savez(file, **{_DOCUMENT: document}, **snapshot.arrays)  # type: ignore[arg-type]
        self._last_saved = time.monotonic()
        for path in self._files()[:-KEPT]:
            path.unlink()

    def newest(self, *, set_aside: bool = True) -> Snapshot | None:
        """The newest snapshot that can be read, None if there is none.

        Args:
            set_aside: rename newer ones that cannot be read, so that they count no more.

        Raises:
            ValueError: there are snapshots, and none can be read; they stay as they are.
        """
        damaged: dict[Path, Exception] = {}
        for path in reversed(self._files()):
            try:
                snapshot = _read(path)
            except Exception as error:  # NumPy and zipfile raise anything on damaged bytes
                damaged[path] = error
                continue
            for unreadable, reason in damaged.items():
                warnings.warn(
                    f"Snapshot {unreadable} cannot be read ({reason}); the one before it is taken.",
                    stacklevel=2,
                )
                if set_aside:
                    unreadable.replace(unreadable.with_suffix(".unreadable"))
            return snapshot
        if damaged:
            raise ValueError(
                f"Expected a readable snapshot in {str(self.folder)!r}. Received: "
                f"{[path.name for path in damaged]}, none readable. Start again in a new folder."
            )
        return None

    def newest_document(self) -> dict[str, Any] | None:
        """The numbers of the newest snapshot that can be read, without its arrays."""
        for path in reversed(self._files()):
            try:
                _check_size(path)
                with np.load(path) as arrays:
                    return _document(arrays, path)
            except Exception:  # NumPy and zipfile raise anything on damaged bytes
                continue
        return None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.npz"))


def _read(path: Path) -> Snapshot:
    _check_size(path)
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    with np.load(path) as arrays:
        document = _document(arrays, path)
        names = [name for name in arrays.files if name != _DOCUMENT]
        return Snapshot(document, {name: arrays[name] for name in names})


def _check_size(path: Path) -> None:
    """Refuse a snapshot that unpacks to more than it has: NumPy compresses nothing here."""
    check_zip(path, Allowance(path, max(LEAST_BYTES, 2 * bytes_on_disk(path))))


def _document(arrays: Any, path: Path) -> dict[str, Any]:
    """The numbers of a snapshot, in which those that are read later have their types.

    Raises:
        ValueError: of another shape.
    """
    document = parsed_json(str(arrays[_DOCUMENT].item()), "snapshot")
    if not (
        isinstance(document, dict)
        and _is_progress(document.get("progress"))
        and is_finite(document.get("saved_at", 0.0))
        and 0 <= document.get("saved_at", 0.0) < _LAST_SECOND
        and isinstance(document.get("identity", {}), dict)
    ):
        raise ValueError(f"Expected the numbers of a snapshot. Received: others, in {str(path)!r}.")
    return document


def _is_progress(progress: Any) -> bool:
    """Whether a value has the fields of `Progress`, or is None: a snapshot of something else."""
    if progress is None:
        return True
    if not isinstance(progress, dict) or progress.keys() != _PROGRESS.keys():
        return False
    rows = progress["history"]
    return all(isinstance(progress[key], kind) for key, kind in _PROGRESS.items()) and all(
        isinstance(value, int | float)
        for row in (progress["sums"].values(), *(rows.values() if _has_lists(rows) else [[None]]))
        for value in row
    )


def _has_lists(rows: Any) -> bool:
    return isinstance(rows, dict) and all(isinstance(row, list) for row in rows.values())


def require_same(old: dict[str, Any], new: dict[str, Any], what: str, folder: Path) -> None:
    """Refuse to resume with another identity; the error lists the differences, one a line.

    Args:
        old, new: the identities, as JSON has them.
        what: "run" or "search", for the message.
        folder: where the old one lies.

    Raises:
        ValueError: they differ.
    """
    before, now = dict(_leaves(old)), dict(_leaves(new))
    changed = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    if changed:
        lines = "".join(
            f"\n - {name}: {shown(before.get(name))}\n + {name}: {shown(now.get(name))}"
            for name in changed[:_MOST_DIFFERENCES]
        )
        if len(changed) > _MOST_DIFFERENCES:
            lines += f"\nand {len(changed) - _MOST_DIFFERENCES:,} more"
        raise ValueError(
            f"Expected the spec, recipe and data of the {what} in {str(folder)!r} (-). "
            f"Received others (+):{lines}\nUse the old ones, or choose another folder."
        )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
