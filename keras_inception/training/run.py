"""Train a network by a recipe, and leave a folder that holds everything about it.

The line ends here: spec -> cost -> network -> train -> evaluate -> export. What is written is
written aside and renamed, so that a run folder never holds half a file; what is needed to go on
after a kill is in the folder's snapshots.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_inception.cost.layers import network_cost
from keras_inception.data.record import identity as data_identity
from keras_inception.data.record import write_record
from keras_inception.data.splits import ImageData
from keras_inception.data.stream import evaluation_batches, sample_pixels
from keras_inception.evaluation import plots
from keras_inception.evaluation.scores import evaluate_batches
from keras_inception.exporters.saved_model import export_saved_model
from keras_inception.files import (
    DATA_FILE,
    LABELS_FILE,
    METRICS_FILE,
    MODEL_FILE,
    PARTIAL,
    RECIPE_FILE,
    SCAN_FILE,
    SNAPSHOT_FOLDER,
    SPEC_FILE,
    aside,
    make_writable,
    require_empty,
    write_labels,
    write_text,
)
from keras_inception.images.conventions import preprocess_input
from keras_inception.locks import LOCK_FILE, only_run_in
from keras_inception.network.build import build_network
from keras_inception.network.endpoints import freeze_until
from keras_inception.packages import is_installed
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.training import keras_fit
from keras_inception.training.fine_tune import initialize
from keras_inception.training.loop import Progress, StopSignals, TrainingLoop
from keras_inception.training.snapshot import Snapshots, require_same
from keras_inception.training.step import Trainer, check_strategy
from keras_inception.training.strategy import is_chief

_PARITY_IMAGES = 32
# Height and width up to which the common size of all images becomes the network's.
_LARGEST_ADOPTED = 224


@dataclass(frozen=True)
class TrainResult:
    """What a run gave: the inference model, its folder and its numbers (as in metrics.json)."""

    model: keras.Model
    folder: Path
    metrics: dict[str, Any]


def fitted_to_data(spec: NetworkSpec, data: ImageData) -> NetworkSpec:
    """`spec` with the classes and channels of `data`, and its image size if all have one size.

    Photographs of one size, more than 224 pixels in a direction, leave the spec its own size.
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
    strategy: tf.distribute.Strategy | None = None,
    init: str | os.PathLike[str] | None = None,
    snapshot_steps: int | None = None,
    snapshot_minutes: float | None = 10.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainResult:
    """Train the network of `spec` on `data` and write the run's folder.

    After each epoch the folder holds `model.keras` with the weights of then (averaged if the
    recipe averages, and `unaveraged.keras` beside it) and `history.csv`; at the end also the
    SavedModel, `spec.json`, `recipe.json`, `labels.txt`, `metrics.json`, and, if matplotlib is
    installed, `training_curve.png` and `confusion_matrix.png`. Called again with the folder of an
    unfinished run, it resumes from the newest snapshot: on one CPU device to the very weights of a
    run that was never stopped.

    Args:
        spec: the architecture; its auxiliary classifiers, if any, are trained along and left out
            of what is saved.
        data: images and labels; classes and channels must be those of the spec. Images of
            another size are resized.
        recipe: how to train. Sets Keras's random seed.
        folder: new, empty, or of a run to go on with. Several workers name the same one; only the
            chief writes.
        strategy: of `make_strategy`; None: one device.
        init: a .keras file of this package's networks, with whose weights to begin; classifiers of
            another number of classes begin anew.
        snapshot_steps: write a snapshot every so many steps.
        snapshot_minutes: and every so many minutes; one always follows each epoch.
        callbacks: further Keras callbacks, such as a progress display. They may end the run by
            `model.stop_training`.

    Raises:
        ValueError: data, spec, recipe and strategy do not fit together, the folder holds something
            else or another run's snapshots, or another process trains in it.
        TrainingInterruptedError: SIGTERM or SIGINT came, or another worker was lost.
        TrainingDivergedError: a loss or a weight is not finite.
        OSError: the folder cannot be written.
    """
    folder, init = Path(folder), None if init is None else Path(init)
    strategy = strategy or tf.distribute.get_strategy()
    prepare_run(spec, data, recipe, folder, strategy=strategy)
    chief = is_chief(strategy)
    with ExitStack() as stack:
        if chief:
            stack.enter_context(only_run_in(folder))
            prepare_run(spec, data, recipe, folder, strategy=strategy)  # as it is now it is locked
            _begin_folder(folder, spec, data, recipe)
        identity = _identity(spec, data, recipe, init)
        snapshots = Snapshots(
            folder / SNAPSHOT_FOLDER, every_steps=snapshot_steps, every_minutes=snapshot_minutes
        )
        snapshot = snapshots.newest(set_aside=chief)
        if snapshot is not None:
            require_same(snapshot.document["identity"], identity, "run", folder)
        keras.utils.set_random_seed(recipe.seed)
        if keras.backend.backend() != "tensorflow":
            progress = keras_fit.fit(spec, data, recipe, folder, init=init, callbacks=callbacks)
            return _finish(spec, data, recipe, folder, progress)
        signals = stack.enter_context(StopSignals())
        steps = recipe.total_steps(len(data.train))
        trainer = Trainer(spec, recipe, strategy, total_steps=steps)
        if init is not None and snapshot is None:  # which holds all weights
            initialize(trainer.model, init, spec)
        loop = TrainingLoop(
            trainer,
            spec,
            data,
            folder=folder if chief else None,
            snapshots=snapshots,
            identity=identity,
            callbacks=callbacks,
        )
        if snapshot is not None:
            loop.restore(snapshot)
        loop.run(signals)
        if not chief:
            return TrainResult(trainer.deployed(spec), folder, {"history": loop.progress.history})
        return _finish(spec, data, recipe, folder, loop.progress)


