"""Stored trials: networks as proposed, exact values, and searches of older versions."""

import json
import random
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras_tuner
import pytest
from keras_tuner.engine.trial import Trial
from test_tuning_search import BASE, COST, counted, plan, pretended
from training_steps import noise

import tuning.space
from keras_inception.cost.budget import Budget
from keras_inception.spec.network import NetworkSpec
from tuning import Space, best_spec, read_trials, search
from tuning.engine import service
from tuning.engine.control import TrialControl, point_of
from tuning.engine.keras_tuner_compat import messages
from tuning.engine.oracles import make_oracle
from tuning.report.page import write_report

__all__ = ["counted"]  # a fixture


def narrowed(*arguments: Any, **options: Any) -> NetworkSpec:
    """Another projection, which gives every network the base's widths."""
    return BASE


def test_a_later_projection_does_not_change_an_old_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[NetworkSpec]
) -> None:
    folder = tmp_path / "search"
    search(plan(), noise(), folder)
    before = read_trials(folder)
    best = best_spec(folder)
    write_report(folder)
    leaderboard = (folder / "leaderboard.csv").read_text()
    assert BASE not in counted

    monkeypatch.setattr(tuning.space, "fit_to_budget", narrowed)
    assert plan().space.spec({}) == BASE  # the projection is another one
    assert read_trials(folder) == before
    assert best_spec(folder) == best
    write_report(folder)
    assert (folder / "leaderboard.csv").read_text() == leaderboard
    assert NetworkSpec.from_json((folder / "best_spec.json").read_text()) == best


