"""The average of the weights over the steps: Polyak's uniform one, or an exponential one.

Source: Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging"; the
paper trains with it (section 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_inception.spec.recipe import Recipe


class WeightAverage:
    """Running average of some weights. Make it within the strategy's scope.

    Args:
        weights: Keras variables.
        recipe: gives the kind, the momentum and the start.
        total_steps: of the whole run.
    """

    def __init__(self, weights: Sequence[Any], recipe: Recipe, total_steps: int) -> None:
        self._weights = weights
        self._start = round(recipe.average_start * total_steps)
        self._least_rate = 1 - recipe.average_momentum if recipe.average == "exponential" else 0.0
        # Every device keeps a copy of its own: all are equal, since the weights are.
        self.variables = [
            keras.Variable(
                ops.convert_to_numpy(weight),
                trainable=False,
                dtype="float32",
                synchronization="on_read",
                aggregation="only_first_replica",
                name="average",
            )
            for weight in weights
        ]

    def rate(self, step: Any) -> Any:
        """Share of the weights after `step` (counted from 1) in the average, float32.

        The n-th weights averaged enter with 1/n, which makes a uniform average; an exponential one
        is uniform until that falls to 1 - momentum. Until the start the average is the weights.
        """
        averaged = ops.maximum(1.0, ops.cast(step - self._start, "float32"))
        return ops.maximum(1.0 / averaged, self._least_rate)

    def update(self, step: Any) -> None:
        """Take in the weights as they are after `step`; called on each device."""
        rate = self.rate(step)
        for average, weight in zip(self.variables, self._weights, strict=True):
            average.assign_add(rate * (weight - average))
