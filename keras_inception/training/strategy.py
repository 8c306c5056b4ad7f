"""From a name to a strategy of tf.distribute, with errors that say what to do. Builds no model.

TensorFlow fixes its devices when it first runs anything: call `make_strategy` before that.
"""

from __future__ import annotations

import json
import os
import re

import tensorflow as tf

STRATEGY_NAMES = "auto, cpu:N, mirrored, multi-worker, tpu, tpu:NAME"


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """The strategy of a name.

    Args:
        name: "auto": every GPU of this machine, or else its CPU as one device. "cpu:N": the CPU as
            N logical devices. "mirrored": every GPU of this machine. "multi-worker": this process
            is one of those that the environment variable TF_CONFIG lists. "tpu" or "tpu:NAME": the
            TPU of this machine, or of that name or address.

    Raises:
        ValueError: an unknown name, or one whose devices are not there.
    """
    if name == "auto":
        several = len(tf.config.list_physical_devices("GPU")) > 1
        return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
    if cpus := re.fullmatch(r"cpu:([1-9]\d*)", name):
        return _cpu(int(cpus[1]))
    if name == "mirrored":
        if not tf.config.list_physical_devices("GPU"):
            raise ValueError(
                "Expected a GPU for the strategy 'mirrored'. Received: a machine on which "
                "TensorFlow finds none. The strategy 'cpu:2' mirrors over two logical CPU devices."
            )
        return tf.distribute.MirroredStrategy()
    if name == "multi-worker":
        _check_cluster()
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu" or name.startswith("tpu:"):
        return _tpu(name.partition(":")[2])
    if name in ("parameter-server", "parameter_server"):
        raise ValueError(
            "Expected a strategy of synchronous training. Received: 'parameter-server', which "
            "Keras 3 does not train under. Use 'multi-worker' for several machines."
        )
    raise ValueError(f"Expected a strategy among {STRATEGY_NAMES}. Received: {name!r}")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes: the only one, or the first of several workers."""
    resolver = strategy.cluster_resolver
    if resolver is None or not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    if "chief" in resolver.cluster_spec().jobs:
        return bool(resolver.task_type == "chief")
    return bool(resolver.task_type == "worker" and resolver.task_id == 0)


def _cpu(count: int) -> tf.distribute.Strategy:
    try:
        tf.config.set_visible_devices([], "GPU")
        if count > 1:
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0],
                [tf.config.LogicalDeviceConfiguration()] * count,
            )
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) != count:
            raise ValueError(
                f"Expected TensorFlow not to have run yet, so that the CPU can become {count} "
                f"devices. Received: {error} Make the strategy first in a new process."
            ) from error
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(count)])


def _check_cluster() -> None:
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        complete = bool(config["cluster"]) and {"type", "index"} <= set(config["task"])
    except (ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        raise ValueError(
            "Expected the environment variable TF_CONFIG to list the workers and name this one, "
            'such as {"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": '
            f'"worker", "index": 0}}}}. Received: TF_CONFIG={text!r}'
        )


def _tpu(name: str) -> tf.distribute.Strategy:
    """As the TPU guide has it; never run on a TPU by this project's tests."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(name or "local")
        return tf.distribute.TPUStrategy(resolver)
    # Seen without a TPU: NotFoundError from "local", URLError (an OSError) from a name.
    except (tf.errors.OpError, ValueError, OSError) as error:
        raise ValueError(
            f"Expected a TPU that answers. Received: {name or 'local'!r}, and from TensorFlow: "
            f"{str(error).splitlines()[0]} On a TPU machine install `tensorflow-tpu`; elsewhere "
            "use the strategy 'auto'."
        ) from error
