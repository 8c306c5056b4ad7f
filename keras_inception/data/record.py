"""What a run or search was trained on: `data.json`, and the list of files that were left out."""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any, TypeVar

from keras_inception.bounded import read_json, shown
from keras_inception.data.splits import ImageData
from keras_inception.files import (
    DATA_FILE,
    LEFT_OUT_FILE,
    SCAN_FILE,
    aside,
    csv_text,
    write_text,
)
from keras_inception.wording import counted

SCHEMA_VERSION = 1
_FOLDER = "dir:"
_Value = TypeVar("_Value", str, int)


def fingerprint(data: ImageData) -> str:
    """A digest of the training and held-out images, their order, labels and classes.

    Contents count, paths do not: the same files elsewhere have the same fingerprint.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(data.class_names).encode())
    for split in (data.train, data.test):
        split.update(digest)
    return digest.hexdigest()


def identity(data: ImageData) -> dict[str, Any]:
    """What must be the same when a run or search is resumed."""
    return {
        "training images": len(data.train),
        "held-out images": len(data.test),
        "classes": list(data.class_names),
        "fingerprint": fingerprint(data),
    }


def record(data: ImageData) -> dict[str, Any]:
    """The document of `data.json`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "source": data.source or data.name,
        "note": data.note,
        **identity(data),
        "test images": 0 if data.final_test is None else len(data.final_test),
        "files left out": len(data.unreadable),
    }


def write_record(folder: Path, data: ImageData) -> None:
    """Leave `data.json` in the folder of a run or search, and `left_out.csv` if there is any.

    Beside them lies what the scan found, so that a resumed run need not decode all files again.
    """
    write_text(folder / DATA_FILE, json.dumps(record(data), indent=2) + "\n")
    if data.scanned:
        from keras_inception.data.scan import save_scan  # with TensorFlow, as the scan was

        save_scan(folder / SCAN_FILE, dict(data.scanned))
    rows = [("file", *row) for row in data.unreadable]
    rows += [("folder", *row) for row in data.folders_left_out]
    if rows:
        with (
            aside(folder / LEFT_OUT_FILE) as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(("kind", "path", "reason"))
            writer.writerows((kind, *map(csv_text, row)) for kind, *row in rows)


def recorded_source(folder: Path) -> str | None:
    """The data that `data.json` in a folder names; None where there is no such file.

    Raises:
        ValueError: a file that is no such record.
    """
    return _recorded(folder, "source", str)


def recorded_fingerprint(folder: Path) -> str | None:
    """The fingerprint in `data.json` in a folder, as `recorded_source`."""
    return _recorded(folder, "fingerprint", str)


def change_since(folder: Path, data: ImageData) -> str | None:
    """How data differ from those that `data.json` in a folder records; None where they do not.

    The number of channels does not count: a run may have converted its images.

    Raises:
        ValueError: no such record.
    """
    then = recorded_fingerprint(folder)
    if then == fingerprint(data) or any(
        then == fingerprint(data.with_channels(channels)) for channels in (1, 3)
    ):
        return None
    for part, count in (("training", len(data.train)), ("held-out", len(data.test))):
        recorded = _recorded(folder, f"{part} images", int)
        if recorded is not None and recorded != count:
            return f"{counted(recorded, f'{part} image')} then, {count:,} now"
    return "other images, labels or classes"


def _recorded(folder: Path, key: str, kind: type[_Value]) -> _Value | None:
    file = folder / DATA_FILE
    try:
        found = read_json(file, "record of data")[key]
        if not isinstance(found, kind):
            raise TypeError(f"{key!r} is {shown(found)}, not of the type {kind.__name__}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"Expected a record of data, as `train` and `tune` write it. Received: {str(file)!r} "
            f"({type(error).__name__}: {error}). Give --data."
        ) from error
    return found


def data_option(source: str) -> str:
    """The `--data` of a command line that names data, for a shell in this working directory."""
    if source.startswith(_FOLDER):
        path = Path(source.removeprefix(_FOLDER))
        if path.is_absolute() and path.is_relative_to(Path.cwd()):
            source = f"{_FOLDER}{path.relative_to(Path.cwd())}"
    return f"--data {shlex.quote(source)}"
