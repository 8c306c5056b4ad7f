"""Train a network by a recipe, and leave a folder that holds everything about it.

The line ends here: spec -> cost -> network -> train -> evaluate -> export. What is written is
written aside and renamed, so that a run folder never holds half a file.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import keras
import numpy as np

from keras_inception import plots
from keras_inception.cost import network_cost
from keras_inception.data import (
    ImageData,
    evaluation_batches,
    sample_pixels,
    training_batches,
)
from keras_inception.evaluate import evaluate
from keras_inception.export import export_saved_model
from keras_inception.network import build_network, inference_model
from keras_inception.preprocessing import preprocess_input
from keras_inception.recipe import Recipe
from keras_inception.spec import NetworkSpec

MODEL_FILE = "model.keras"


@dataclass(frozen=True)
class TrainResult:
    """What a run gave: the inference model, its folder and its numbers (as in metrics.json)."""

    model: keras.Model
    folder: Path
    metrics: dict[str, Any]


def fitted_to_data(spec: NetworkSpec, data: ImageData) -> NetworkSpec:
    """`spec` with the classes and channels of `data`, and its image size if all have one size."""
    height, width, channels = data.image_shape
    size = spec.input_shape[:2] if height is None or width is None else (height, width)
    return replace(spec, input_shape=(*size, channels), classes=len(data.class_names))


def train(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainResult:
    """Train the network of `spec` on `data` and write the run's folder.

    After each epoch the folder holds `model.keras` as it is then; at the end also the SavedModel,
    `spec.json`, `recipe.json`, `labels.txt`, `metrics.json`, `training_curve.png` and
    `confusion_matrix.png`.

    Args:
        spec: the architecture; its auxiliary classifiers, if any, are trained along and left out
            of what is saved.
        data: images and labels; classes and channels must be those of the spec. Images of
            another size are resized.
        recipe: how to train. Sets Keras's random seed.
        folder: a new or empty folder.
        callbacks: further Keras callbacks, such as a progress display.

    Raises:
        ValueError: what `prepare_run` refuses.
        FloatingPointError: the loss is no longer a number. `model.keras` is then of the last
            epoch in which it was.
    """
    prepare_run(spec, data, recipe, folder)
    started = time.monotonic()
    keras.utils.set_random_seed(recipe.seed)
    network = build_network(spec, auxiliary=bool(spec.aux))
    deployed = inference_model(network)
    # Compiled apart from what is saved, which then holds no optimizer and loads anywhere.
    model = keras.Model(network.input, network.output)
    steps_per_epoch = len(data.train) // recipe.batch_size
    compile_model(model, recipe, total_steps=steps_per_epoch * recipe.epochs)
    _write(folder / "spec.json", spec.to_json())
    _write(folder / "recipe.json", recipe.to_json())
    _write(folder / "labels.txt", "\n".join(data.class_names) + "\n")
    history = model.fit(
        _with_targets(training_batches(data.train, spec, recipe), model),
        validation_data=_with_targets(
            evaluation_batches(data.test, spec, recipe.batch_size), model
        ),
        epochs=recipe.epochs,
        steps_per_epoch=steps_per_epoch,
        verbose=0,
        shuffle=False,  # the stream has an order of its own
        callbacks=[_SaveEachEpoch(deployed, folder), *callbacks],
    ).history
    evaluation = evaluate(deployed, evaluation_batches(data.test, spec, recipe.batch_size))
    samples = sample_pixels(data.test, spec, 32)
    if keras.config.image_data_format() == "channels_first":
        samples = np.moveaxis(samples, 1, -1)
    export_saved_model(
        deployed,
        folder / "saved_model",
        samples=np.round(samples).astype(np.uint8),
        labels=data.class_names,
        documents={"spec.json": spec.to_json(), "recipe.json": recipe.to_json()},
    )
    with _aside(folder / "training_curve.png") as path:
        plots.training_curve(_main_curve(history), path)
    with _aside(folder / "confusion_matrix.png") as path:
        plots.confusion_matrix(evaluation.confusion, data.class_names, path)
    cost = network_cost(spec).total
    metrics = {
        **evaluation.summary(data.class_names),
        "macs": cost.macs,
        "params": cost.params,
        "seconds": round(time.monotonic() - started, 1),
        "history": history,
    }
    _write(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return TrainResult(deployed, folder, metrics)


def prepare_run(spec: NetworkSpec, data: ImageData, recipe: Recipe, folder: Path) -> None:
    """Refuse what cannot be trained, before anything is built; make the folder.

    Raises:
        ValueError: data and spec disagree, the input is too small for the spec or of no fixed
            size, the split is smaller than a batch, or the folder cannot be written or holds
            files already.
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
    if len(data.train) < recipe.batch_size:
        raise ValueError(
            f"Expected a batch of at most {len(data.train)}, the number of training images. "
            f"Received: batch_size={recipe.batch_size}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"Expected a folder that can be written. Received: {str(folder)!r} "
            f"({error.strerror}). Choose another one."
        ) from error
    if any(folder.iterdir()):
        raise ValueError(
            f"Expected a new or empty folder. Received: {str(folder)!r}, which holds files. "
            "Choose another one."
        )


