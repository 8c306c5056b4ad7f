"""The losses of single images, from logits in float32. Any Keras backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_inception.data.splits import ImageData
from keras_inception.spec.recipe import Recipe


def image_losses(
    labels: Any,
    logits: Any,
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
) -> Any:
    """Cross-entropy in nats of each image.

    Takes logits: with probabilities clipped at 1e-7, a logit gap of more than 16 has no gradient.

    Args:
        labels: N integers, or N x classes probabilities (mixed images).
        logits: N x classes.
        label_smoothing: probability spread evenly over all classes.
        class_weights: a factor for each class; (): all 1.

    Returns:
        N losses, float32.
    """
    logits = ops.cast(logits, "float32")
    targets = ops.one_hot(labels, logits.shape[-1]) if len(labels.shape) == 1 else labels
    losses = keras.losses.categorical_crossentropy(
        targets, logits, from_logits=True, label_smoothing=label_smoothing
    )
    if class_weights:
        weights = ops.convert_to_tensor(class_weights, dtype="float32")
        losses = losses * ops.matmul(targets, weights)
    return losses


def training_losses(labels: Any, logits: Any, recipe: Recipe) -> Any:
    """`image_losses` as the recipe trains: with its label smoothing and class weights."""
    return image_losses(
        labels,
        logits,
        label_smoothing=recipe.label_smoothing,
        class_weights=tuple(map(float, recipe.class_weights)),
    )


def output_weight(name: str, recipe: Recipe) -> float:
    """How much the loss of an output counts: the main one in full, auxiliary ones less."""
    return 1.0 if name == "main" else recipe.aux_loss_weight


def with_class_weights(recipe: Recipe, data: ImageData) -> Recipe:
    """The recipe, with numbers for "balanced" class weights; a class without images gets 0."""
    if recipe.class_weights != "balanced":
        return recipe
    counts = np.bincount(data.train.labels, minlength=len(data.class_names))
    weights = len(data.train) / (len(counts) * np.maximum(counts, 1)) * (counts > 0)
    return replace(recipe, class_weights=tuple(weights.tolist()))


def is_correct(labels: Any, logits: Any) -> Any:
    """1. for each image whose highest logit is its label (or its greater share), else 0."""
    if len(labels.shape) > 1:
        labels = ops.argmax(labels, axis=-1)
    hits = ops.equal(ops.argmax(logits, axis=-1), ops.cast(labels, "int32"))
    return ops.cast(hits, "float32")
