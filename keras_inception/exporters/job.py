"""Export to several formats: write, check against the model, time in turns, keep the fastest."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from keras_inception.exporters.calibration import Images, folder_images, recorded_images
from keras_inception.exporters.formats import (
    FILES,
    FORMATS,
    PRECISIONS,
    Format,
    UnsupportedNetworkError,
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
from keras_inception.files import (
    DATA_FILE,
    LABELS_FILE,
    RECIPE_FILE,
    SPEC_FILE,
    contents_aside,
    keras_file,
    read_labels,
    require_empty,
    write_labels,
    write_text,
)
from keras_inception.network.nested import flat_classifier
from keras_inception.packages import MissingPackageError
from keras_inception.runtimes.description import CARD_FILE, describe_documents, model_card
from keras_inception.runtimes.exported import Scores
from keras_inception.runtimes.keras_model import image_shape, load_keras, network_input
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
        milliseconds: for one image, of the median call.
    """

    kind: str
    path: Path | None
    size: int
    agreement: Agreement
    accuracy: float | None
    milliseconds: float


class RefusedFormatsError(ValueError):
    """Some formats were refused. `rows` are those of all that were measured, as of `export`."""

    def __init__(self, message: str, rows: list[Exported]) -> None:
        super().__init__(message)
        self.rows = rows


# Reads images when the shape and the labels of the model are known.
ReadImages = Callable[[tuple[int, int, int], Sequence[str] | None], Images]


@dataclass(frozen=True)
class _Job:
    """What is exported: the model, and what goes with it."""

    model: keras.Model
    images: Images
    labels: Sequence[str] | None
    features: Sequence[str] | None
    documents: Mapping[str, str]


def export(
    model: keras.Model | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    formats: Sequence[Format] = ("saved_model",),
    *,
    images: Images | ReadImages | np.ndarray | str | os.PathLike[str] | None = None,
    labels: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    fastest: bool = False,
    merge: bool = False,
    batch_size: int = 1,
    report: Callable[[str], None] | None = None,
) -> list[Exported]:
    """Write a model in each of the formats, each checked against the Python model.

    Args:
        model: a trained model of this package, a run's folder, or a .keras file. Beside a file,
            labels.txt names the classes, and spec.json, recipe.json and data.json go into each
            SavedModel.
        folder: a new or empty folder for the results, and for a labels.txt.
        formats: see `available_formats`.
        images: for the check and for int8's calibration: uint8 N x h x w x C of the model's size,
            a folder of image files, or a function of the model's shape and labels that reads
            them; default the data that a run recorded beside the model, and the bundled sample
            where it recorded none or they are gone.
        labels: the names of the classes; default those beside the model, or their numbers.
        features: endpoints of the SavedModel's signature `features`; default the one before the
            classifier.
        fastest: keep only the format with the lowest time an image on this machine, of those that
            agree with the model.
        merge: apply `merge_parallel_convs`.
        batch_size: images in each timed call.
        report: is given words for each step as it begins.

    Returns:
        A row for the Python model ("keras", in graph mode), then one for each format.

    Raises:
        MissingPackageError: a format needs an optional package.
        RefusedFormatsError: a format that differs too much: nothing of it is left, and the others
            are kept.
        ValueError: another backend than TensorFlow, the folder holds files, or no format agrees.
    """
    require_tensorflow("export")
    if batch_size < 1:
        raise ValueError(f"Expected a batch size of 1 or more. Received: batch_size={batch_size}")
    folder = Path(folder)
    require_empty(folder)
    for kind in formats:
        require_packages(kind)
    job = _job(model, images, labels, features)
    with contents_aside(folder) as beside:
        say = report or (lambda words: None)
        refusals = _write(job, beside, formats, merge, say)
        written = [kind for kind in formats if kind not in refusals]
        rows = _table(job, beside, written, batch_size, say)
        refusals |= {row.kind: _refusal(row, job) for row in rows}
        kept = _kept(rows, refusals, fastest)
        for row in rows:
            if row not in kept and row.path is not None:
                _remove(row.path)
        refused = [error for error in refusals.values() if error]
        if refused and not kept:
            raise refused[0]
        write_text(beside / CARD_FILE, _card(job, kept))
    rows = [
        replace(row, path=folder / row.path.name if row in kept and row.path else None)
        for row in rows
    ]
    if refused and not fastest:
        names = ", ".join(row.kind for row in kept)
        reasons = " ".join(map(str, refused))
        raise RefusedFormatsError(f"{reasons} Kept in {str(folder)!r}: {names}.", rows)
    return rows


def _job(
    model: keras.Model | str | os.PathLike[str],
    images: Images | ReadImages | np.ndarray | str | os.PathLike[str] | None,
    labels: Sequence[str] | None,
    features: Sequence[str] | None,
) -> _Job:
    documents: dict[str, str] = {}
    recorded: Path | None = None  # nothing is recorded of a model in memory
    if isinstance(model, keras.Model):
        network = flat_classifier(model)
    else:
        path = keras_file(Path(model))
        recorded = path.parent
        texts = {name: _text_beside(path, name) for name in (SPEC_FILE, RECIPE_FILE, DATA_FILE)}
        network, names = load_keras(path), path.with_name(LABELS_FILE)
        labels = read_labels(names) if labels is None and names.is_file() else labels
        documents = {name: text for name, text in texts.items() if text is not None}
    shape = image_shape(network)
    if images is None:
        images = recorded_images(recorded, shape, labels)
    elif callable(images):
        images = images(shape, labels)
    elif isinstance(images, np.ndarray):
        images = Images(images, images)
    elif not isinstance(images, Images):
        images = folder_images(Path(images), shape, labels)
    return _Job(network, images, labels, features, documents)


