"""What a worker may report of a trial. A chief takes nothing on trust that it can check."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras_tuner

from keras_inception.bounded import shown
from tuning.engine.control import point_of
from tuning.engine.pruning import STOPPED_EPOCH

Bounds = tuple[float, float]
_EPOCHS: Bounds = (1.0, 1e6)
# A search has ten or so; each is kept in files that are read again and again.
_MOST_NUMBERS = 100


def check_results(metrics: Mapping[str, float], bounds: Mapping[str, Bounds]) -> None:
    """Check that results have the expected numbers, and all are finite and within their bounds.

    Raises:
        ValueError: they do not.
    """
    missing = sorted(set(bounds) - set(metrics))
    if missing:
        raise ValueError(
            f"Expected results with {', '.join(missing)}. Received: {shown(list(metrics))}"
        )
    if len(metrics) > _MOST_NUMBERS:
        raise ValueError(
            f"Expected at most {_MOST_NUMBERS} numbers of a trial. Received: {len(metrics):,}"
        )
    every = {STOPPED_EPOCH: _EPOCHS, **bounds}
    for name, value in metrics.items():
        low, high = every.get(name, (-math.inf, math.inf))
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(
                f"Expected {name[:40]} to be finite, from {low:g} to {high:g}. Received: {value!r}"
            )


def check_point(sent: Mapping[str, Any], proposed: Mapping[str, Any]) -> None:
    """Check that a worker ran the point that was proposed.

    Raises:
        ValueError: it names another.
    """
    received, expected = point_of(sent), point_of(proposed)
    if received != expected:
        raise ValueError(f"Expected hyperparameters {expected!r}. Received: {received!r}")


def check_space(sent: keras_tuner.HyperParameters, space: keras_tuner.HyperParameters) -> None:
    """Check that hyperparameters are those of a space.

    Raises:
        ValueError: some are not.
    """
    known = {item.name for item in space.space}
    strange = sorted({item.name for item in sent.space} - known)
    if strange:
        raise ValueError(f"Expected hyperparameters of the space. Received: {strange!r}")
