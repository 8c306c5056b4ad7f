"""Training by Keras's own `fit`: the engine under KERAS_BACKEND=jax and torch.

Under JAX it trains data-parallel if `keras.distribution` says so (`distribute_over_cpus`). It has
no averages, no micro-batches, no half precision, no snapshots and no resume: those are the
training step's of the TensorFlow backend (`trainer`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_inception.data.splits import ImageData
from keras_inception.data.stream import evaluation_batches, training_batches
from keras_inception.files import MODEL_FILE, aside
from keras_inception.network.build import build_network, inference_model
from keras_inception.network.endpoints import freeze_until
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.training.fine_tune import initialize
from keras_inception.training.loop import Progress, TrainingDivergedError, write_history
from keras_inception.training.optimizer import (
    image_losses,
    is_correct,
    learning_rate_schedule,
    make_optimizer,
)


def distribute_over_cpus(count: int) -> None:
    """Train data-parallel over `count` virtual CPU devices; JAX only, before it runs anything.

    Raises:
        ValueError: another backend, or JAX has made its devices already.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"Expected KERAS_BACKEND=jax. Received: {keras.backend.backend()!r}. Under TensorFlow "
            "strategies are those of `make_strategy`."
        )
    import jax

    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise ValueError(
            f"Expected JAX not to have run yet, so that the CPU can become {count} devices. "
            f"Received: {error}"
        ) from error
    devices = keras.distribution.list_devices("cpu")
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))


def compile_model(model: keras.Model, recipe: Recipe, *, total_steps: int) -> None:
    """Compile with the optimizer, schedule and losses of the recipe.

    With auxiliary classifiers the outputs are "main", "aux_1", ... and each auxiliary loss
    weighs `recipe.aux_loss_weight`.

    Raises:
        ValueError: what only the training step of the TensorFlow backend does.
    """
    if recipe.average != "none" or recipe.micro_batches > 1 or recipe.precision != "float32":
        raise ValueError(
            "Expected a recipe without averages, micro-batches and half precision, which need "
            f"KERAS_BACKEND=tensorflow. Received: average={recipe.average!r}, "
            f"micro_batches={recipe.micro_batches}, precision={recipe.precision!r}"
        )
    optimizer = make_optimizer(recipe, learning_rate_schedule(recipe, total_steps))
    optimizer.global_clipnorm = recipe.clip_norm or None

    def loss(labels: Any, scores: Any) -> Any:
        return image_losses(_flat(labels), scores, recipe)

    def accuracy(labels: Any, scores: Any) -> Any:
        return is_correct(_flat(labels), scores)

    jit_compile = recipe.jit_compile or "auto"
    if not isinstance(model.output, dict):
        model.compile(optimizer, loss, metrics=[accuracy], jit_compile=jit_compile)
        return
    weights = {name: 1.0 if name == "main" else recipe.aux_loss_weight for name in model.output}
    model.compile(
        optimizer,
        dict.fromkeys(model.output, loss),
        loss_weights=weights,
        metrics={"main": [accuracy]},
        jit_compile=jit_compile,
    )


def fit(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    *,
    init: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Progress:
    """Train to the end of the recipe; each epoch leaves `model.keras` in the folder.

    Raises:
        ValueError: what `compile_model` refuses, or a batch that the devices cannot share evenly.
        TrainingDivergedError: a loss is not finite.
    """
    _check_shares(len(data.test) % recipe.batch_size, recipe)
    network = build_network(spec, auxiliary=bool(spec.aux))
    if init is not None:
        initialize(network, init, spec)
    if recipe.freeze_until:
        freeze_until(network, recipe.freeze_until)
    # Compiled apart from what is saved, which then holds no optimizer and loads anywhere.
    model = keras.Model(network.input, network.output)
    steps_per_epoch = recipe.steps_per_epoch(len(data.train))
    compile_model(model, recipe, total_steps=recipe.total_steps(len(data.train)))
    started = time.monotonic()
    history = model.fit(
        _with_targets(training_batches(data.train, spec, recipe), model),
        validation_data=_held_out(data, spec, recipe, model),
        validation_batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        steps_per_epoch=steps_per_epoch,
        verbose=0,
        shuffle=False,  # the stream has an order of its own
        callbacks=[_LeaveModel(inference_model(network), folder), *callbacks],
    ).history
    history = _as_the_loop_names_it(history)
    write_history(folder, history)
    return Progress(
        step=steps_per_epoch * len(history["loss"]),
        epoch=len(history["loss"]),
        history=history,
        seconds=time.monotonic() - started,
        finished=True,
    )


def _check_shares(last_batch: int, recipe: Recipe) -> None:
    distribution = keras.distribution.distribution()
    devices = distribution.device_mesh.shape[0] if distribution else 1
    if recipe.batch_size % devices or last_batch % devices:
        raise ValueError(
            f"Expected batches that {devices} devices share evenly, the last held-out one too. "
            f"Received: batch_size={recipe.batch_size}, a last batch of {last_batch}"
        )


def _flat(labels: Any) -> Any:
    """N labels as `fit` hands them on: N x 1."""
    return keras.ops.squeeze(labels, -1) if labels.shape[-1] == 1 else labels


def _with_targets(batches: Any, model: keras.Model) -> Any:
    """One label for each of the model's outputs: users give one."""
    if not isinstance(model.output, dict):
        return batches
    names = tuple(model.output)
    return ((images, dict.fromkeys(names, labels)) for images, labels in batches)


def _held_out(data: ImageData, spec: NetworkSpec, recipe: Recipe, model: keras.Model) -> Any:
    images, labels = zip(*evaluation_batches(data.test, spec, recipe.batch_size), strict=True)
    arrays = np.concatenate(images), np.concatenate(labels)
    return next(iter(_with_targets([arrays], model)))


def _as_the_loop_names_it(history: dict[str, list[float]]) -> dict[str, list[float]]:
    if "main_loss" not in history:
        return history
    renamed = {
        "accuracy": "main_accuracy",
        "val_loss": "val_main_loss",
        "val_accuracy": "val_main_accuracy",
    }
    kept = {name: history[name] for name in history if name.endswith("loss")}
    kept = {name: values for name, values in kept.items() if not name.startswith("val_")}
    return kept | {name: history[old] for name, old in renamed.items()}


class _LeaveModel(keras.callbacks.Callback):
    """Keeps the model of the last complete epoch."""

    def __init__(self, deployed: keras.Model, folder: Path) -> None:
        super().__init__()
        self._deployed = deployed
        self._folder = folder

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {})["loss"]
        if not keras.ops.isfinite(loss):
            raise TrainingDivergedError(
                f"Expected a finite loss. Received: {loss} in epoch {epoch + 1}. Lower the "
                "recipe's base_learning_rate."
            )
        with aside(self._folder / MODEL_FILE) as path:
            self._deployed.save(path)
