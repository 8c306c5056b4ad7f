"""A network for Keras's own `fit`, by a recipe: for KerasTuner's tuners, and users who prefer it.

`fit` has no averages, no micro-batches, no half precision, no snapshots and no resume, and clips
before it sums over devices: those are the training step's (`training.run.train`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
from keras import ops

from keras_inception.spec.recipe import Recipe
from keras_inception.training.losses import (
    image_losses,
    is_correct,
    output_weight,
    training_losses,
)
from keras_inception.training.optimizer import learning_rate_schedule, make_optimizer


def compile_model(model: keras.Model, recipe: Recipe, *, total_steps: int) -> None:
    """Compile with the optimizer, schedule and losses of the recipe.

    With auxiliary classifiers the outputs are "main", "aux_1", ... and each auxiliary loss weighs
    `recipe.aux_loss_weight`. The loss of validation is the main output's cross-entropy, without
    label smoothing and class weights.

    Args:
        model: of `build_network(spec, classifier_activation=None)`: its outputs are logits.
        recipe: how to train.
        total_steps: of the whole training, for the schedule.

    Raises:
        ValueError: a model that ends in probabilities, or what only the training step does.
    """
    require_plain(recipe)
    _require_logits(model)
    optimizer = make_optimizer(
        recipe, model.trainable_variables, learning_rate_schedule(recipe, total_steps)
    )
    optimizer.global_clipnorm = recipe.clip_norm or None
    accuracy = {"main": [_accuracy]} if isinstance(model.output, dict) else [_accuracy]
    model.compile(optimizer, metrics=accuracy, jit_compile=recipe.jit_compile or "auto")
    # Keras calls it with what it needs to know: whether it trains.
    setattr(model, "compute_loss", partial(_loss, recipe))  # noqa: B010


def require_plain(recipe: Recipe) -> None:
    """Check that Keras's `fit` can follow a recipe.

    Raises:
        ValueError: what only the training step does.
    """
    if recipe.average != "none" or recipe.micro_batches > 1 or recipe.precision != "float32":
        raise ValueError(
            "Expected a recipe without averages, micro-batches and half precision, which only "
            f"`train` and `tuning.search` have. Received: average={recipe.average!r}, "
            f"micro_batches={recipe.micro_batches}, precision={recipe.precision!r}"
        )
    if recipe.class_weights == "balanced":
        raise ValueError(
            'Expected numbers as class weights. Received: class_weights="balanced", which only '
            "`train` and `tuning.search` work out. Give Keras's `class_weight` to `fit`."
        )


def _require_logits(model: keras.Model) -> None:
    for layer in model.layers:
        name = getattr(getattr(layer, "activation", None), "__name__", "")
        if name in ("softmax", "sigmoid") or isinstance(layer, keras.layers.Softmax):
            raise ValueError(
                "Expected a model whose outputs are logits: in float32 the probability of a wrong "
                f"class underflows to 0. Received: a {name or 'softmax'} in the layer "
                f"{layer.name!r}. Build with classifier_activation=None."
            )


def _loss(
    recipe: Recipe,
    x: Any = None,
    y: Any = None,
    y_pred: Any = None,
    sample_weight: Any = None,
    training: bool = True,
) -> Any:
    """The loss of a batch, as Keras asks its models for it."""
    outputs = y_pred if isinstance(y_pred, dict) else {"main": y_pred}
    labels = y if isinstance(y, dict) else dict.fromkeys(outputs, y)
    if not training:
        return _mean(image_losses(_flat(labels["main"]), outputs["main"]), sample_weight)
    total = 0.0
    for name, logits in outputs.items():
        losses = training_losses(_flat(labels[name]), logits, recipe)
        total = total + output_weight(name, recipe) * _mean(losses, sample_weight)
    return total


def _mean(losses: Any, weights: Any) -> Any:
    if isinstance(weights, dict):
        weights = weights["main"]
    return ops.mean(losses if weights is None else losses * ops.cast(weights, losses.dtype))


def _accuracy(labels: Any, logits: Any) -> Any:
    return is_correct(_flat(labels), logits)


# Keras names the metric by it.
_accuracy.__name__ = "accuracy"


def _flat(labels: Any) -> Any:
    """N labels as `fit` hands them on: N x 1."""
    return ops.squeeze(labels, -1) if len(labels.shape) > 1 and labels.shape[-1] == 1 else labels
