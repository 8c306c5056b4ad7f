"""Latency budgets: the model fits the measured times, and admitted networks are fast enough."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from keras_inception.cost.budget import Budget, fit_to_budget
from keras_inception.cost.layers import NetworkCost, network_cost
from keras_inception.runtimes.timing import Conditions
from keras_inception.spec.variants import SMALL
from tuning.latency import LatencyBudget, LatencyModel
from tuning.latency_fit import Wanted, fit_latency
from tuning.latency_timing import load_or_fit
from tuning.space import Space

HERE = Conditions(runtime="saved_model", threads=2)


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
    model = fit_latency(costs, [made_up(cost) for cost in costs], held_out=6, conditions=HERE)
    assert model.error < 0.01
    other = network_cost(SMALL)
    assert model.milliseconds(other) == pytest.approx(made_up(other), rel=0.02)
    assert LatencyModel.from_json(model.to_json()) == model


def test_the_error_is_that_of_the_held_out_networks() -> None:
    """The last two took twice as long as the others predict: an error of one half."""
    costs = networks(12)
    times = [made_up(cost) for cost in costs]
    times[-2:] = [2 * value for value in times[-2:]]
    assert fit_latency(costs, times, held_out=2, conditions=HERE).error == pytest.approx(
        0.5, abs=0.02
    )


def test_candidates_keep_a_latency_budget() -> None:
    costs = networks(24)
    model = fit_latency(costs, [made_up(cost) for cost in costs], held_out=6, conditions=HERE)
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
        fit_latency(costs, [1.0] * 3, held_out=3, conditions=HERE)
    model = fit_latency(costs, [1.0] * 3, held_out=1, conditions=HERE)
    with pytest.raises(ValueError, match="Received: milliseconds=0"):
        LatencyBudget(milliseconds=0, model=model)
    unknown = replace(model, coefficients={"network": 1.0})
    with pytest.raises(ValueError, match="Fit the model to networks of this form"):
        unknown.milliseconds(costs[0])


def test_a_resumed_search_keeps_its_latency_model(tmp_path: Path) -> None:
    conditions = replace(HERE, batch_size=64)
    fitted = fit_latency(networks(12), [1.0] * 12, held_out=4, conditions=conditions)
    fits = iter([fitted])  # one fit alone
    file = tmp_path / "new" / "latency.json"
    for _ in range(2):
        assert load_or_fit(file, Wanted(batch_size=64), lambda: next(fits)) == fitted
    with pytest.raises(ValueError, match=r"Expected saved_model float32, batch 64, .*: batch_size"):
        load_or_fit(file, Wanted(batch_size=1), lambda: next(fits))


def test_files_of_version_1_timed_tensorflow_alone() -> None:
    """As version 1 wrote a model, and a search's space with it (its own version 3)."""
    old = {"schema_version": 1, "coefficients": {"network": 1.0}, "batch_size": 64, "error": 0.1}
    model = LatencyModel.from_json(json.dumps(old))
    expected = Conditions(runtime="saved_model", precision="float32", batch_size=64, threads=None)
    assert model.conditions == expected
    space = json.loads(Space(base=SMALL, budget=Budget(macs=8_000_000)).to_json())
    del old["schema_version"]
    names = [f"{layer.kind}: million multiply-adds" for layer in network_cost(SMALL).layers]
    parts = [name.replace("multiply-adds", "elements") for name in names]
    kinds = [name.replace("million multiply-adds", "layer") for name in names]
    old["coefficients"] = dict.fromkeys(["network", *parts, *kinds], 0.0) | dict.fromkeys(names, 1)
    budget = {"milliseconds": 8.0, "model": old, "budget": None}
    document = space | {"schema_version": 3, "budget": budget}
    assert Space.from_json(json.dumps(document)).budget.model.conditions == expected
