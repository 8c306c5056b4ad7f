"""Train a network by a recipe, and write the folder of the run.

Files are written aside and renamed, so the folder holds no incomplete file. Its snapshots hold what
is needed to resume after a kill. A run that fails before its first step leaves no folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_inception.bounded import read_json
from keras_inception.cost.layers import network_cost
from keras_inception.data.record import identity as data_identity
from keras_inception.data.record import write_record
from keras_inception.data.splits import ImageData
from keras_inception.files import (
    LABELS_FILE,
    METRICS_FILE,
    MODEL_FILE,
    RECIPE_FILE,
    SNAPSHOT_FOLDER,
    SPEC_FILE,
    make_writable,
    remove_leftovers,
    require_empty,
    write_labels,
    write_text,
)
from keras_inception.images.conventions import preprocess_input
from keras_inception.keras_compat import without_tensorflow
from keras_inception.locks import only_run_in
from keras_inception.network.build import build_network
from keras_inception.network.endpoints import freeze_until
from keras_inception.new_folders import left_as_found, removed_if_unbegun
from keras_inception.runtimes.keras_model import load_any_keras
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.spec.validation import is_finite
from keras_inception.training.fine_tune import initialize
from keras_inception.training.finish import clear, finish_run
from keras_inception.training.loop import TrainingLoop
from keras_inception.training.losses import with_class_weights
from keras_inception.training.signals import StopSignals
from keras_inception.training.snapshot import Snapshots, require_same
from keras_inception.training.strategy import Strategy, check_strategy, is_chief, make_trainer
from keras_inception.wording import counted

# Height and width up to which the common size of all images becomes the network's.
_LARGEST_ADOPTED = 224


@dataclass(frozen=True)
class TrainResult:
    """The result of a run: the inference model, its folder, and the content of metrics.json."""

    model: keras.Model
    folder: Path
    metrics: dict[str, Any]


def fitted_to_data(spec: NetworkSpec, data: ImageData) -> NetworkSpec:
    """Return `spec` with the classes and channels of `data`, and with its image size if all agree.

    If the common size exceeds 224 pixels in a direction, the spec keeps its own size.
    """
    height, width, channels = data.image_shape
    size = spec.input_shape[:2]
    if height and width and max(height, width) <= max(_LARGEST_ADOPTED, *(s or 0 for s in size)):
        size = height, width
    return replace(spec, input_shape=(*size, channels), classes=len(data.class_names))


def train(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    strategy: Strategy = None,
    init: str | os.PathLike[str] | None = None,
    snapshot_steps: int | None = None,
    snapshot_minutes: float | None = 10.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
    report: Callable[[str], None] = lambda words: None,
    acknowledge: Callable[[int, int], None] | None = None,
) -> TrainResult:
    """Train the network of `spec` on `data` and write the run's folder.

    After each epoch the folder holds `model.keras` as it is then (with the averaged weights, if
    the recipe averages, and `unaveraged.keras` beside it), `best.keras`, the model of the epoch
    with the highest held-out accuracy, and `history.csv`; at the end also the SavedModel (under
    TensorFlow), `spec.json`, `recipe.json`, `labels.txt`, `metrics.json`, and, with the
    packages of the extra "report", `training_curve.png`, `confusion_matrix.png` and `report.html`.
    Called again with the folder of an unfinished run, it resumes from the newest snapshot. On one
    CPU device the final weights are bit for bit those of an uninterrupted run.

    Args:
        spec: the architecture; its auxiliary classifiers, if any, are trained but not saved.
        data: images and labels; classes and channels must be those of the spec. Images of
            another size are resized.
        recipe: how to train. Sets Keras's random seed.
        folder: new, empty, or of a run to resume. Several workers name the same one; only the
            chief writes.
        strategy: of `make_strategy`; None: one device.
        init: a .keras file with the initial weights; a classifier for another number of classes is
            reinitialized.
        snapshot_steps: steps between snapshots.
        snapshot_minutes: minutes between snapshots. Each epoch also ends with a snapshot.
        callbacks: further Keras callbacks, such as a progress display. They may end the run by
            `model.stop_training`. Their `model` has logits as outputs.
        verbose: 1 shows Keras's progress bar, 2 a line an epoch, 0 nothing.
        report: called with a description of each step that takes seconds, when it starts.
        acknowledge: called with the number of each SIGINT, SIGTERM and SIGHUP and the count of them
            so far, at once and in a thread of its own. The first stops the run after the step; a
            second does only what `acknowledge` does, and without it what it did before the run.

    Raises:
        ValueError: data, spec, recipe and strategy do not fit together, the folder holds something
            else or another run's snapshots, or another process trains in it.
        TrainingInterruptedError: SIGINT, SIGTERM or SIGHUP came, or another worker was lost.
        TrainingDivergedError: a loss or a weight is not finite.
        OSError: the folder cannot be written.
    """
    folder, init = Path(folder), None if init is None else Path(init)
    check_strategy(recipe, strategy)
    chief = is_chief(strategy)
    # How a folder is resumed; `chief` alone writes.
    # 1. metrics.json and no snapshots: the run has finished, and is refused.
    # 2. metrics.json and snapshots: it was killed in between, and has finished: clear them.
    # 3. Snapshots: the newest that can be read; damaged newer ones are set aside, and if none can
    #    be read, the run is refused. It must be of the same spec, recipe, data and initial weights.
    #    a. The last epoch has finished: evaluate and export.
    #    b. Otherwise: train on from its step.
    # 4. No snapshot: train from `init` or from scratch.
    # In 3 and 4 the texts of the run, which may be damaged, are written again.
    with ExitStack() as stack:
        prepare_run(spec, data, recipe, folder, strategy=strategy)
        if chief:
            stack.enter_context(_locked(folder))
        if (folder / METRICS_FILE).exists():
            return _finished(spec, data, recipe, folder, init, chief=chief)
        signals = stack.enter_context(StopSignals(acknowledge))
        if chief:
            _begin_folder(folder)
        snapshots = Snapshots(
            folder / SNAPSHOT_FOLDER, every_steps=snapshot_steps, every_minutes=snapshot_minutes
        )
        loop = _new_or_restored_loop(
            spec,
            data,
            recipe,
            folder,
            snapshots,
            strategy=strategy,
            init=init,
            callbacks=callbacks,
            verbose=verbose,
            report=report,
        )
        if chief:
            _write_documents(folder, spec, data, recipe)
        loop.run(signals)
        if not chief:
            trained = loop.trainer.deployed()
            return TrainResult(trained, folder, {"history": loop.progress.history})
        model, metrics = finish_run(
            spec, data, recipe, folder, loop.progress, signals=signals, report=report
        )
        return TrainResult(model, folder, metrics)


def _new_or_restored_loop(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    snapshots: Snapshots,
    *,
    strategy: Strategy,
    init: Path | None,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: int,
    report: Callable[[str], None],
) -> TrainingLoop:
    """The loop of a run, in the state of its newest snapshot if there is one."""
    chief = is_chief(strategy)
    identity = _identity(spec, data, recipe, init)
    snapshot = snapshots.newest(set_aside=chief)
    if snapshot is not None:
        require_same(snapshot.document.get("identity", {}), identity, "run", folder)
    with without_tensorflow():
        keras.utils.set_random_seed(recipe.seed)
    report("building the network")
    trainer = make_trainer(
        spec,
        with_class_weights(recipe, data),
        strategy,
        total_steps=recipe.total_steps(len(data.train)),
    )
    if init is not None and snapshot is None:  # which holds all weights
        initialize(trainer.model, init, spec)
    loop = TrainingLoop(
        trainer,
        data,
        folder=folder if chief else None,
        snapshots=snapshots,
        identity=identity,
        callbacks=callbacks,
        verbose=verbose if chief else 0,
        report=report,
    )
    if snapshot is not None:
        loop.restore(snapshot)
    return loop


def _finished(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    init: Path | None,
    *,
    chief: bool,
) -> TrainResult:
    """The result of a run that was killed after its metrics were written."""
    snapshot = Snapshots(folder / SNAPSHOT_FOLDER).newest(set_aside=False)
    if snapshot is not None:
        identity = _identity(spec, data, recipe, init)
        require_same(snapshot.document.get("identity", {}), identity, "run", folder)
    metrics = _read_metrics(folder / METRICS_FILE)
    model = load_any_keras(folder / MODEL_FILE)
    if chief:
        clear(folder)
    return TrainResult(model, folder, metrics)


def _read_metrics(path: Path) -> dict[str, Any]:
    metrics = read_json(path, "record of a run")
    numbers = ("top_1", "top_5", "seconds")
    by_class = metrics.get("per_class") if isinstance(metrics, dict) else None
    if not isinstance(by_class, dict) or not all(is_finite(metrics.get(key)) for key in numbers):
        raise ValueError(
            f"Expected the metrics of a run, with {', '.join(numbers)}. Received: {str(path)!r} of "
            "another shape. Choose another folder."
        )
    return metrics


def prepare_run(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    *,
    strategy: Strategy = None,
) -> None:
    """Refuse what cannot be trained, and a folder that cannot be used, before anything is built.

    Raises:
        ValueError: data, spec, recipe and strategy do not fit together, or the folder cannot be
            written or holds something else than a run that can go on.
    """
    if spec.classes != len(data.class_names) or spec.input_shape[2] != data.image_shape[2]:
        raise ValueError(
            f"Expected a spec for {counted(len(data.class_names), 'class')} and "
            f"{counted(data.image_shape[2], 'channel')}. Received: classes={spec.classes}, "
            f"input_shape={spec.input_shape}. `fitted_to_data(spec, data)` makes one."
        )
    network_cost(spec, auxiliary=bool(spec.aux))  # refuses a size that does not fit
    pixel = np.zeros((1, 1, data.image_shape[2]))
    preprocess_input(pixel, "channels_last", convention=spec.pixels)  # refuses grey for RGB
    weights = recipe.class_weights
    if weights and weights != "balanced" and len(weights) != spec.classes:
        raise ValueError(
            f"Expected a class weight for each of {counted(spec.classes, 'class')}. "
            f"Received: class_weights={weights}"
        )
    if len(data.train) < recipe.batch_size:
        raise ValueError(
            f"Expected a batch of at most {len(data.train)}, the number of training images. "
            f"Received: batch_size={recipe.batch_size}"
        )
    check_strategy(recipe, strategy)
    if recipe.freeze_until:
        freeze_until(build_network(spec), recipe.freeze_until)  # refuses an unknown endpoint
    with left_as_found(folder):
        _prepare_folder(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is removed if the run fails before its first step."""
    with removed_if_unbegun(folder), only_run_in(folder):
        _prepare_folder(folder)  # again, now that nobody else can change it
        yield


