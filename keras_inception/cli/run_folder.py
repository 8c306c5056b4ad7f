"""The folder of a training run: a new one, or that of the run to resume."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from keras_inception.cli.common import RUNS, console
from keras_inception.files import METRICS_FILE, SNAPSHOT_FOLDER
from keras_inception.spec.network import NetworkSpec

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData


def run_folder(out: Path | None, spec: NetworkSpec, data: ImageData, *, resume: bool) -> Path:
    """Return --out, or a new folder; with `resume` that of the unfinished run saved last.

    Raises:
        ValueError: there is nothing to resume.
    """
    name = _run_name(spec.name, data.name)
    if not resume:
        return out or RUNS / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if out is not None and out.exists():
        return out
    # A run that failed before its first snapshot cannot be resumed; a finished one has none, unless
    # it was killed after its last file: the same command then only removes them.
    kept = [] if out else [run for run in _runs_of(spec, data) if _has_snapshots(run)]
    runs = [run for run in kept if not (run / METRICS_FILE).exists()] or kept
    if not runs:
        where = str(out) if out else f"{RUNS / name}-*"
        raise ValueError(f"Expected an unfinished run. Received: none in {where!r}")
    return max(runs, key=_saved_at)


def print_resume(folder: Path) -> None:
    """Print from where a run is resumed, if it is."""
    document = _newest(folder)
    finished = (folder / METRICS_FILE).exists()
    if not document or finished or (progress := document.get("progress")) is None:
        return
    saved = datetime.fromtimestamp(document.get("saved_at", 0.0))
    console.print(
        f"Resuming [bold]{escape(str(folder))}[/] from step {progress['step']:,}, after epoch "
        f"{progress['epoch']}; saved {saved:%Y-%m-%d %H:%M:%S}."
    )


def _run_name(network: str, data: str) -> str:
    """Name a run's folder; "dir:/my/images" becomes "dir-my-images"."""
    plain = re.sub(r"[^\w.]+", "-", data).strip("-")
    return f"{network}-{plain}"


def _has_snapshots(run: Path) -> bool:
    return any((run / SNAPSHOT_FOLDER).glob("*"))


def _newest(run: Path) -> dict[str, Any] | None:
    """What the newest snapshot of a run records."""
    from keras_inception.training.snapshot import Snapshots

    return Snapshots(run / SNAPSHOT_FOLDER).newest_document()


def _saved_at(run: Path) -> float:
    """When a run was last saved, by its own record."""
    return float((_newest(run) or {}).get("saved_at", 0.0))


def _runs_of(spec: NetworkSpec, data: ImageData) -> Iterator[Path]:
    """The runs of a network and of data with the same contents."""
    from keras_inception.data.record import fingerprint, recorded_fingerprint

    contents = fingerprint(data)
    for run in sorted(RUNS.glob(f"{glob.escape(spec.name)}-*")):
        if re.search(r"-\d{8}-\d{6}$", run.name) and recorded_fingerprint(run) == contents:
            yield run
