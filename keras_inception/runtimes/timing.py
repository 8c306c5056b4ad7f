"""Time exported networks, and the table of the times: written here, read by `tune`.

Imports the runtimes alone, and no Keras: it also runs on a board.
"""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from keras_inception.bounded import Allowance, read_file, shown
from keras_inception.files import SPEC_FILE, csv_text, write_text
from keras_inception.runtimes.exported import open_exported, runtime_of
from keras_inception.runtimes.probe import check_exported
from keras_inception.spec.validation import (
    from_fields,
    require_integers,
    require_numbers,
    unexpected,
)
from keras_inception.wording import counted

PRECISIONS = ("float32", "bfloat16", "float16", "int8", "uint8")
TABLE_FILE = "timings.csv"
_ROUNDS = 15
_ROUND_SECONDS = 0.01
_LEAST_CALLS = 3
_MOST_BYTES = 2**24
_MOST_LETTERS = 200
# Processor flags for low-precision arithmetic.
_FLAGS = ("avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under which a network is timed.

    Attributes:
        runtime: "saved_model", "onnx", "openvino" or "litert".
        precision: "float32", "bfloat16", "float16", "int8", or "uint8" with pixels of 8 bits.
        batch_size: images in a call.
        threads: of the runtime; None: not known.
        device: the machine, in words.
    """

    runtime: str = "saved_model"
    precision: str = "float32"
    batch_size: int = 1
    threads: int | None = None
    device: str = ""

    def __post_init__(self) -> None:
        require_integers(self, "batch_size", *(() if self.threads is None else ("threads",)))
        for label in ("runtime", "precision", "device"):
            value = getattr(self, label)
            if not isinstance(value, str) or not value.isprintable() or len(value) > _MOST_LETTERS:
                raise unexpected(self, label, f"text of at most {_MOST_LETTERS} letters")

    def __str__(self) -> str:
        parts = [f"{self.runtime} {self.precision}", f"batch {self.batch_size}"]
        if self.threads is not None:
            parts.append(counted(self.threads, "thread"))
        return ", ".join(parts + [self.device] * bool(self.device))


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A row of a table of timings.

    Attributes:
        model: the exported network's file or folder, relative to the table's folder.
        conditions: under which it was timed.
        ms_an_image: milliseconds of a call, divided by the images of its batch.
    """

    model: str
    conditions: Conditions
    ms_an_image: float

    def __post_init__(self) -> None:
        require_numbers(self, "ms_an_image")


_CONDITIONS = tuple(item.name for item in fields(Conditions))
COLUMNS = ("model", *_CONDITIONS, "ms_an_image")


def time_models(
    paths: Sequence[Path],
    *,
    batch_size: int = 1,
    threads: int | None = None,
    report: Callable[[str], None] = lambda words: None,
) -> dict[Path, tuple[Conditions, float]]:
    """Time exported networks in turns, so that background load affects all of them alike.

    Each round calls each network for about 10 ms and takes its fastest call, which other programs
    disturb least; the time of a network is the median of its rounds. Pixels are random.

    Args:
        paths: of SavedModels, .tflite, .onnx and .xml files.
        batch_size: images in a call.
        threads: of the runtime; None: its own choice, which is written as one for each core.
        report: is given words for each step as it begins.

    Returns:
        For each path its conditions, and milliseconds an image.

    Raises:
        MissingPackageError: a runtime is not installed.
        ValueError: no exported network, or a damaged one.
    """
    calls = []
    for number, path in enumerate(paths, 1):
        report(f"loading {path.name} ({number} of {len(paths)})")
        if runtime_of(path) is not None:  # `open_exported` refuses what is none
            check_exported(path)
        scores, shape, _ = open_exported(path, threads=threads)
        pixels = np.random.default_rng(0).uniform(0, 255, (batch_size, *shape))
        calls.append(_round_of(scores, pixels.astype(np.float32)))
    report(f"timing {len(paths)} networks")
    rounds = [[call() for call in calls] for _ in range(_ROUNDS)]
    device = device_name()
    return {
        path: (
            Conditions(
                runtime=runtime_of(path) or "",
                precision=precision_of(path),
                batch_size=batch_size,
                threads=threads or os.cpu_count(),
                device=device,
            ),
            statistics.median(seconds) * 1e3 / batch_size,
        )
        for path, seconds in zip(paths, zip(*rounds, strict=True), strict=True)
    }


def _round_of(scores: Callable[[np.ndarray], Any], pixels: np.ndarray) -> Callable[[], float]:
    """A function that calls a network for about 10 ms, and returns the fastest call's seconds."""
    for _ in range(3):  # the first calls allocate and compile
        scores(pixels)

    def fastest() -> float:
        best, calls, end = math.inf, 0, time.perf_counter() + _ROUND_SECONDS
        while calls < _LEAST_CALLS or time.perf_counter() < end:
            started = time.perf_counter()
            scores(pixels)
            best, calls = min(best, time.perf_counter() - started), calls + 1
        return best

    return fastest


def precision_of(path: Path) -> str:
    """The precision at the end of a name, as `keras-inception export` writes it."""
    ending = path.stem.rpartition("_")[2]
    return ending if ending in PRECISIONS else "float32"


def spec_of(model: Path) -> Path | None:
    """The spec of an exported network; None: there is none.

    It lies in a SavedModel's folder as spec.json, or beside any export as spec.json or under its
    name: network_0.json of network_0_int8.tflite.
    """
    stem = model.stem.removesuffix(f"_{precision_of(model)}")
    places = (model.with_name(f"{stem}.json"), model / SPEC_FILE, model.with_name(SPEC_FILE))
    return next((place for place in places if place.is_file()), None)


def write_timings(path: Path, timed: dict[Path, tuple[Conditions, float]]) -> None:
    """Write a table of timings.

    Args:
        path: of the CSV file.
        timed: of `time_models`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for model, (conditions, milliseconds) in timed.items():
        name = Path(os.path.relpath(model, path.parent)).as_posix()
        if name != csv_text(name):  # it is read again as the path of the same file
            name = f"./{name}"
        writer.writerow([name, *astuple(conditions), f"{milliseconds:.6g}"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def read_timings(path: Path) -> list[Timing]:
    """Read a table that `write_timings` wrote, or one with the same columns in any order.

    Raises:
        ValueError: no such table, or refused values.
        OSError: the file cannot be read.
    """
    text = read_file(path, Allowance(path, _MOST_BYTES)).decode("utf-8-sig", errors="replace")
    rows = csv.DictReader(io.StringIO(text))
    columns = tuple(rows.fieldnames or ())
    if sorted(columns) != sorted(COLUMNS):
        raise ValueError(
            f"Expected a table of timings with the columns {', '.join(COLUMNS)}. "
            f"Received: {shown(', '.join(columns))} in {str(path)!r}"
        )
    found = []
    for number, row in enumerate(rows, 2):
        try:
            found.append(_timing(row))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{error} In line {number} of {str(path)!r}.") from error
    return found


def _timing(row: dict[str, Any]) -> Timing:
    if None in row or None in row.values():
        raise ValueError(f"Expected {len(COLUMNS)} cells. Received: another number.")
    values = {name: _number(row[name], name) for name in ("batch_size", "threads", "ms_an_image")}
    conditions = {name: values.get(name, row[name]) for name in _CONDITIONS}
    return Timing(
        model=row["model"],
        conditions=from_fields(Conditions, conditions),
        ms_an_image=values["ms_an_image"],
    )


def _number(text: str, column: str) -> Any:
    try:
        return float(text) if column == "ms_an_image" else int(text)
    except (ValueError, TypeError):
        raise ValueError(f"Expected a number of {column}. Received: {shown(text)}.") from None


def device_name() -> str:
    """The processor's name, its low-precision flags (on Linux) and its number of cores."""
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    info, board = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    if board.is_file():
        names.append(board.read_text(encoding="utf-8", errors="replace").strip("\0 \n"))
    name = names[0] if names else platform.processor() or platform.machine()
    return " ".join([name, *(flag for flag in _FLAGS if flag in text)])