def test_a_resumed_trial_trains_the_network_that_was_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is killed in trial 1; the projection changes before the search is resumed."""
    folder, trained = tmp_path / "search", []

    def killed(spec: NetworkSpec, *_: Any, **__: Any) -> Any:
        trained.append(spec)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return pretended(spec)

    monkeypatch.setattr("tuning.run.train_candidate", killed)
    with pytest.raises(KeyboardInterrupt):
        search(plan(), noise(), folder)
    monkeypatch.setattr(tuning.space, "fit_to_budget", narrowed)
    search(plan(max_trials=2), noise(), folder)
    assert trained[2] == trained[1] != BASE
    assert [trial.spec for trial in read_trials(folder)] == trained[:2]


def test_a_search_without_stored_networks_is_projected_as_before(
    tmp_path: Path, counted: list[NetworkSpec]
) -> None:
    folder = tmp_path / "search"
    search(plan(), noise(), folder)
    before = read_trials(folder)
    for file in folder.glob("trial_*/spec.json"):
        file.unlink()
    assert read_trials(folder) == before
    assert search(plan(max_trials=4), noise(), folder)  # the first three count as evaluated
    assert len({spec.to_json() for spec in counted}) == 4


def test_an_invalid_stored_network_is_one_error_with_its_file(
    tmp_path: Path, counted: list[NetworkSpec]
) -> None:
    folder = tmp_path / "search"
    search(plan(max_trials=1), noise(), folder)
    (folder / "trial_0" / "spec.json").write_text("{}")
    with pytest.raises(ValueError, match=r"trial_0/spec\.json'"):
        read_trials(folder)


def test_a_search_of_version_1_is_read_and_resumed(
    tmp_path: Path, counted: list[NetworkSpec]
) -> None:
    """Its space has "step" and "least_share", its search "against" and "round_epochs"; of the data
    it has the name and no fingerprint."""
    folder = tmp_path / "search"
    search(plan(), noise(), folder)
    before = read_trials(folder)
    document = json.loads((folder / "search.json").read_text())
    space, settings = document["space"], document["search"]
    space |= {"schema_version": 1, "step": space.pop("width_divisor")}
    space |= {"least_share": space.pop("min_budget_share")}
    settings |= {"against": settings.pop("second_objective")}
    settings |= {"round_epochs": settings.pop("halving_epochs")}
    document["data"] = {"name": "noise"} | {
        key: document["data"][key] for key in ("training images", "classes")
    }
    (folder / "search.json").write_text(json.dumps(document))
    (folder / "data.json").unlink()
    for file in folder.glob("trial_*/spec.json"):
        file.unlink()
    assert read_trials(folder) == before
    assert Space.from_json(json.dumps(space)) == plan().space
    assert search(plan(max_trials=4), noise(), folder)
    assert len(counted) == 4
    write_report(folder)
    assert "on noise</title>" in (folder / "report.html").read_text()
    with pytest.raises(ValueError, match=r"\+ search\.seed: 2"):
        search(plan(seed=2), noise(), folder)
    with pytest.raises(ValueError, match=r"\+ data\.training images: 16"):
        search(plan(), noise(16), folder)


# Values


def test_control_data_round_trip_and_are_not_part_of_the_point() -> None:
    control = TrialControl(parent="0003", epochs=9, initial_epoch=3, round=1, error="nan")
    values = {"x": 0.25} | control.to_values()
    assert TrialControl.of(values) == control
    assert point_of(values | {"tuner/search": "id"}) == {"x": 0.25}
    assert TrialControl.of({"x": 0.25}) == TrialControl()
    assert TrialControl().to_values() == {}


def test_the_names_of_control_data_are_those_of_keras_tuners_hyperband(tmp_path: Path) -> None:
    oracle = keras_tuner.oracles.HyperbandOracle(
        keras_tuner.Objective("score", "max"), max_epochs=9, hyperparameters=point_space(), seed=1
    )
    oracle.verbose = 0
    oracle._set_project_dir(str(tmp_path), "plain")
    values = oracle.create_trial("one").hyperparameters.values
    control = TrialControl.of(values)
    assert (control.epochs, control.initial_epoch, control.round, control.bracket) == (1, 0, 0, 2)
    assert point_of(values) == {"x": values["x"]}


NEUTRAL = 0.123456789012345  # more digits than 32 bits hold
assert struct.unpack("f", struct.pack("f", NEUTRAL))[0] != NEUTRAL


def point_space() -> keras_tuner.HyperParameters:
    hyperparameters = keras_tuner.HyperParameters()
    hyperparameters.Float("x", 0.0, 1.0, default=NEUTRAL)
    return hyperparameters


def test_values_are_sent_exactly_together_with_the_network(tmp_path: Path) -> None:
    """KerasTuner's messages carry doubles, not a grid; control data is not in the chief's files."""
    chief = make_oracle(
        "random",
        objective=keras_tuner.Objective("score", "max"),
        max_trials=2,
        hyperparameters=point_space(),
        seed=1,
        network_of=lambda values: repr(values["x"]),
    )
    chief.verbose = 0
    chief._set_project_dir(str(tmp_path), "search")
    servicer = service._Servicer(chief)
    request = messages.CreateTrialRequest(tuner_id="one")
    context = SimpleNamespace(invocation_metadata=lambda: ())
    response = servicer.CreateTrial(request, context)
    sent = type(response.trial).FromString(response.trial.SerializeToString())
    worker = Trial.from_proto(sent)
    values = worker.hyperparameters.values
    assert values["x"] == NEUTRAL
    assert TrialControl.of(values).network == repr(NEUTRAL)
    assert (tmp_path / "search" / "trial_0" / "spec.json").read_text() == repr(NEUTRAL)

    chief.update_trial(worker.trial_id, {"score": 1.0})
    worker.status = "COMPLETED"
    servicer.EndTrial(messages.EndTrialRequest(trial=worker.to_proto()), None)
    state = json.loads((tmp_path / "search" / "trial_0" / "trial.json").read_text())
    assert state["hyperparameters"]["values"] == {"x": NEUTRAL}
    idle = servicer.CreateTrial(messages.CreateTrialRequest(tuner_id="one"), context)
    assert idle.trial.trial_id == "1"


def test_proposals_have_full_precision() -> None:
    """Not on a grid: a random point has digits that 32 bits would lose."""
    space = replace(plan().space, budget=Budget(macs=4 * COST.macs))
    point = space.random_point(random.Random(1))
    ratios = [value for value in point.values() if isinstance(value, float)]
    assert ratios
    assert any(struct.unpack("f", struct.pack("f", value))[0] != value for value in ratios)
