"""A recipe's learning rate in Keras's `fit`, whether or not the number of steps is known."""

from __future__ import annotations

from typing import Any

import keras

from keras_inception.spec.recipe import Recipe
from keras_inception.training.optimizer import learning_rate_schedule

# Steps into which an epoch is divided while the true number is not known.
_UNKNOWN_STEPS = 100


class RecipeSchedule(keras.callbacks.Callback):
    """Sets the learning rate of each step.

    The number of steps is Keras's (`steps_per_epoch`, or a count of the data), else that of the
    epoch before. In a first epoch of unknown length the rate is that of the epoch's middle.

    Args:
        recipe: has the schedule.
        epochs: that it covers.
    """

    def __init__(self, recipe: Recipe, epochs: int) -> None:
        super().__init__()
        self._recipe = recipe
        self._epochs = epochs
        self._steps: int | None = None
        self._seen = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Take Keras's number of steps, if it has one."""
        self._steps = self.params.get("steps")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch, which counts from `initial_epoch`."""
        self._epoch, self._seen = epoch, 0
        steps = self._steps or _UNKNOWN_STEPS
        self._schedule = learning_rate_schedule(self._recipe, steps * self._epochs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set the rate."""
        if self._steps is None:
            step = self._epoch * _UNKNOWN_STEPS + _UNKNOWN_STEPS // 2
        else:
            step = self._epoch * self._steps + min(batch, self._steps - 1)
        self.model.optimizer.learning_rate = float(self._schedule(step))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the steps of the epoch."""
        self._seen = batch + 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Expect as many steps in the next epoch."""
        self._steps = self._seen or self._steps
