"""The hyperparameters of a search: their ranges, random values, and grids for stock tuners."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from tuning.projection import Value

# Largest share of a branch, in its width; a share of 0 removes it.
MAX_SHARE = 2.0
SHARE_STEP = 0.25
# On a grid, for tuners that try every combination: the factor and the distance of its values.
GRID_FACTOR, GRID_STEP = 2.0, 1.0


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """A hyperparameter: a number from `low` to `high`, or one of `choices`.

    Attributes:
        name: such as "stage_3/width_ratio".
        neutral: its value at the neutral point.
        low, high: of a number.
        integer: whether the number is one.
        log: whether it is a ratio, on a logarithmic scale.
        step: between the values of a share; None: any value.
        choices: in the place of a number.
    """

    name: str
    neutral: Value
    low: float = 0.0
    high: float = 0.0
    integer: bool = False
    log: bool = False
    step: float | None = None
    choices: tuple[str, ...] = ()

    def random_value(self, draw: random.Random) -> Value:
        """A uniform value, of a ratio uniform in its logarithm."""
        if self.choices:
            return draw.choice(self.choices)
        if self.integer:
            return draw.randint(int(self.low), int(self.high))
        if self.step:
            count = round((self.high - self.low) / self.step)
            return self.low + self.step * draw.randint(0, count)
        return math.exp(draw.uniform(math.log(self.low), math.log(self.high)))

    def declare(self, hp: Any, *, grid: bool) -> Value:
        """Register it with KerasTuner's hyperparameters, and take its value."""
        if self.choices:
            return hp.Choice(self.name, list(self.choices), default=self.neutral)
        if self.integer:
            return hp.Int(self.name, int(self.low), int(self.high), default=self.neutral)
        low, high, step = self.low, self.high, self.step
        if self.log and grid:
            low, high, step = _grid_bound(low), _grid_bound(high), GRID_FACTOR
        elif grid:
            step = GRID_STEP
        sampling = "log" if self.log else "linear"
        return hp.Float(self.name, low, high, step=step, sampling=sampling, default=self.neutral)


def _grid_bound(bound: float) -> float:
    """The power of the grid's factor that is nearest to a bound, towards 1."""
    return GRID_FACTOR ** math.trunc(math.log(bound, GRID_FACTOR) + 1e-9 * (bound > 1))


def ratio_dimension(name: str, largest: float) -> Dimension:
    """A ratio from the inverse of the largest to the largest."""
    return Dimension(name=name, neutral=1.0, low=1 / largest, high=largest, log=True)


def share_dimension(name: str) -> Dimension:
    """A share of a branch."""
    return Dimension(name=name, neutral=1.0, low=0.0, high=MAX_SHARE, step=SHARE_STEP)
