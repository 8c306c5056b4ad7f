"""One definition of the training step, in `keras.ops`, for every backend and any number of devices.

A step is a function of (weights, batch): each device computes the losses of its share of the batch
from logits in float32, divided by the size of the whole batch; gradients are summed over the
devices, then clipped, then applied. So one device and many take the same step. What a backend does
by itself (gradients, compilation, devices) is in its engine: `tensorflow_engine`, `jax_engine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_inception.data.splits import AnySplit
from keras_inception.data.stream import training_batches
from keras_inception.network.build import build_network, inference_model
from keras_inception.network.endpoints import freeze_until
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.training.averaging import WeightAverage
from keras_inception.training.losses import (
    image_losses,
    is_correct,
    output_weight,
    training_losses,
)
from keras_inception.training.optimizer import learning_rate_schedule, make_optimizer

# Batches from which the statistics of batch normalization are taken for averaged weights.
STATISTICS_BATCHES = 50

# (shard_index, shard_count) -> this process's rows of each global batch.
ShardedBatches = Callable[[int, int], Generator[tuple[np.ndarray, ...], None, None]]
# (start_step, shard_index, shard_count) -> the same of the training images, from a step.
TrainingStream = Callable[[int, int, int], Generator[tuple[Any, ...], None, None]]


class Trainer(ABC):
    """A network, its optimizer and its averages on some devices.

    Args:
        spec: the architecture, with auxiliary classifiers if it has some.
        recipe: how to train. `class_weights` are numbers here.
        total_steps: of the whole run, for the schedule.

    Attributes:
        model: the network as it is trained: its outputs are logits. Compiled with the optimizer, so
            that Keras's callbacks find it.
        metric_names: of the numbers that a step returns.
        steps_ahead: how many steps a loop may start before it waits for the metrics of the first,
            so that an accelerator does not wait for the host.
    """

    steps_ahead = 0
    # What the engine raises in the processes that are left when another one is lost.
    lost_process_errors: tuple[type[Exception], ...] = ()

    def __init__(self, spec: NetworkSpec, recipe: Recipe, *, total_steps: int) -> None:
        self.spec = spec
        self.recipe = recipe
        with _precision(recipe.precision):
            self.model = build_network(spec, auxiliary=bool(spec.aux), classifier_activation=None)
        if recipe.freeze_until:
            freeze_until(self.model, recipe.freeze_until)
        weights = self.model.trainable_variables
        self.optimizer = make_optimizer(recipe, weights, recipe.learning_rate)
        self.model.compile(self.optimizer)
        self.average = None
        if recipe.average != "none":
            self.average = WeightAverage(weights, recipe, total_steps)
        self._deployed: keras.Model | None = None
        self._rate = learning_rate_schedule(recipe, total_steps)
        self._normalizations = [
            layer
            for layer in self.model.layers
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        self.metric_names: tuple[str, ...] = ("loss", "accuracy")
        if isinstance(self.model.output, dict):
            self.metric_names += tuple(f"{name}_loss" for name in self.model.output)

    # What a backend does by itself.

    @property
    @abstractmethod
    def process(self) -> tuple[int, int]:
        """Number of this process among those that train together, and how many they are."""

    @abstractmethod
    def put(self, batch: tuple[np.ndarray, ...]) -> Any:
        """This process's rows of a batch on its devices."""

    @abstractmethod
    def start_step(self, batch: Any, *, stop: bool = False) -> Any:
        """Start a training step on a batch of `put`; `finish_step` waits for its end.

        Args:
            batch: images and labels.
            stop: whether this process is asked to stop.
        """

    @abstractmethod
    def evaluation_sums(self, batch: Any) -> np.ndarray:
        """Sums of `_evaluation` over the devices, of a batch with weights."""

    @abstractmethod
    def see(self, batch: Any) -> None:
        """Run the network in training mode on images, for its statistics alone."""

    @abstractmethod
    def _gradients(self, images: Any, labels: Any) -> tuple[Any, list[Any]]:
        """Metrics of `_metrics`, and the gradients of the first, on this device."""

    @abstractmethod
    def _parts(self, images: Any, labels: Any) -> Iterator[tuple[Any, Any]]:
        """A device's share of a batch in `recipe.micro_batches` equal parts."""

    @abstractmethod
    def _after(self, images: Any, gradients: list[Any]) -> Any:
        """The images, not to be used before the gradients are there."""

    def _summed(self, gradients: list[Any]) -> list[Any]:
        """Gradients summed over the devices."""
        return gradients

    # How many devices apply gradients that are summed once more when they are.
    _shares = 1

    # The step.

    def step(self, batch: Any, *, stop: bool = False) -> tuple[dict[str, float], bool]:
        """Take one step and wait for it; see `start_step` and `finish_step`."""
        return self.finish_step(self.start_step(batch, stop=stop))

    def finish_step(self, started: Any) -> tuple[dict[str, float], bool]:
        """Wait for a step.

        Returns:
            The batch's metrics, and whether any process is asked to stop: all learn it at the
            same step.
        """
        *metrics, stops = ops.convert_to_numpy(started).tolist()
        return dict(zip(self.metric_names, metrics, strict=True)), stops > 0

    def _set_rate(self) -> None:
        # Once a step. Keras 3.15 (`_apply_weight_decay`) computes a schedule again for each weight,
        # a third of the time that TensorFlow takes to compile the step of a small network.
        self.optimizer.learning_rate.assign(self._rate(self.optimizer.iterations))

    def _take_step(self, images: Any, labels: Any) -> Any:
        """Change the weights on a device; returns its addends to the metrics."""
        metrics: Any = 0.0
        gradients: list[Any] = []
        for part, part_labels in self._parts(images, labels):
            # A part waits for the last one's gradients, or all would be in memory at once.
            part = self._after(part, gradients)
            part_metrics, part_gradients = self._gradients(part, part_labels)
            gradients = [
                part_gradients[index] + total for index, total in enumerate(gradients)
            ] or part_gradients
            metrics = metrics + part_metrics
        self._apply(self._clipped(gradients))
        if self.average:
            self.average.update(self.optimizer.iterations)
        return metrics

    def _apply(self, gradients: list[Any]) -> None:
        weights, rate = self.model.trainable_variables, self.recipe.bias_rate
        if rate != 1:
            gradients = [
                rate * own if weight.name == "bias" else own
                for weight, own in zip(weights, gradients, strict=True)
            ]
        self._update(gradients)

    def _update(self, gradients: list[Any]) -> None:
        """Let the optimizer change the weights; `gradients` are summed over the devices."""
        self.optimizer.apply(gradients, self.model.trainable_variables)

    def _metrics(self, outputs: Any, labels: Any) -> Any:
        """Addends to `metric_names`, float32; the first is what is minimized."""
        outputs = outputs if isinstance(outputs, dict) else {"main": outputs}
        recipe = self.recipe

        def mean(values: Any) -> Any:
            return ops.sum(values) / recipe.batch_size

        losses = {
            name: mean(training_losses(labels, logits, recipe)) for name, logits in outputs.items()
        }
        total = sum(output_weight(name, recipe) * loss for name, loss in losses.items())
        accuracy = mean(is_correct(labels, outputs["main"]))
        return ops.stack([total, accuracy, *(losses.values() if len(losses) > 1 else ())])

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        """Gradients cut to the recipe's norm, which is that of their sum over the devices."""
        if not self.recipe.clip_norm:
            return gradients
        summed = self._summed(gradients)
        norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in summed))
        factor = self.recipe.clip_norm / ops.maximum(norm, self.recipe.clip_norm)
        return [gradient * factor / self._shares for gradient in summed]

    # Data.

    def stream(self, split: AnySplit) -> TrainingStream:
        """The training batches of a split, ready for `batches`."""

        def batches(start_step: int, shard_index: int, shard_count: int) -> Any:
            return training_batches(
                split,
                self.spec,
                self.recipe,
                start_step=start_step,
                shard_index=shard_index,
                shard_count=shard_count,
            )

        return batches

    def batches(self, sharded: ShardedBatches) -> Generator[Any, None, None]:
        """Batches on the devices: each process prepares its rows alone."""
        with closing(sharded(*self.process)) as source:
            for batch in source:
                yield self.put(batch)

    # Evaluation.

    def evaluate(
        self, batches: ShardedBatches, after_batch: Callable[[int], None] = lambda batch: None
    ) -> dict[str, float]:
        """Mean cross-entropy and accuracy of the main output as the weights are now.

        Args:
            batches: images, labels and weights, 0 for rows that only fill up.
            after_batch: called with the number of each.
        """
        sums = np.zeros(3)
        for number, batch in enumerate(self.batches(batches)):
            sums += self.evaluation_sums(batch)
            after_batch(number)
        return {"loss": float(sums[0] / sums[2]), "accuracy": float(sums[1] / sums[2])}

    def _evaluation(self, images: Any, labels: Any, weights: Any) -> Any:
        """Sums of losses, of hits and of weights, on a device."""
        outputs = self.model(images, training=False)
        logits = outputs["main"] if isinstance(outputs, dict) else outputs
        values = [image_losses(labels, logits), is_correct(labels, logits), ops.ones_like(weights)]
        return ops.matmul(ops.stack(values), weights)

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
        own = [ops.convert_to_numpy(variable) for variable in variables]
        try:
            for weight, average in zip(
                self.model.trainable_variables, self.average.variables, strict=True
            ):
                weight.assign(ops.convert_to_numpy(average))
            if self._normalizations:
                self._estimate_statistics(training_batches)
            yield
        finally:
            for variable, value in zip(variables, own, strict=True):
                variable.assign(value)

    def _estimate_statistics(self, training_batches: ShardedBatches) -> None:
        statistics = [
            variable
            for layer in self._normalizations
            for variable in (layer.moving_mean, layer.moving_variance)
        ]
        momenta = [layer.momentum for layer in self._normalizations]
        for layer in self._normalizations:
            layer.momentum = 0.0  # a batch's statistics take the place of the last one's
        batches = self.batches(training_batches)
        try:
            sums = [np.zeros(variable.shape) for variable in statistics]
            for batch in islice(batches, STATISTICS_BATCHES):
                self.see(batch)
                for total, variable in zip(sums, statistics, strict=True):
                    total += ops.convert_to_numpy(variable)
        finally:
            batches.close()
            for layer, momentum in zip(self._normalizations, momenta, strict=True):
                layer.momentum = momentum
        for total, variable in zip(sums, statistics, strict=True):
            variable.assign(total / STATISTICS_BATCHES)

    # The state.

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on, but the data: name -> array.

        Weights, statistics, random state of dropout, optimizer with its step, averages.
        """
        return {name: np.array(ops.convert_to_numpy(v)) for name, v in self._state_variables()}

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

    def deployed(self) -> keras.Model:
        """The model of one output with its softmax, in float32, with the weights as they are.

        It is built once, and has the weights of the latest call.
        """
        source = inference_model(self.model)
        if self._deployed is None:
            self._deployed = build_network(self.spec)
        for layer in self._deployed.layers:
            layer.set_weights(source.get_layer(layer.name).get_weights())
        return self._deployed


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
