"""An optimizer's step by TensorFlow's fused kernels, on one device.

Keras's AdamW takes some 20 operations for each weight. To trace and to compile them is half of the
time before the first step of a small network; one kernel for each weight takes the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_inception.keras_compat import optimizer_moments


def fused_update(
    optimizer: keras.optimizers.Optimizer, weights: Sequence[Any], gradients: Sequence[Any]
) -> None:
    """Do what `optimizer.apply(gradients, weights)` does for an optimizer of `make_optimizer`.

    Args:
        optimizer: SGD with momentum or without, or AdamW; its learning rate is a variable.
        weights: those that it was built with.
        gradients: float32, one for each weight.
    """
    rate = tf.convert_to_tensor(optimizer.learning_rate)
    if optimizer.weight_decay:
        for weight in weights:
            if weight.name == "kernel":
                weight.value.assign_sub(weight.value * (optimizer.weight_decay * rate))
    moments = optimizer_moments(optimizer)
    if isinstance(optimizer, keras.optimizers.AdamW):
        _adam(optimizer, rate, weights, gradients, moments)
    else:
        _sgd(optimizer, rate, weights, gradients, moments)
    optimizer.iterations.assign_add(1)


def _adam(
    optimizer: keras.optimizers.AdamW,
    rate: Any,
    weights: Sequence[Any],
    gradients: Sequence[Any],
    moments: Sequence[Sequence[Any]],
) -> None:
    step = tf.cast(optimizer.iterations + 1, tf.float32)
    powers = {
        "beta1_power": tf.pow(optimizer.beta_1, step),
        "beta2_power": tf.pow(optimizer.beta_2, step),
    }
    for weight, gradient, mean, square in zip(weights, gradients, *moments, strict=True):
        tf.raw_ops.ResourceApplyAdam(
            var=weight.value.handle,
            m=mean.value.handle,
            v=square.value.handle,
            lr=rate,
            beta1=optimizer.beta_1,
            beta2=optimizer.beta_2,
            epsilon=optimizer.epsilon,
            grad=gradient,
            **powers,
        )


def _sgd(
    optimizer: keras.optimizers.SGD,
    rate: Any,
    weights: Sequence[Any],
    gradients: Sequence[Any],
    moments: Sequence[Sequence[Any]],
) -> None:
    if not optimizer.momentum:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.value.assign_sub(rate * gradient)
        return
    for weight, gradient, momentum in zip(weights, gradients, *moments, strict=True):
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=weight.value.handle,
            accum=momentum.value.handle,
            lr=rate,
            grad=gradient,
            momentum=optimizer.momentum,
        )
