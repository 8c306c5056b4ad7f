"""What a worker may report of a trial. A chief takes nothing on trust that it can check."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras_tuner

from tuning.engine.control import point_of

Bounds = tuple[float, float]


def check_results(metrics: Mapping[str, float], bounds: Mapping[str, Bounds]) -> None:
    """Check that results have the expected numbers, finite and within their bounds.

    Raises:
        ValueError: they do not.
    """
    missing = sorted(set(bounds) - set(metrics))
    if missing:
        raise ValueError(f"Expected results with {', '.join(missing)}. Received: {list(metrics)}")
    for name, value in metrics.items():
        low, high = bounds.get(name, (-math.inf, math.inf))
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(
                f"Expected {name} to be finite, from {low:g} to {high:g}. Received: {value!r}"
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