def prepare_run(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    *,
    strategy: tf.distribute.Strategy | None = None,
) -> None:
    """Refuse what cannot be trained, before anything is built; make the folder.

    Raises:
        ValueError: data, spec, recipe and strategy do not fit together, or the folder cannot be
            written or holds something else than a run that can go on.
    """
    if spec.classes != len(data.class_names) or spec.input_shape[2] != data.image_shape[2]:
        raise ValueError(
            f"Expected a spec for {len(data.class_names)} classes and {data.image_shape[2]} "
            f"channels. Received: classes={spec.classes}, input_shape={spec.input_shape}. "
            "`fitted_to_data(spec, data)` makes one."
        )
    network_cost(spec, auxiliary=bool(spec.aux))  # refuses a size that does not fit
    pixel = np.zeros((1, 1, data.image_shape[2]))
    preprocess_input(pixel, "channels_last", convention=spec.pixels)  # refuses grey for RGB
    if recipe.class_weights and len(recipe.class_weights) != spec.classes:
        raise ValueError(
            f"Expected a class weight for each of {spec.classes} classes. "
            f"Received: class_weights={recipe.class_weights}"
        )
    if len(data.train) < recipe.batch_size:
        raise ValueError(
            f"Expected a batch of at most {len(data.train)}, the number of training images. "
            f"Received: batch_size={recipe.batch_size}"
        )
    check_strategy(recipe, strategy or tf.distribute.get_strategy())
    if recipe.freeze_until:
        freeze_until(build_network(spec), recipe.freeze_until)  # refuses an unknown endpoint
    _prepare_folder(folder)


def _prepare_folder(folder: Path) -> None:
    make_writable(folder)
    if (folder / METRICS_FILE).exists():
        raise ValueError(
            "Expected a new or empty folder, or a run that did not end. Received: "
            f"{str(folder)!r}, which holds files of a finished run. Choose another one."
        )
    if not (folder / SNAPSHOT_FOLDER).is_dir():
        require_empty(folder)


def _begin_folder(folder: Path, spec: NetworkSpec, data: ImageData, recipe: Recipe) -> None:
    """The texts of a run; a run that goes on keeps what it has."""
    snapshots = folder / SNAPSHOT_FOLDER
    snapshots.mkdir(exist_ok=True)
    for leftover in (*folder.glob(f"{PARTIAL}*"), *snapshots.glob(f"{PARTIAL}*")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    if any(snapshots.iterdir()):
        return
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


def _finish(
    spec: NetworkSpec, data: ImageData, recipe: Recipe, folder: Path, progress: Progress
) -> TrainResult:
    """Evaluate and export what the last epoch left; metrics.json, the last file, says finished."""
    started = time.monotonic()
    model = keras.saving.load_model(folder / MODEL_FILE, compile=False)
    batches = evaluation_batches(data.test, spec, recipe.batch_size)
    # JAX takes no tensors of TensorFlow.
    arrays = ((np.asarray(images), labels) for images, labels in batches)
    evaluation = evaluate_batches(model, arrays)
    shutil.rmtree(folder / "saved_model", ignore_errors=True)  # of a process killed right here
    if keras.backend.backend() == "tensorflow":
        samples = sample_pixels(data.test, spec, _PARITY_IMAGES)
        if keras.config.image_data_format() == "channels_first":
            samples = np.moveaxis(samples, 1, -1)
        export_saved_model(
            model,
            folder / "saved_model",
            samples=np.round(samples).astype(np.uint8),
            labels=data.class_names,
            documents={
                SPEC_FILE: spec.to_json(),
                RECIPE_FILE: recipe.to_json(),
                DATA_FILE: (folder / DATA_FILE).read_text(encoding="utf-8"),
            },
        )
    if is_installed("matplotlib"):
        with aside(folder / "training_curve.png") as path:
            plots.training_curve(progress.history, path)
        with aside(folder / "confusion_matrix.png") as path:
            plots.confusion_matrix(evaluation.confusion, data.class_names, path)
    cost = network_cost(spec).total
    metrics = {
        **evaluation.summary(data.class_names),
        "macs": cost.macs,
        "params": cost.params,
        "seconds": round(progress.seconds + time.monotonic() - started, 1),
        "history": progress.history,
    }
    write_text(folder / METRICS_FILE, json.dumps(metrics, indent=2) + "\n")
    with suppress(PermissionError):  # Windows keeps a file that is open
        (folder / LOCK_FILE).unlink()  # a later run finds the metrics and stops
    shutil.rmtree(folder / SNAPSHOT_FOLDER)
    (folder / SCAN_FILE).unlink(missing_ok=True)
    return TrainResult(model, folder, metrics)
