"""The end of a run: evaluate and export what training left."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_inception.cost.layers import network_cost
from keras_inception.data.splits import ImageData
from keras_inception.data.stream import Stream, evaluation_batches, network_size, sample_pixels
from keras_inception.evaluation.scores import Evaluation, batch_scores, evaluate_scores
from keras_inception.files import (
    BEST_FILE,
    DATA_FILE,
    METRICS_FILE,
    MODEL_FILE,
    RECIPE_FILE,
    REPORT_FILE,
    SCAN_FILE,
    SNAPSHOT_FOLDER,
    SPEC_FILE,
    aside,
    discard,
    write_text,
)
from keras_inception.locks import LOCK_FILE
from keras_inception.packages import is_installed
from keras_inception.runtimes.description import (
    CARD_FILE,
    describe_documents,
    documents_of,
    model_card,
)
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.training.progress import Progress, TrainingInterruptedError
from keras_inception.training.signals import StopSignals

SAVED_MODEL_FOLDER = "saved_model"
_PARITY_IMAGES = 32


def finish_run(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    progress: Progress,
    *,
    signals: StopSignals,
    report: Callable[[str], None],
) -> tuple[keras.Model, dict[str, Any]]:
    """Evaluate and export the run's model; metrics.json, the last file, says finished.

    Every part may be repeated: a run that is stopped or killed here starts the end again.

    Raises:
        TrainingInterruptedError: a signal came, and is heeded between two parts.
        OSError: the folder cannot be written.
    """
    started = time.monotonic()
    if recipe.patience:  # the last epochs were no better
        with aside(folder / MODEL_FILE) as path:
            shutil.copyfile(folder / BEST_FILE, path)
    model = keras.saving.load_model(folder / MODEL_FILE, compile=False)
    report("evaluating")
    held_out = evaluation_batches(data.test, spec, recipe.batch_size)
    scores, labels = batch_scores(model, _until_asked(held_out, signals))
    evaluation = evaluate_scores(scores, labels)
    _stop_if_asked(signals)
    if keras.backend.backend() == "tensorflow":
        report("exporting the SavedModel")
        with _disk_errors():
            _export(model, spec, data, recipe, folder)
        _stop_if_asked(signals)
    cost = network_cost(spec).total
    metrics = {
        **evaluation.summary(data.class_names),
        "macs": cost.macs,
        "params": cost.params,
        "best_epoch": progress.best_epoch,
        "seconds": round(progress.seconds + time.monotonic() - started, 1),
        "history": progress.history,
    }
    if is_installed("matplotlib") and is_installed("jinja2"):
        report("drawing the pictures and the report")
        _draw(spec, data, recipe, folder, evaluation, scores, metrics)
    document = json.dumps(metrics, indent=2) + "\n"
    facts = describe_documents(documents_of(folder) | {METRICS_FILE: document})
    command = "keras-inception predict FOLDER IMAGE"
    write_text(folder / CARD_FILE, model_card(facts, f"{spec.name} on {data.name}", command))
    write_text(folder / METRICS_FILE, document)
    clear(folder)
    return model, metrics


def _draw(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    evaluation: Evaluation,
    scores: np.ndarray,
    metrics: dict[str, Any],
) -> None:
    from keras_inception.evaluation import plots
    from keras_inception.reports.evaluation import worst_mistakes
    from keras_inception.reports.training import write_training_page

    curve, confusion = folder / "training_curve.png", folder / "confusion_matrix.png"
    with aside(curve) as path:
        plots.training_curve(metrics["history"], path)
    with aside(confusion) as path:
        plots.confusion_matrix(evaluation.confusion, data.class_names, path)
    epochs = len(metrics["history"]["loss"])
    shape = (*network_size(data.test, spec), spec.input_shape[2])
    write_training_page(
        folder / REPORT_FILE,
        spec,
        data,
        recipe,
        evaluation,
        worst_mistakes(scores, data.test, data.class_names, shape=shape),
        facts={
            "epochs" if epochs != 1 else "epoch": f"{epochs:,}",
            "best epoch": f"{metrics['best_epoch']:,}",
            "seconds": f"{metrics['seconds']:,.0f}",
        },
        curve=curve,
        confusion=confusion,
    )


def clear(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    with suppress(PermissionError):  # Windows keeps a file that is open
        (folder / LOCK_FILE).unlink(missing_ok=True)  # a later run finds the metrics and stops
    shutil.rmtree(folder / SNAPSHOT_FOLDER)
    (folder / SCAN_FILE).unlink(missing_ok=True)


def _export(
    model: keras.Model, spec: NetworkSpec, data: ImageData, recipe: Recipe, folder: Path
) -> None:
    from keras_inception.exporters.saved_model import export_saved_model

    discard(folder / SAVED_MODEL_FOLDER)  # of a process killed after the export
    samples = sample_pixels(data.test, spec, _PARITY_IMAGES)
    if keras.config.image_data_format() == "channels_first":
        samples = np.moveaxis(samples, 1, -1)
    export_saved_model(
        model,
        folder / SAVED_MODEL_FOLDER,
        samples=np.round(samples).astype(np.uint8),
        labels=data.class_names,
        documents={
            SPEC_FILE: spec.to_json(),
            RECIPE_FILE: recipe.to_json(),
            DATA_FILE: (folder / DATA_FILE).read_text(encoding="utf-8"),
        },
    )


def _until_asked(batches: Stream, signals: StopSignals) -> Stream:
    for batch in batches:
        _stop_if_asked(signals)
        yield batch


def _stop_if_asked(signals: StopSignals) -> None:
    if signals.received is not None:
        raise TrainingInterruptedError(
            "Stopped after the last step, as asked; evaluation and export remain.",
            by_hand=signals.by_hand,
        )


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Raise OSError for a full disk, for which TensorFlow has classes of its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        reason = os.strerror(errno.ENOSPC)
        if reason not in str(error):
            raise
        raise OSError(errno.ENOSPC, f"{reason} to export the model") from error
