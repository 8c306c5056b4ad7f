"""A latency budget: a bound on the milliseconds that a fitted model predicts.

The time of a network is a sum over its layers: for each kind of layer a time a layer, a time a
multiply-add and a time an element written, none negative, so that a wider network is never
predicted faster. `latency_timing` fits the model to timings of real networks.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from keras_inception.bounded import shown
from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import NetworkCost
from keras_inception.spec.validation import (
    from_fields,
    is_finite,
    json_document,
    require_integers,
    require_numbers,
    unexpected,
)

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Milliseconds an image on one machine, in batches of one size.

    Attributes:
        coefficients: milliseconds of a network, and by kind of layer of a layer, of a million
            multiply-adds and of a million elements written.
        batch_size: images in a batch.
        error: mean relative error for networks that it was not fitted to.
    """

    coefficients: dict[str, float]
    batch_size: int
    error: float

    def __post_init__(self) -> None:
        require_integers(self, "batch_size")
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
        return from_fields(cls, json_document(text, "latency model", SCHEMA_VERSION))


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
        batch = self.model.batch_size
        together = f" in batches of {batch}" if batch > 1 else ""
        return f"{self.milliseconds:g} ms an image{together}{others}"

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