def _text_beside(path: Path, name: str) -> str | None:
    file = path.with_name(name)
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _write(
    job: _Job,
    folder: Path,
    formats: Sequence[Format],
    merge: bool,
    report: Callable[[str], None],
) -> dict[str, ValueError | None]:
    """Write each format; returns the reasons why some cannot be."""
    refusals: dict[str, ValueError | None] = {}
    served = merge_parallel_convs(job.model) if merge else job.model
    if job.labels is not None:
        write_labels(folder / LABELS_FILE, job.labels)
    for number, kind in enumerate(formats, 1):
        report(f"writing {kind} ({number} of {len(formats)})")
        if kind not in _SAVED_MODELS:
            try:
                write_format(
                    served,
                    folder / FILES[kind],
                    kind,
                    calibration=job.images.calibration,
                    labels=job.labels,
                )
            except UnsupportedNetworkError as error:
                refusals[kind] = error
            continue
        write_saved_model(
            served,
            folder / FILES[kind],
            samples=job.images.check,
            labels=job.labels,
            features=job.features,
            documents=job.documents,
            precision=_SAVED_MODELS[kind],
        )
    return refusals


def _card(job: _Job, kept: Sequence[Exported]) -> str:
    """The README.md of an export."""
    facts = describe_documents(job.documents)
    facts |= {
        row.kind: f"{row.path.name}, {row.size / 1e6:.1f} MB, {row.milliseconds:.2f} ms an image, "
        f"largest difference from the model {row.agreement.largest_difference:.1e}"
        for row in kept
        if row.path
    }
    command = "keras-inception predict FOLDER/FORMAT IMAGE"
    return model_card(facts, f"Exports of {job.model.name}", command)


def _kept(
    rows: Sequence[Exported], refusals: Mapping[str, ValueError | None], fastest: bool
) -> list[Exported]:
    kept = [row for row in rows[1:] if not refusals[row.kind]]
    return [min(kept, key=lambda row: row.milliseconds)] if fastest and kept else kept


def available_formats() -> tuple[Format, ...]:
    """The formats whose packages are installed."""
    found = []
    for kind in FORMATS:
        try:
            require_packages(kind)
        except MissingPackageError:
            continue
        found.append(kind)
    return tuple(found)


def _table(
    job: _Job, folder: Path, kinds: Sequence[Format], batch_size: int, report: Callable[[str], None]
) -> list[Exported]:
    def reference(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(job.model.predict_on_batch(network_input(job.model, pixels)))

    images = job.images
    paths = {kind: folder / FILES[kind] for kind in kinds}
    runs: dict[str, Scores] = {"keras": reference}
    runs |= {kind: load_network(path, is_own=True).scores for kind, path in paths.items()}
    expected = _all_scores(reference, images.check)
    report("timing the formats in turn")
    batch = np.resize(images.check, (batch_size, *images.check.shape[1:]))  # repeats them
    times = _interleaved_times(runs, batch.astype(np.float32))
    rows = []
    for number, (kind, scores) in enumerate(runs.items()):
        report(f"checking {kind} ({number} of {len(kinds)})")
        received = expected if kind == "keras" else _all_scores(scores, images.check)
        found = agreement(expected, received)
        path = paths.get(kind)  # type: ignore[call-overload]
        accuracy = None
        if images.truth is not None:
            accuracy = float(np.mean(received.argmax(axis=1) == images.truth))
        size = 0 if path is None else _size(path)
        rows.append(Exported(kind, path, size, found, accuracy, times[kind]))
    return rows


def _refusal(row: Exported, job: _Job) -> ValueError | None:
    """Why a format is not kept, if it is not."""
    precision = PRECISIONS.get(row.kind, "float32")  # type: ignore[call-overload]
    try:
        require_agreement(row.agreement, row.kind, precision)
        if row.kind in _SAVED_MODELS and row.path:
            precision = _SAVED_MODELS[row.kind]
            require_same_answers(job.model, row.path, job.images.check, job.labels, precision)
    except ValueError as error:
        return error
    return None


def _all_scores(scores: Scores, images: np.ndarray) -> np.ndarray:
    batches = [images[start : start + 32] for start in range(0, len(images), 32)]
    return np.concatenate([scores(batch.astype(np.float32)) for batch in batches])


def _interleaved_times(runs: dict[str, Scores], images: np.ndarray) -> dict[str, float]:
    """Median milliseconds an image; in turns, so that background load affects all alike."""
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    for turn in range(_TIMED_CALLS + 3):
        for kind, scores in runs.items():
            scores(images)  # until the threads of the one before are idle
            started = time.perf_counter()
            scores(images)
            if turn >= 3:  # the first calls allocate and compile
                times[kind].append((time.perf_counter() - started) * 1e3)
    return {kind: statistics.median(values) / len(images) for kind, values in times.items()}


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
