"""From a name to a strategy of tf.distribute, with errors that say what to do. Builds no model.

TensorFlow fixes its devices when it first runs anything: call `make_strategy` before that.
"""

from __future__ import annotations

import json
import os
import re

import tensorflow as tf

NAMES = "auto, cpu:N, mirrored, multi-worker, tpu, tpu:NAME"


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of a name; see `strategy.make_strategy`."""
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
    raise ValueError(f"Expected a strategy among {NAMES}. Received: {name!r}")


def device_count(strategy: tf.distribute.Strategy | None) -> int:
    """Devices that share a batch, those of other processes included."""
    return 1 if strategy is None else int(strategy.num_replicas_in_sync)


def process_of(strategy: tf.distribute.Strategy | None) -> tuple[int, int]:
    """Number of this process among those that train together, and how many they are."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec()
    # As the strategy counts: the chief, if there is one, then the workers.
    tasks = [(job, task) for job in ("chief", "worker") for task in _tasks(cluster, job)]
    return tasks.index((resolver.task_type, resolver.task_id)), len(tasks)


def _tasks(cluster: tf.train.ClusterSpec, job: str) -> list[int]:
    return list(cluster.task_indices(job)) if job in cluster.jobs else []


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
