"""From a recipe to a Keras optimizer and the losses of single images. Any Keras backend."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_inception.spec.recipe import Recipe


def learning_rate_schedule(
    recipe: Recipe, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The rate of every step, as the recipe's `schedule` and `warmup` say."""
    if recipe.schedule == "staircase":
        return keras.optimizers.schedules.ExponentialDecay(
            recipe.learning_rate,
            decay_steps=recipe.decay_epochs * total_steps // recipe.epochs,
            decay_rate=recipe.decay_factor,
            staircase=True,
        )
    warmup_steps = min(round(recipe.warmup * total_steps), total_steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else recipe.learning_rate,
        total_steps - warmup_steps,
        warmup_target=recipe.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def make_optimizer(
    recipe: Recipe, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
) -> keras.optimizers.Optimizer:
    """The optimizer of the recipe. Clipping, accumulation and averages are the training step's.

    Args:
        recipe: names it.
        learning_rate: a schedule; or a number, for who sets `optimizer.learning_rate` each step.
    """
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(
            learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay or None
        )
    return keras.optimizers.AdamW(learning_rate, weight_decay=recipe.weight_decay)


def image_losses(labels: Any, scores: Any, recipe: Recipe) -> Any:
    """Cross-entropy in nats of each image, with the recipe's smoothing and class weights.

    Args:
        labels: N integers, or N x classes probabilities (mixed images).
        scores: N x classes probabilities.

    Returns:
        N losses, float32.
    """
    classes = scores.shape[-1]
    targets = ops.one_hot(labels, classes) if len(labels.shape) == 1 else labels
    losses = keras.losses.categorical_crossentropy(
        targets, scores, label_smoothing=recipe.label_smoothing
    )
    if recipe.class_weights:
        weights = ops.convert_to_tensor(recipe.class_weights, dtype="float32")
        losses = losses * ops.matmul(targets, weights)
    return losses


def is_correct(labels: Any, scores: Any) -> Any:
    """1. for each image whose highest score is its label (or its greater share), else 0."""
    if len(labels.shape) > 1:
        labels = ops.argmax(labels, axis=-1)
    hits = ops.equal(ops.argmax(scores, axis=-1), ops.cast(labels, "int32"))
    return ops.cast(hits, "float32")
