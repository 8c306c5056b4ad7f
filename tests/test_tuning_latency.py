"""Latency budgets: the model fits the measured times, and admitted networks are fast enough."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from keras_inception.cost.budget import Budget, fit_to_budget
from keras_inception.cost.layers import NetworkCost, network_cost
from keras_inception.spec.variants import SMALL
from tuning.latency import LatencyBudget, LatencyModel
from tuning.latency_timing import (
    fit_latency,
    load_or_measure,
    measure_latencies,
    measure_latency_model,
)
from tuning.space import Space


def made_up(cost: NetworkCost) -> float:
    """A simulated machine.

    .2 ms per network, .01 per convolution, .05 per million multiply-adds, 1 per million pooled
    elements.
    """
    convolutions = [layer for layer in cost.layers if layer.kind == "convolution"]
    pooled = sum(layer.activations for layer in cost.layers if layer.kind == "pool")
    macs = sum(layer.macs for layer in convolutions)
    return 0.2 + 0.01 * len(convolutions) + 0.05 * macs / 1e6 + pooled / 1e6


def networks(count: int) -> list[NetworkCost]:
    """Networks of different depths and budgets."""
    draw = random.Random(0)
    found = []
    for _ in range(count):
        space = Space(
            base=SMALL, budget=Budget(macs=draw.randint(4, 20) * 10**6), width_divisor=4, depth=True
        )
        found.append(network_cost(space.spec(space.random_point(draw))))
    return found


def test_the_fit_predicts_held_out_networks() -> None:
    costs = networks(24)
    model = fit_latency(costs, [made_up(cost) for cost in costs], held_out=6)
    assert model.error < 0.01
    other = network_cost(SMALL)
    assert model.milliseconds(other) == pytest.approx(made_up(other), rel=0.02)
    assert LatencyModel.from_json(model.to_json()) == model


def test_the_error_is_that_of_the_held_out_networks() -> None:
    """The last two took twice as long as the others predict: an error of one half."""
    costs = networks(12)
    times = [made_up(cost) for cost in costs]
    times[-2:] = [2 * value for value in times[-2:]]
    assert fit_latency(costs, times, held_out=2).error == pytest.approx(0.5, abs=0.02)


def test_candidates_keep_a_latency_budget() -> None:
    costs = networks(24)
    model = fit_latency(costs, [made_up(cost) for cost in costs], held_out=6)
    bound = LatencyBudget(milliseconds=0.9, model=model)
    space = Space(base=SMALL, budget=bound, width_divisor=4)
    for values in ({}, {"stage_4/width": 1.0}, {"stage_3/odds_3x3": -2.0}):
        predicted = model.milliseconds(network_cost(space.spec(values)))
        assert 0.97 * 0.9 < predicted <= 0.9
    both = replace(bound, budget=Budget(params=100_000))
    total = network_cost(replace(space, budget=both).spec({})).total
    assert 98_000 < total.params <= 100_000
    assert bound.scaled(0.5).milliseconds == 0.45
    with pytest.raises(
        ValueError, match=r"at least 0.\d+ ms an image, [\d,]+ MACs and .*: 1e-05 ms"
    ):
        fit_to_budget(SMALL, replace(both, milliseconds=1e-5))


def test_refusals() -> None:
    costs = networks(3)
    with pytest.raises(ValueError, match="Received: held_out=3"):
        fit_latency(costs, [1.0] * 3, held_out=3)
    model = fit_latency(costs, [1.0] * 3, held_out=1)
    with pytest.raises(ValueError, match="Received: milliseconds=0"):
        LatencyBudget(milliseconds=0, model=model)
    unknown = replace(model, coefficients={"network": 1.0})
    with pytest.raises(ValueError, match="Fit the model to networks of this form"):
        unknown.milliseconds(costs[0])


def test_a_resumed_search_keeps_its_latency_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = fit_latency(networks(12), [1.0] * 12, held_out=4, batch_size=64)
    asked: list[int] = []

    def measure(spec: object, *, batch_size: int) -> LatencyModel:
        asked.append(batch_size)
        return measured

    monkeypatch.setattr("tuning.latency_timing.measure_latency_model", measure)
    file = tmp_path / "new" / "latency.json"
    for _ in range(2):
        assert load_or_measure(file, SMALL, batch_size=64) == measured
    assert asked == [64]
    with pytest.raises(ValueError, match=r"Expected a batch of 64, .* Received: 1$"):
        load_or_measure(file, SMALL)


def test_timed_networks_have_folded_batch_normalization(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[keras.Model] = []

    def function(model: keras.Model) -> Any:
        timed.append(model)
        return tf.function(lambda images: images, [tf.TensorSpec((None, *SMALL.input_shape))])

    monkeypatch.setattr("tuning.latency_timing.constant_function", function)
    measure_latencies([SMALL])
    kinds = {type(layer) for layer in timed[0].layers}
    assert keras.layers.Conv2D in kinds
    assert keras.layers.BatchNormalization not in kinds


@pytest.mark.slow
def test_the_model_against_real_timings() -> None:
    """Fitted on this machine: within a quarter on held-out networks, and a network of half the size
    is predicted to be faster."""
    model = measure_latency_model(SMALL, batch_size=16)
    assert model.error < 0.25
    half = Space(base=SMALL, budget=Budget(macs=6_000_000), width_divisor=4).spec({})
    real = measure_latencies([SMALL, half], batch_size=16)
    predicted = [model.milliseconds(network_cost(spec)) for spec in (SMALL, half)]
    assert real[0] > real[1]
    assert predicted[0] > predicted[1]
