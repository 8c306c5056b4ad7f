"""One training step for every strategy: one device, several, several processes, TPU.

The step is a function of (weights, batch) on public API: each device computes the losses of its
share of the batch, divided by the size of the whole batch; gradients are summed over the devices,
then clipped, then applied. So one device and many take the same step. Keras's own `fit` does not
run under MultiWorkerMirroredStrategy (keras issue 20585) and clips before it sums. TensorFlow only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_inception.network.build import build_network, inference_model
from keras_inception.network.endpoints import freeze_until
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.training.averaging import WeightAverage
from keras_inception.training.optimizer import (
    image_losses,
    is_correct,
    learning_rate_schedule,
    make_optimizer,
)

# Batches from which the statistics of batch normalization are taken for averaged weights.
STATISTICS_BATCHES = 50

# (shard_index, shard_count) -> batches of this worker's rows of each global batch.
ShardedBatches = Callable[[int, int], Iterator[tuple[np.ndarray, ...]]]


class Trainer:
    """A network, its optimizer and its averages under a strategy.

    Attributes:
        model: the network as it is trained, with its auxiliary classifiers; compiled with the
            optimizer, so that Keras's callbacks find it.
        metric_names: of the numbers that a step returns.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        recipe: Recipe,
        strategy: tf.distribute.Strategy,
        *,
        total_steps: int,
    ) -> None:
        check_strategy(recipe, strategy)
        self.recipe = recipe
        self.strategy = strategy
        with strategy.scope(), _precision(recipe.precision):
            self.model = build_network(spec, auxiliary=bool(spec.aux))
            if recipe.freeze_until:
                freeze_until(self.model, recipe.freeze_until)
            self.optimizer = make_optimizer(recipe, recipe.learning_rate)
            self.optimizer.build(self.model.trainable_variables)
            self.model.compile(self.optimizer)
            self.average = None
            if recipe.average != "none":
                self.average = WeightAverage(self.model.trainable_variables, recipe, total_steps)
        self._rate = learning_rate_schedule(recipe, total_steps)
        self._normalizations = [
            layer
            for layer in self.model.layers
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        for layer in self._normalizations:
            layer.synchronized = strategy.num_replicas_in_sync > 1
        self.metric_names: tuple[str, ...] = ("loss", "accuracy")
        if isinstance(self.model.output, dict):
            self.metric_names += tuple(f"{name}_loss" for name in self.model.output)
        self._compiled_step = tf.function(self._step)
        self._compiled_evaluation = tf.function(self._evaluate)
        self._compiled_statistics = tf.function(self._statistics)
        self._replica_step_function = (
            tf.function(self._replica_step, jit_compile=True)
            if recipe.jit_compile
            else self._replica_step
        )

    @property
    def has_other_workers(self) -> bool:
        """Whether other processes train along."""
        return isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy)

    def distribute(self, batches: ShardedBatches) -> Any:
        """Batches spread over the devices: each worker reads its rows, each device a part."""

        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            rows = context.get_per_replica_batch_size(self.recipe.batch_size)
            source = batches(context.input_pipeline_id, context.num_input_pipelines)
            first = next(source)
            dataset = tf.data.Dataset.from_generator(
                lambda: itertools.chain([first], source),
                output_signature=tuple(tf.TensorSpec(part.shape, part.dtype) for part in first),
            )
            return dataset.rebatch(rows) if self.strategy.num_replicas_in_sync > 1 else dataset

        return self.strategy.distribute_datasets_from_function(of_worker)

    def step(self, batch: Any, *, stop: bool = False) -> tuple[dict[str, float], bool]:
        """Take one training step on one batch of `distribute`.

        Args:
            batch: images and labels, spread over the devices.
            stop: whether this process is asked to stop.

        Returns:
            The batch's metrics, and whether any process is asked to stop: all learn it at the
            same step.
        """
        *metrics, stops = self._compiled_step(*batch, tf.constant(float(stop))).numpy().tolist()
        return dict(zip(self.metric_names, metrics, strict=True)), stops > 0

    def _step(self, images: Any, labels: Any, stop: Any) -> Any:
        # Once a step. Keras 3.15 (`_apply_weight_decay`) computes a schedule anew for each weight,
        # a third of the time that TensorFlow takes to compile the step of a small network.
        self.optimizer.learning_rate.assign(self._rate(self.optimizer.iterations))
        values = self.strategy.run(self._replica_step_function, args=(images, labels, stop))
        return self.strategy.reduce("SUM", values, axis=None)

    def _replica_step(self, images: Any, labels: Any, stop: Any) -> Any:
        weights = self.model.trainable_variables
        parts = self.recipe.micro_batches
        gradients: list[Any] = []
        metrics = tf.zeros(len(self.metric_names))
        for part, part_labels in zip(tf.split(images, parts), tf.split(labels, parts), strict=True):
            # The next part waits for the last one's gradients, or all would be in memory at once.
            with tf.control_dependencies(gradients):
                part = tf.identity(part)
            with tf.GradientTape() as tape:
                part_metrics = self._losses(self.model(part, training=True), part_labels)
            part_gradients = tape.gradient(part_metrics[0], weights)
            gradients = [
                part_gradients[index] + total for index, total in enumerate(gradients)
            ] or part_gradients
            metrics += tf.stack(part_metrics)
        self.optimizer.apply(self._clipped(gradients), weights)
        if self.average:
            self.average.update(self.optimizer.iterations.value)
        return tf.concat([metrics, [stop]], axis=0)

    def _losses(self, outputs: Any, labels: Any) -> list[Any]:
        """This device's addends to the metrics; the first is what is minimized."""
        outputs = outputs if isinstance(outputs, dict) else {"main": outputs}

        def mean(values: Any) -> Any:
            return tf.nn.compute_average_loss(values, global_batch_size=self.recipe.batch_size)

        losses = {
            name: mean(image_losses(labels, scores, self.recipe))
            for name, scores in outputs.items()
        }
        total = sum(
            loss if name == "main" else self.recipe.aux_loss_weight * loss
            for name, loss in losses.items()
        )
        accuracy = mean(is_correct(labels, outputs["main"]))
        return [total, accuracy, *(losses.values() if len(losses) > 1 else ())]

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        """Gradients cut to the recipe's norm, which is that of their sum over the devices."""
        if not self.recipe.clip_norm:
            return gradients
        replicas = self.strategy.num_replicas_in_sync
        summed = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        clipped, _ = tf.clip_by_global_norm(summed, self.recipe.clip_norm)
        return [gradient / replicas for gradient in clipped]  # the optimizer sums once more

    def evaluate(
        self, batches: Any, after_batch: Callable[[int], None] = lambda batch: None
    ) -> dict[str, float]:
        """Mean cross-entropy and accuracy of the main output as the weights are now.

        Args:
            batches: of `distribute`: images, labels and weights, 0 for rows that only fill up.
            after_batch: called with the number of each.
        """
        sums = np.zeros(3)
        for number, batch in enumerate(batches):
            sums += self._compiled_evaluation(*batch).numpy()
            after_batch(number)
        return {"loss": float(sums[0] / sums[2]), "accuracy": float(sums[1] / sums[2])}

    def _evaluate(self, images: Any, labels: Any, weights: Any) -> Any:
        def on_replica(images: Any, labels: Any, weights: Any) -> Any:
            outputs = self.model(images, training=False)
            scores = outputs["main"] if isinstance(outputs, dict) else outputs
            losses = keras.losses.sparse_categorical_crossentropy(labels, scores)
            values = tf.stack([losses, is_correct(labels, scores), tf.ones_like(weights)])
            return tf.linalg.matvec(values, weights)

        values = self.strategy.run(on_replica, args=(images, labels, weights))
        return self.strategy.reduce("SUM", values, axis=None)

    @contextmanager
    def averaged(self, training_batches: ShardedBatches) -> Iterator[None]:
        """Within it the model has the averaged weights, and its own again afterwards.

        Batch normalization gets statistics of its own for them: the means, over the first
        `STATISTICS_BATCHES` batches, of what each batch shows under the averaged weights.
        """
        if self.average is None:
            yield
            return
        variables = self.model.variables
        own = [keras.ops.convert_to_numpy(variable) for variable in variables]
        try:
            for weight, average in zip(
                self.model.trainable_variables, self.average.variables, strict=True
            ):
                weight.assign(average.numpy())
            if self._normalizations:
                self._estimate_statistics(self.distribute(training_batches))
            yield
        finally:
            for variable, value in zip(variables, own, strict=True):
                variable.assign(value)

    def _estimate_statistics(self, training_batches: Any) -> None:
        statistics = [
            variable
            for layer in self._normalizations
            for variable in (layer.moving_mean, layer.moving_variance)
        ]
        momenta = [layer.momentum for layer in self._normalizations]
        for layer in self._normalizations:
            layer.momentum = 0.0  # a batch's statistics take the place of the last one's
        try:
            batches = iter(training_batches)
            sums = [np.zeros(variable.shape) for variable in statistics]
            for _ in range(STATISTICS_BATCHES):
                images, _ = next(batches)
                self._compiled_statistics(images)
                for total, variable in zip(sums, statistics, strict=True):
                    total += variable.numpy()
        finally:
            for layer, momentum in zip(self._normalizations, momenta, strict=True):
                layer.momentum = momentum
        for total, variable in zip(sums, statistics, strict=True):
            variable.assign(total / STATISTICS_BATCHES)

    def _statistics(self, images: Any) -> None:
        self.strategy.run(lambda images: self.model(images, training=True), args=(images,))

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on, but the data: name -> array.

        Weights, statistics, random state of dropout, optimizer with its step, averages.
        """
        return {name: np.asarray(variable) for name, variable in self._state_variables()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set everything to what `state` returned.

        Raises:
            ValueError: the state of another network or optimizer.
        """
        variables = dict(self._state_variables())
        expected = {name: tuple(variable.shape) for name, variable in variables.items()}
        received = {name: value.shape for name, value in state.items()}
        if expected != received:
            wrong = sorted(
                name
                for name in expected.keys() | received.keys()
                if expected.get(name) != received.get(name)
            )
            raise ValueError(
                "Expected a state of this network and optimizer. Received: one that differs in "
                f"{wrong}"
            )
        for name, variable in variables.items():
            variable.assign(state[name])

    def _state_variables(self) -> Iterator[tuple[str, Any]]:
        groups = {
            "model": self.model.variables,
            "optimizer": self.optimizer.variables,
            "average": self.average.variables if self.average else [],
        }
        for group, variables in groups.items():
            for index, variable in enumerate(variables):
                yield f"{group}/{index}", variable

    def deployed(self, spec: NetworkSpec) -> keras.Model:
        """A new model of one output, in float32, with the weights as they are now."""
        source = inference_model(self.model)
        model = build_network(spec)
        for layer in model.layers:
            layer.set_weights(source.get_layer(layer.name).get_weights())
        return model


def check_strategy(recipe: Recipe, strategy: tf.distribute.Strategy) -> None:
    """What a strategy cannot do.

    Raises:
        ValueError: a batch that the devices cannot share evenly, or XLA on several of them.
    """
    replicas = strategy.num_replicas_in_sync
    if recipe.batch_size % (replicas * recipe.micro_batches):
        raise ValueError(
            f"Expected a batch that {replicas} devices of {recipe.micro_batches} micro-batches "
            f"share evenly. Received: batch_size={recipe.batch_size}"
        )
    if recipe.jit_compile and replicas > 1:
        raise ValueError(
            "Expected jit_compile only on one device: tf.distribute does not compile a step that "
            f"sums over devices. Received: {replicas} devices. Use jit_compile=False."
        )


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
