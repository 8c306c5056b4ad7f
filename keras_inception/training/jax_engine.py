"""The training step under JAX: one jitted function of all variables' values, on any devices.

Within `keras.StatelessScope` reading a variable gives the value that the function was called with,
and assigning it is remembered, as in Keras's `stateless_call` and `stateless_apply`. Several
devices share the rows of a batch (`keras.distribution.DataParallel`); XLA adds the sums over
devices, so the step is that of one device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import keras
import numpy as np

from keras_inception.data.splits import AnySplit
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.training.jax_arrays import held_images
from keras_inception.training.jax_devices import device_count, process_of
from keras_inception.training.step import Trainer, TrainingStream


class JaxTrainer(Trainer):
    """The step as a jitted function.

    Args:
        spec, recipe, total_steps: as for `Trainer`.
        strategy: the devices; None: one.

    Attributes:
        holds_images: keep training images on the device where that is possible (`jax_arrays`).
    """

    lost_process_errors = (jax.errors.JaxRuntimeError,)

    def __init__(
        self,
        spec: NetworkSpec,
        recipe: Recipe,
        strategy: keras.distribution.DataParallel | None = None,
        *,
        total_steps: int,
    ) -> None:
        self._strategy = strategy
        with strategy.scope() if strategy else nullcontext(), _quick_compilation():
            super().__init__(spec, recipe, total_steps=total_steps)
        self._devices = device_count(strategy)
        accelerator = jax.default_backend() != "cpu"
        self.steps_ahead = 2 if accelerator else 0
        self.holds_images = accelerator and strategy is None
        self._variables = [variable for _, variable in self._state_variables()]
        self._jitted_step = jax.jit(self._stateless(self._step), donate_argnums=0)
        evaluation = self._stateless(self._evaluation)
        self._jitted_evaluation = jax.jit(lambda *arguments: evaluation(*arguments)[0])
        self._jitted_statistics = jax.jit(self._stateless(self._see), donate_argnums=0)

    @property
    def process(self) -> tuple[int, int]:
        """See `Trainer.process`."""
        return process_of(self._strategy)

    def put(self, batch: tuple[np.ndarray, ...]) -> Any:
        """See `Trainer.put`."""
        if self._strategy is None:
            return tuple(map(jax.device_put, batch))
        return tuple(
            jax.make_array_from_process_local_data(
                self._strategy.get_data_layout(values.shape).backend_layout, values
            )
            for values in batch
        )

    def stream(self, split: AnySplit) -> TrainingStream:
        """See `Trainer.stream`; an accelerator holds images that fit."""
        held = held_images(split, self.spec, self.recipe) if self.holds_images else None
        if held is None:
            return super().stream(split)
        return lambda start_step, shard_index, shard_count: held.batches(start_step)

    def start_step(self, batch: Any, *, stop: bool = False) -> Any:
        """See `Trainer.start_step`."""
        rows = self._devices // self.process[1]
        (stops,) = self.put((np.full(rows, stop, np.float32),))
        return self._assigning(self._jitted_step, *batch, stops)

    def _step(self, images: Any, labels: Any, stops: Any) -> Any:
        self._set_rate()
        metrics = self._take_step(images, labels)
        return jax.numpy.append(metrics, stops.sum())

    def evaluation_sums(self, batch: Any) -> np.ndarray:
        """See `Trainer.evaluation_sums`."""
        return np.asarray(self._jitted_evaluation(self._values(), *batch))

    def see(self, batch: Any) -> None:
        """See `Trainer.see`."""
        self._assigning(self._jitted_statistics, batch[0])

    def _see(self, images: Any) -> None:
        self.model(images, training=True)

    def _gradients(self, images: Any, labels: Any) -> tuple[Any, list[Any]]:
        weights, others = self.model.trainable_variables, self.model.non_trainable_variables

        def losses(values: list[Any]) -> tuple[Any, Any]:
            outputs, changed = self.model.stateless_call(
                values, [variable.value for variable in others], images, training=True
            )
            metrics = self._metrics(outputs, labels)
            return metrics[0], (metrics, changed)

        gradients, (metrics, changed) = jax.grad(losses, has_aux=True)(
            [variable.value for variable in weights]
        )
        for variable, value in zip(others, changed, strict=True):
            variable.assign(value)
        return metrics, gradients

    def _parts(self, images: Any, labels: Any) -> Iterator[tuple[Any, Any]]:
        def part(values: Any, number: int) -> Any:
            shares = values.reshape(self._devices, self.recipe.micro_batches, -1, *values.shape[1:])
            return shares[:, number].reshape(-1, *values.shape[1:])

        for number in range(self.recipe.micro_batches):
            yield part(images, number), part(labels, number)

    def _after(self, images: Any, gradients: list[Any]) -> Any:
        return jax.lax.optimization_barrier((images, gradients))[0]

    def _values(self) -> list[Any]:
        return [variable.value for variable in self._variables]

    def _assigning(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of `_stateless`, and assign what it changed."""
        result, changed = function(self._values(), *arguments)
        for variable, value in zip(self._variables, changed, strict=True):
            variable.assign(value)
        return result

    def _stateless(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A pure function (values of all variables, arguments) -> (result, new values)."""

        def pure(values: list[Any], *arguments: Any) -> tuple[Any, list[Any]]:
            pairs = list(zip(self._variables, values, strict=True))
            with keras.StatelessScope(state_mapping=pairs) as scope:
                result = function(*arguments)
            return result, [scope.get_current_value(variable) for variable in self._variables]

        return pure


@contextmanager
def _quick_compilation() -> Iterator[None]:
    """Let XLA optimize little: initial values are computed once, by a program for each shape."""
    option = "jax_disable_most_optimizations"
    before = jax.config.read(option)
    jax.config.update(option, True)
    try:
        yield
    finally:
        jax.config.update(option, before)
