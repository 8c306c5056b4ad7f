"""The training step under TensorFlow, on any strategy of tf.distribute.

Keras's own `fit` does not run under MultiWorkerMirroredStrategy (keras issue 20585) and clips
before it sums over devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.training.step import Trainer
from keras_inception.training.tensorflow_devices import process_of
from keras_inception.training.tensorflow_update import fused_update


class TensorFlowTrainer(Trainer):
    """The step as a `tf.function` under a strategy.

    Args:
        spec, recipe, total_steps: as for `Trainer`.
        strategy: of `make_strategy`; None: one device.
    """

    lost_process_errors = (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.UnavailableError,
    )

    def __init__(
        self,
        spec: NetworkSpec,
        recipe: Recipe,
        strategy: tf.distribute.Strategy | None = None,
        *,
        total_steps: int,
    ) -> None:
        self._strategy = strategy or tf.distribute.get_strategy()
        with self._strategy.scope():
            super().__init__(spec, recipe, total_steps=total_steps)
        self._shares = self._strategy.num_replicas_in_sync
        for layer in self._normalizations:
            layer.synchronized = self._shares > 1
        # The CPU takes a step while it is called for; there is nothing to start ahead.
        self.steps_ahead = 2 if tf.config.list_logical_devices("GPU") else 0
        # No `if` or `for` of a step depends on a tensor: without AutoGraph, tracing is faster.
        autograph = self._shares > 1
        self._replica_step = (
            tf.function(self._take_step, jit_compile=True)
            if recipe.jit_compile
            else self._take_step
        )
        self._compiled_step = tf.function(self._step, autograph=autograph)
        self._compiled_evaluation = tf.function(self._sums, autograph=autograph)
        self._compiled_statistics = tf.function(self._see, autograph=autograph)

    @property
    def process(self) -> tuple[int, int]:
        """See `Trainer.process`."""
        return process_of(self._strategy)

    def put(self, batch: tuple[np.ndarray, ...]) -> Any:
        """See `Trainer.put`."""
        if self._shares == 1:
            return tuple(map(tf.convert_to_tensor, batch))
        index, count = self.process
        replicas = self._shares // count

        def of_replica(context: tf.distribute.ValueContext) -> tuple[Any, ...]:
            own = context.replica_id_in_sync_group - index * replicas
            return tuple(tf.convert_to_tensor(np.split(values, replicas)[own]) for values in batch)

        return self._strategy.experimental_distribute_values_from_function(of_replica)

    def start_step(self, batch: Any, *, stop: bool = False) -> Any:
        """See `Trainer.start_step`."""
        return self._compiled_step(*batch, tf.constant(float(stop)))

    def _step(self, images: Any, labels: Any, stop: Any) -> Any:
        self._set_rate()

        def on_replica(images: Any, labels: Any, stop: Any) -> Any:
            return tf.concat([self._replica_step(images, labels), [stop]], axis=0)

        values = self._strategy.run(on_replica, args=(images, labels, stop))
        return self._strategy.reduce("SUM", values, axis=None)

    def evaluation_sums(self, batch: Any) -> np.ndarray:
        """See `Trainer.evaluation_sums`."""
        return np.asarray(self._compiled_evaluation(*batch))

    def _sums(self, *batch: Any) -> Any:
        values = self._strategy.run(self._evaluation, args=batch)
        return self._strategy.reduce("SUM", values, axis=None)

    def see(self, batch: Any) -> None:
        """See `Trainer.see`."""
        self._compiled_statistics(batch[0])

    def _see(self, images: Any) -> None:
        self._strategy.run(lambda images: self.model(images, training=True), args=(images,))

    def _gradients(self, images: Any, labels: Any) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            metrics = self._metrics(self.model(images, training=True), labels)
            loss = metrics[0]
        return metrics, tape.gradient(loss, self.model.trainable_variables)

    def _parts(self, images: Any, labels: Any) -> Iterator[tuple[Any, Any]]:
        parts = self.recipe.micro_batches
        return zip(tf.split(images, parts), tf.split(labels, parts), strict=True)

    def _after(self, images: Any, gradients: list[Any]) -> Any:
        with tf.control_dependencies(gradients):
            return tf.identity(images)

    def _summed(self, gradients: list[Any]) -> list[Any]:
        return list(tf.distribute.get_replica_context().all_reduce("SUM", gradients))

    def _update(self, gradients: list[Any]) -> None:
        if tf.distribute.has_strategy():
            super()._update(gradients)
        else:
            fused_update(self.optimizer, self.model.trainable_variables, gradients)
