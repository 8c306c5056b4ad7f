"""Devices by name, and the trainer on them, for the backends that train.

TensorFlow and JAX fix their devices when they first run anything: call `make_strategy` before that.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import keras

from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.training.step import Trainer

# The backends that train, with their engines' classes.
_ENGINES = {"tensorflow": "TensorFlowTrainer", "jax": "JaxTrainer"}

# A `tf.distribute.Strategy`, or under JAX a `keras.distribution.DataParallel`; None: one device.
Strategy = Any


def make_strategy(name: str = "auto") -> Strategy:
    """Return the devices of a name.

    Args:
        name:
            - "auto": every GPU of this machine, or else its CPU as one device.
            - "cpu:N": the CPU as N logical devices.
            - "mirrored": every accelerator of this machine.
            - "multi-worker": this process is one of those that the environment variable TF_CONFIG
              lists; under JAX, those that `keras.distribution.initialize` reads.
            - "tpu" or "tpu:NAME", under TensorFlow: the TPU of this machine, or of that name or
              address.

    Raises:
        ValueError: an unknown name, or devices that this machine does not have.
    """
    return _devices().make_strategy(name)


def make_trainer(
    spec: NetworkSpec, recipe: Recipe, strategy: Strategy = None, *, total_steps: int
) -> Trainer:
    """Return a trainer of this backend for `spec`; see `Trainer` and `make_strategy`."""
    backend = _backend()
    engine = import_module(f"keras_inception.training.{backend}_engine")
    trainer: Trainer = getattr(engine, _ENGINES[backend])(
        spec, recipe, strategy, total_steps=total_steps
    )
    return trainer


def is_chief(strategy: Strategy) -> bool:
    """Whether this process writes: the only one, or the first of several workers."""
    return bool(_devices().process_of(strategy)[0] == 0)


def device_count(strategy: Strategy) -> int:
    """Devices that share a batch."""
    return int(_devices().device_count(strategy))


def check_strategy(recipe: Recipe, strategy: Strategy) -> None:
    """Check what the backend and its devices can do.

    Raises:
        ValueError: a backend that does not train, a batch that the devices cannot share evenly, or
            XLA on several devices under TensorFlow.
    """
    devices = device_count(strategy)
    if recipe.batch_size % (devices * recipe.micro_batches):
        raise ValueError(
            f"Expected a batch that {devices} devices of {recipe.micro_batches} micro-batches "
            f"share evenly. Received: batch_size={recipe.batch_size}"
        )
    if recipe.jit_compile and devices > 1 and _backend() == "tensorflow":
        raise ValueError(
            "Expected jit_compile only on one device: tf.distribute does not compile a step that "
            f"sums over devices. Received: {devices} devices. Use jit_compile=False."
        )


def _backend() -> str:
    backend: str = keras.backend.backend()
    if backend not in _ENGINES:
        raise ValueError(
            f"Expected KERAS_BACKEND=tensorflow or jax to train. Received: {backend!r}, under "
            "which networks are built, loaded and run, and trained by Keras's own `fit`."
        )
    return backend


def _devices() -> Any:
    return import_module(f"keras_inception.training.{_backend()}_devices")
