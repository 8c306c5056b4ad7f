"""A latency budget: a model of this machine's milliseconds, fitted to timings of real networks.

The time of a network is taken as a sum over its layers: for each kind of layer a time a layer, a
time a multiply-add and a time an element written, none negative, so that a wider network is never
predicted faster. The model is fitted to some networks and checked against others.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import tensorflow as tf

from keras_inception.cost.budget import Budget, module_widths, with_module_widths
from keras_inception.cost.layers import NetworkCost, network_cost
from keras_inception.exporters.inference_graph import fold_batch_norm
from keras_inception.exporters.saved_model import constant_function
from keras_inception.files import write_text
from keras_inception.network.build import build_network
from keras_inception.spec.network import NetworkSpec

SCHEMA_VERSION = 1
_FITTED_NETWORKS = 24
_CHECKED_NETWORKS = 8
_ROUNDS = 12
_FACTORS = (0.25, 2.0)


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Milliseconds an image on one machine, in batches of one size.

    Attributes:
        coefficients: milliseconds of a network, and by kind of layer of a layer, of a million
            multiply-adds and of a million elements written.
        batch_size: images that are computed together.
        error: mean relative difference from networks that it was not fitted to.
    """

    coefficients: dict[str, float]
    batch_size: int
    error: float

    def milliseconds(self, cost: NetworkCost) -> float:
        """The predicted time of one image.

        Raises:
            ValueError: a kind of layer that the fitted networks did not have.
        """
        features = _features(cost)
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
        """Read what `to_json` wrote."""
        data = json.loads(text)
        del data["schema_version"]
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class LatencyBudget:
    """At most so many milliseconds an image by a fitted model, and other bounds if any."""

    milliseconds: float
    model: LatencyModel
    budget: Budget | None = None

    def __post_init__(self) -> None:
        if not self.milliseconds > 0:
            raise ValueError(
                "Expected a positive number of milliseconds. "
                f"Received: milliseconds={self.milliseconds!r}"
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


def _features(cost: NetworkCost) -> dict[str, float]:
    """What the time is a weighted sum of."""
    features: dict[str, float] = {"network": 1.0}
    for layer in cost.layers:
        for name, value in (
            (f"{layer.kind}: layer", 1.0),
            (f"{layer.kind}: million multiply-adds", layer.macs / 1e6),
            (f"{layer.kind}: million elements", layer.activations / 1e6),
        ):
            features[name] = features.get(name, 0.0) + value
    return features


def fit_latency(
    costs: Sequence[NetworkCost],
    milliseconds: Sequence[float],
    *,
    checked: int,
    batch_size: int = 1,
) -> LatencyModel:
    """Fit a model to timed networks.

    Args:
        costs: of the networks, all of one form.
        milliseconds: an image, of each.
        checked: how many, the last ones, are left out of the fit and measure its error.
        batch_size: with which the times were taken.

    Raises:
        ValueError: no network to fit to or none to check with.
    """
    if not 0 < checked < len(costs):
        raise ValueError(
            f"Expected some of {len(costs)} networks to check and some to fit. "
            f"Received: checked={checked}"
        )
    rows = [_features(cost) for cost in costs]
    names = sorted({name for row in rows for name in row})
    table = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    times = np.array(milliseconds)
    fitted = len(rows) - checked
    # Relative errors count, so that small networks are not drowned by large ones.
    scaled = table[:fitted] / times[:fitted, None]
    scale = np.maximum(scaled.max(axis=0), 1e-12)
    weights, _ = scipy.optimize.nnls(scaled / scale, np.ones(fitted))
    coefficients = weights / scale
    predicted = table[fitted:] @ coefficients
    error = float(np.mean(np.abs(predicted / times[fitted:] - 1)))
    return LatencyModel(
        coefficients=dict(zip(names, coefficients.tolist(), strict=True)),
        batch_size=batch_size,
        error=error,
    )


def measure_latency_model(
    spec: NetworkSpec, *, batch_size: int = 1, seed: int = 0, networks: int | None = None
) -> LatencyModel:
    """Time networks of the form of `spec` on this machine, and fit a model to them.

    Args:
        spec: its widths are moved apart at random, by factors from 1/4 to 2.
        batch_size: images computed together.
        seed: of the widths.
        networks: how many to time, a quarter of them for the check; None: 32.
    """
    count = networks or _FITTED_NETWORKS + _CHECKED_NETWORKS
    draw = random.Random(seed)
    specs = [_moved_apart(spec, draw) for _ in range(count)]
    times = measure_latencies(specs, batch_size=batch_size)
    costs = [network_cost(item) for item in specs]
    return fit_latency(costs, times, checked=max(1, count // 4), batch_size=batch_size)


def kept_latency_model(file: Path, spec: NetworkSpec, *, batch_size: int = 1) -> LatencyModel:
    """The model that lies in a file; else measure it and write the file, its folder too.

    Raises:
        ValueError: the file's model is of another batch size.
    """
    if file.exists():
        kept = LatencyModel.from_json(file.read_text(encoding="utf-8"))
        if kept.batch_size != batch_size:
            raise ValueError(
                f"Expected a batch of {kept.batch_size}, with which the times in {str(file)!r} "
                f"were taken, or another folder. Received: {batch_size}"
            )
        return kept
    model = measure_latency_model(spec, batch_size=batch_size)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, model.to_json())
    return model


def measure_latencies(specs: Sequence[NetworkSpec], *, batch_size: int = 1) -> list[float]:
    """Milliseconds an image of each network in graph mode: medians of rounds in turn.

    Batch normalization is folded into the convolutions, as in what is served.
    """
    runs = [_runner(spec, batch_size) for spec in specs]
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(_ROUNDS):
        for run, own in zip(runs, times, strict=True):
            started = time.perf_counter()
            run()
            own.append((time.perf_counter() - started) * 1e3 / batch_size)
    return [statistics.median(own) for own in times]


def _runner(spec: NetworkSpec, batch_size: int) -> Callable[[], Any]:
    # Of the function itself, called for many networks, TensorFlow warns of many tracings.
    graph = constant_function(fold_batch_norm(build_network(spec))).get_concrete_function()
    images = tf.random.stateless_uniform((batch_size, *spec.input_shape), seed=(0, 0))
    return lambda: graph(images).numpy()


def _moved_apart(spec: NetworkSpec, draw: random.Random) -> NetworkSpec:
    common = draw.uniform(*_FACTORS)
    widths = {
        name: max(1, round(width * common * draw.uniform(*_FACTORS) ** 0.5))
        for name, width in module_widths(spec).items()
    }
    return with_module_widths(spec, widths)
