"""The export as a job: formats written aside, checked, timed side by side, the fastest chosen."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np

from keras_inception.exporters.calibration import Images
from keras_inception.exporters.formats import (
    FILES,
    FORMATS,
    PRECISIONS,
    Format,
    require_packages,
    write_format,
)
from keras_inception.exporters.inference_graph import (
    ComputeDtype,
    merge_parallel_convs,
    require_tensorflow,
)
from keras_inception.exporters.parity import Agreement, agreement, require_agreement
from keras_inception.exporters.saved_model import require_same_answers, write_saved_model
from keras_inception.files import LABELS_FILE, contents_aside, make_writable, require_empty
from keras_inception.network.build import inference_model
from keras_inception.runtimes.keras_model import Scores, network_input
from keras_inception.runtimes.load import load_network

_TIMED_CALLS = 15
_SAVED_MODELS: dict[str, ComputeDtype] = {
    "saved_model": "float32",
    "saved_model-bfloat16": "bfloat16",
}


@dataclass(frozen=True)
class Exported:
    """One row of an export's table.

    Attributes:
        path: of the result; None where it is not kept.
        size: bytes on disk.
        accuracy: share of right first classes on the checked images; None without the truth.
        milliseconds: for one image, median of calls one image at a time.
    """

    kind: str
    path: Path | None
    size: int
    agreement: Agreement
    accuracy: float | None
    milliseconds: float


def export_model(
    model: keras.Model,
    folder: Path,
    kinds: Sequence[Format],
    *,
    images: Images,
    labels: Sequence[str] | None = None,
    features: Sequence[str] = ("avg_pool",),
    documents: Mapping[str, str] = MappingProxyType({}),
    fastest: bool = False,
    merge: bool = False,
) -> list[Exported]:
    """Write the model in each of the formats, each checked against the Python model.

    Args:
        model: a trained model of this package.
        folder: a new or empty folder for the results, and for a labels.txt.
        kinds: the formats.
        images: for calibration and check.
        labels: the names of the classes; default their numbers.
        features: endpoints of the SavedModel's signature `features`.
        documents: texts to lie beside each SavedModel, by file name.
        fastest: keep only the format that answers one image soonest on this machine, of those
            that agree with the model.
        merge: apply `merge_parallel_convs`.

    Returns:
        A row for the Python model ("keras", in graph mode), then one for each format.

    Raises:
        ValueError: another backend than TensorFlow, the folder holds files, a missing package, or
            a format that differs too much: nothing of that format is left.
    """
    require_tensorflow("export")
    require_empty(folder)
    for kind in kinds:
        require_packages(kind)
    model = inference_model(model)
    make_writable(folder)
    with contents_aside(folder) as beside:
        served = merge_parallel_convs(model) if merge else model
        if labels is not None:
            (beside / LABELS_FILE).write_text("\n".join(labels) + "\n", encoding="utf-8")
        for kind in kinds:
            path = beside / FILES[kind]
            if kind in _SAVED_MODELS:
                write_saved_model(
                    served,
                    path,
                    samples=images.check,
                    labels=labels,
                    features=features,
                    documents=documents,
                    precision=_SAVED_MODELS[kind],
                )
            else:
                write_format(served, path, kind, calibration=images.calibration)
        rows = _table(model, beside, kinds, images)
        refusals = {row.kind: _refusal(row, model, images, labels) for row in rows}
        kept = [row for row in rows[1:] if not refusals[row.kind]]
        if fastest and kept:
            kept = [min(kept, key=lambda row: row.milliseconds)]
        for row in rows:
            if row not in kept and row.path is not None:
                _remove(row.path)
        refused = next(filter(None, refusals.values()), None)
        if refused and not kept:
            raise refused
    if refused and not fastest:
        names = ", ".join(row.kind for row in kept)
        raise ValueError(f"{refused} Kept in {str(folder)!r}: {names}.") from refused
    return [
        replace(row, path=folder / row.path.name if row in kept and row.path else None)
        for row in rows
    ]


def available_formats() -> tuple[Format, ...]:
    """The formats whose packages are installed."""
    found = []
    for kind in FORMATS:
        try:
            require_packages(kind)
        except ValueError:
            continue
        found.append(kind)
    return tuple(found)


def _table(
    model: keras.Model, folder: Path, kinds: Sequence[Format], images: Images
) -> list[Exported]:
    def reference(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict_on_batch(network_input(model, pixels)))

    paths = {kind: folder / FILES[kind] for kind in kinds}
    runs: dict[str, Scores] = {"keras": reference}
    runs |= {kind: load_network(path).scores for kind, path in paths.items()}
    expected = _all_scores(reference, images.check)
    times = _interleaved_times(runs, images.check[:1].astype(np.float32))
    rows = []
    for kind, scores in runs.items():
        received = expected if kind == "keras" else _all_scores(scores, images.check)
        found = agreement(expected, received)
        path = paths.get(kind)  # type: ignore[call-overload]
        accuracy = None
        if images.truth is not None:
            accuracy = float(np.mean(received.argmax(axis=1) == images.truth))
        size = 0 if path is None else _size(path)
        rows.append(Exported(kind, path, size, found, accuracy, times[kind]))
    return rows


def _refusal(
    row: Exported, model: keras.Model, images: Images, labels: Sequence[str] | None
) -> ValueError | None:
    """Why a format is not kept, if it is not."""
    precision = PRECISIONS.get(row.kind, "float32")  # type: ignore[call-overload]
    try:
        require_agreement(row.agreement, row.kind, precision)
        if row.kind in _SAVED_MODELS and row.path:
            require_same_answers(model, row.path, images.check, labels, _SAVED_MODELS[row.kind])
    except ValueError as error:
        return error
    return None


def _all_scores(scores: Scores, images: np.ndarray) -> np.ndarray:
    batches = [images[start : start + 32] for start in range(0, len(images), 32)]
    return np.concatenate([scores(batch.astype(np.float32)) for batch in batches])


def _interleaved_times(runs: dict[str, Scores], image: np.ndarray) -> dict[str, float]:
    """Median milliseconds of a call; one call of each in turn, so that all share the weather."""
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    for turn in range(_TIMED_CALLS + 3):
        for kind, scores in runs.items():
            started = time.perf_counter()
            scores(image)
            if turn >= 3:  # the first calls prepare
                times[kind].append((time.perf_counter() - started) * 1e3)
    return {kind: statistics.median(values) for kind, values in times.items()}


def _with_parts(path: Path) -> list[Path]:
    """OpenVINO keeps its weights in a second file."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def _size(path: Path) -> int:
    files = [*path.rglob("*")] if path.is_dir() else _with_parts(path)
    return sum(file.stat().st_size for file in files if file.is_file())


def _remove(path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir():
        shutil.rmtree(path)
        return
    for part in _with_parts(path):
        part.unlink(missing_ok=True)
