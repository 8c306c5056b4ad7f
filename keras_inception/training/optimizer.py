"""From a recipe to a Keras optimizer and its learning rates. Any Keras backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

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
    recipe: Recipe,
    weights: Sequence[Any],
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
) -> keras.optimizers.Optimizer:
    """The optimizer of the recipe. Clipping, accumulation and averages are the training step's.

    Weight decay is for kernels alone: biases, and the gamma and beta of batch normalization, have
    no say in how much a network can fit (as `decay_mult: 0` in BVLC's train_val.prototxt).

    Args:
        recipe: names it.
        weights: what it trains.
        learning_rate: a schedule; or a number, for who sets `optimizer.learning_rate` each step.
    """
    optimizer: keras.optimizers.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay or None
        )
    else:
        optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=recipe.weight_decay)
    if recipe.weight_decay:
        optimizer.exclude_from_weight_decay([w for w in weights if w.name != "kernel"])
    optimizer.build(list(weights))
    return optimizer