def _prepare_folder(folder: Path) -> None:
    make_writable(folder)
    finished = (folder / METRICS_FILE).exists()
    if finished and not (folder / SNAPSHOT_FOLDER).is_dir():
        raise ValueError(
            "Expected a new or empty folder, or an unfinished run. Received: "
            f"{str(folder)!r}, which holds files of a finished run. Choose another folder."
        )
    if not (folder / SNAPSHOT_FOLDER).is_dir():
        require_empty(folder)


def _begin_folder(folder: Path) -> None:
    snapshots = folder / SNAPSHOT_FOLDER
    snapshots.mkdir(exist_ok=True)
    remove_leftovers(folder)
    remove_leftovers(snapshots)


def _write_documents(folder: Path, spec: NetworkSpec, data: ImageData, recipe: Recipe) -> None:
    """Write the texts of a run; a resumed run may have lost them."""
    write_text(folder / SPEC_FILE, spec.to_json())
    write_text(folder / RECIPE_FILE, recipe.to_json())
    write_labels(folder / LABELS_FILE, data.class_names)
    write_record(folder, data)


def _identity(
    spec: NetworkSpec, data: ImageData, recipe: Recipe, init: Path | None
) -> dict[str, Any]:
    """What a snapshot belongs to. The strategy is not part of it: every one takes the same step."""
    return {
        "spec": json.loads(spec.to_json()),
        "recipe": json.loads(recipe.to_json()),
        "initial weights": None if init is None else _digest(init),
        "data": data_identity(data),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
