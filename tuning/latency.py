"""A latency budget: a bound on the milliseconds that a fitted model predicts.

The time of a network is a sum over its layers: for each kind of layer a time a layer, a time a
multiply-add and a time an element written, none negative, so that a wider network is never
predicted faster. `latency_fit` fits the model to timings of real networks.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from keras_inception.bounded import shown
from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import NetworkCost
from keras_inception.runtimes.timing import Conditions
from keras_inception.spec.validation import (
    Migrations,
    from_fields,
    is_finite,
    json_document,
    object_of,
    require_instance,
    require_numbers,
    unexpected,
)

SCHEMA_VERSION = 2


def _from_1(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 timed TensorFlow's graph on all cores, whose number it did not write."""
    old = dict(data)
    return old | {"conditions": {"batch_size": old.pop("batch_size", 1), "threads": None}}


MIGRATIONS: Migrations = {1: _from_1}


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Milliseconds an image under the conditions of the timings.

    Attributes:
        coefficients: milliseconds of a network, and by kind of layer of a layer, of a million
            multiply-adds and of a million elements written.
        error: mean relative error for networks that it was not fitted to.
        conditions: runtime, precision, batch size, threads and device of the timings.
    """

    coefficients: dict[str, float]
    error: float
    conditions: Conditions

    def __post_init__(self) -> None:
        require_instance(self, "conditions", Conditions)
        require_numbers(self, "error", positive=False)
        numbers = self.coefficients.values() if isinstance(self.coefficients, dict) else [None]
        if not all(is_finite(number) and number >= 0 for number in numbers):
            raise unexpected(self, "coefficients", "an object of numbers of 0 or more")

    def milliseconds(self, cost: NetworkCost) -> float:
        """The predicted time of one image.

        Raises:
            ValueError: a kind of layer that the fitted networks did not have.
        """
        features = latency_features(cost)
        unknown = sorted(set(features) - set(self.coefficients))
        if unknown:
            raise ValueError(
                f"Expected the layers of the networks that were timed. Received: {unknown}. "
                "Fit the model to networks of this form."
            )
        return sum(self.coefficients[name] * value for name, value in features.items())

    def to_json(self) -> str:
        """JSON text; `from_json` gives an equal model back."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LatencyModel:
        """Read what `to_json` wrote.

        Raises:
            ValueError: not JSON, or of another shape.
        """
        return latency_model(json_document(text, "latency model", SCHEMA_VERSION, MIGRATIONS))


def latency_model(data: Any) -> LatencyModel:
    """Read a model from the JSON object of its fields."""
    return from_fields(LatencyModel, data, conditions=object_of(Conditions))


@dataclass(frozen=True, kw_only=True)
class LatencyBudget:
    """A bound on the milliseconds an image by a fitted model, and on other costs if any.

    Attributes:
        milliseconds: of one image, at most.
        model: that predicts them.
        budget: other bounds; None: no others.
    """

    milliseconds: float
    model: LatencyModel
    budget: Budget | None = None

    def __post_init__(self) -> None:
        if not is_finite(self.milliseconds) or self.milliseconds <= 0:
            raise ValueError(
                "Expected a positive number of milliseconds. "
                f"Received: milliseconds={shown(self.milliseconds)}"
            )

    def __str__(self) -> str:
        others = f" and {self.budget}" if self.budget else ""
        return f"{self.milliseconds:g} ms an image ({self.model.conditions}){others}"

    def admits(self, cost: NetworkCost) -> bool:
        """Whether the network is within every bound."""
        within = self.budget is None or self.budget.admits(cost)
        return within and self.model.milliseconds(cost) <= self.milliseconds

    def price(self, cost: NetworkCost) -> str:
        """Milliseconds, and what the other bounds count, as text."""
        others = f", {self.budget.price(cost)}" if self.budget else ""
        return f"{self.model.milliseconds(cost):.3g} ms an image{others}"

    def scaled(self, share: float) -> LatencyBudget:
        """This share of every bound."""
        budget = self.budget and self.budget.scaled(share)
        return replace(self, milliseconds=self.milliseconds * share, budget=budget)


def latency_features(cost: NetworkCost) -> dict[str, float]:
    """What the predicted time is a weighted sum of."""
    features: dict[str, float] = {"network": 1.0}
    for layer in cost.layers:
        for name, value in (
            (f"{layer.kind}: layer", 1.0),
            (f"{layer.kind}: million multiply-adds", layer.macs / 1e6),
            (f"{layer.kind}: million elements", layer.activations / 1e6),
        ):
            features[name] = features.get(name, 0.0) + value
    return features