def compile_model(model: keras.Model, recipe: Recipe, *, total_steps: int) -> None:
    """Compile with the optimizer, schedule and losses of the recipe.

    With auxiliary classifiers the outputs are "main", "aux_1", ... and each auxiliary loss
    weighs `recipe.aux_loss_weight`.
    """
    warmup_steps = min(round(recipe.warmup * total_steps), total_steps - 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else recipe.learning_rate,
        total_steps - warmup_steps,
        warmup_target=recipe.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    optimizer: keras.optimizers.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            schedule, momentum=recipe.momentum, weight_decay=recipe.weight_decay or None
        )
    else:
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)
    classes = (
        model.output["main"].shape[-1] if isinstance(model.output, dict) else model.output.shape[-1]
    )
    loss = _loss(recipe, classes)
    if not isinstance(model.output, dict):
        model.compile(optimizer, loss, metrics=["accuracy"])
        return
    model.compile(
        optimizer,
        dict.fromkeys(model.output, loss),
        loss_weights={
            name: 1.0 if name == "main" else recipe.aux_loss_weight for name in model.output
        },
        metrics={"main": ["accuracy"]},
    )


def _loss(recipe: Recipe, classes: int) -> Any:
    if not recipe.label_smoothing:
        return "sparse_categorical_crossentropy"

    def smoothed(labels: Any, scores: Any) -> Any:
        one_hot = keras.ops.one_hot(keras.ops.reshape(labels, (-1,)), classes)
        return keras.losses.categorical_crossentropy(
            one_hot, scores, label_smoothing=recipe.label_smoothing
        )

    return smoothed


def _with_targets(batches: Any, model: keras.Model) -> Any:
    """One label for each of the model's outputs: users give one."""
    if not isinstance(model.output, dict):
        return batches
    names = tuple(model.output)
    return batches.map(lambda images, labels: (images, dict.fromkeys(names, labels)))


def _main_curve(history: dict[str, list[float]]) -> dict[str, list[float]]:
    """Loss and accuracy of the main output, whether or not auxiliary classifiers ran along."""
    main = "main_" if "main_loss" in history else ""
    return {
        split + key: history[split + main + key]
        for split in ("", "val_")
        for key in ("loss", "accuracy")
    }


class _SaveEachEpoch(keras.callbacks.Callback):
    """Keeps `model.keras` of the last complete epoch, so that an interrupted run leaves it."""

    def __init__(self, deployed: keras.Model, folder: Path) -> None:
        super().__init__()
        self._deployed = deployed
        self._folder = folder

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is None or not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"Expected a finite loss. Received: {logs and logs['loss']} in epoch {epoch + 1}. "
                "Lower the recipe's base_learning_rate."
            )
        with _aside(self._folder / MODEL_FILE) as path:
            self._deployed.save(path)


@contextmanager
def _aside(path: Path) -> Any:
    """A path beside `path` to write to; it takes the place of `path` only when all went well."""
    beside = path.with_name(f".partial-{path.name}")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    with _aside(path) as beside:
        beside.write_text(text, encoding="utf-8")
