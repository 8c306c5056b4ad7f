"""From a name to Keras's data-parallel distribution under JAX. Builds no model.

JAX fixes its devices when it first runs anything: call `make_strategy` before that.
"""

from __future__ import annotations

import os
import re

import jax
import keras

NAMES = "auto, cpu:N, mirrored, multi-worker"
# What `keras.distribution.initialize` reads.
_CLUSTER = tuple(
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)


def make_strategy(name: str) -> keras.distribution.DataParallel | None:
    """The devices of a name; see `strategy.make_strategy`. None: the one that JAX takes first."""
    if name == "auto":
        several = jax.default_backend() != "cpu" and len(jax.devices()) > 1
        return _parallel() if several else None
    if cpus := re.fullmatch(r"cpu:([1-9]\d*)", name):
        return _cpu(int(cpus[1]))
    if name == "mirrored":
        if jax.default_backend() == "cpu":
            raise ValueError(
                "Expected an accelerator for the strategy 'mirrored'. Received: a machine on which "
                "JAX finds none. The strategy 'cpu:2' is two virtual CPU devices."
            )
        return _parallel()
    if name == "multi-worker":
        if missing := [variable for variable in _CLUSTER if not os.environ.get(variable)]:
            raise ValueError(
                f"Expected the environment variables {', '.join(_CLUSTER)}, by which "
                f"`keras.distribution.initialize` finds the processes. Received: no {missing[0]}"
            )
        keras.distribution.initialize()
        return _parallel()
    raise ValueError(f"Expected a strategy among {NAMES} under JAX. Received: {name!r}")


def device_count(strategy: keras.distribution.DataParallel | None) -> int:
    """Devices that share a batch, those of other processes included."""
    return 1 if strategy is None else int(strategy.device_mesh.devices.size)


def process_of(strategy: keras.distribution.DataParallel | None) -> tuple[int, int]:
    """Number of this process among those that train together, and how many they are."""
    return (0, 1) if strategy is None else (jax.process_index(), jax.process_count())


def _parallel() -> keras.distribution.DataParallel:
    return keras.distribution.DataParallel(
        devices=keras.distribution.list_devices(), auto_shard_dataset=False
    )


def _cpu(count: int) -> keras.distribution.DataParallel | None:
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise ValueError(
            f"Expected JAX not to have run yet, so that the CPU can become {count} devices. "
            f"Received: {error} Make the strategy first in a new process."
        ) from error
    return _parallel() if count > 1 else None
