"""Trials whose learning curve falls behind: when they stop, and what becomes of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from test_tuning_oracle import SCORE, finish, space
from test_tuning_search import BASE, RECIPE, RUN_MODULE, plan
from training_steps import noise

from tuning import best_first, read_trials, search
from tuning.candidate import TrialResult, hold_out, train_candidate
from tuning.engine.oracles import make_oracle
from tuning.engine.pruning import STOPPED_EPOCH, is_behind

# After the second epoch the medians of the best so far are .3.
OTHERS = [[0.1, 0.2], [0.1, 0.25], [0.1, 0.3], [0.4, 0.35], [0.1, 0.5]]


@pytest.mark.parametrize(
    ("curve", "others", "expected"),
    [
        ([0.1, 0.31], OTHERS, False),
        ([0.1, 0.29], OTHERS, True),
        ([0.31, 0.2], OTHERS, False),  # its best epoch counts
        ([0.1, 0.29], OTHERS[:4], False),  # four others are too few
        ([0.0], OTHERS, True),
    ],
)
def test_the_median_rule_by_hand(
    curve: list[float], others: list[list[float]], expected: bool
) -> None:
    assert is_behind("median", curve, others) is expected
    assert not is_behind("none", curve, others)


def test_successive_halving_keeps_a_third() -> None:
    """Of nine trials at the first rung, the three best go on."""
    others = [[0.1 * place] for place in range(1, 9)]
    assert not is_behind("halving", [0.65], others)
    assert is_behind("halving", [0.55], others)


def test_a_training_that_is_stopped_keeps_its_curve() -> None:
    seen: list[list[float]] = []

    def after_epoch(curve: list[float]) -> bool:
        seen.append([*curve])
        return len(curve) == 2

    data = hold_out(noise(32), 0.25)
    result = train_candidate(BASE, data, RECIPE, epochs=4, after_epoch=after_epoch)
    assert [len(curve) for curve in seen] == [1, 2]
    assert result.curve == tuple(seen[1])
    assert result.stopped
    assert result.accuracy == seen[1][1]
    whole = train_candidate(BASE, data, RECIPE, epochs=3, after_epoch=lambda curve: False)
    assert (len(whole.curve), whole.stopped) == (3, False)
    assert whole.curve[:2] == result.curve


def test_a_search_stops_a_trial_by_the_curves_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five trials end at .5; the sixth has .4 after its first epoch and stops, although it would
    have ended at .9. It stays behind the others, and is no finalist."""
    calls: list[int] = []

    def pretended(*_: Any, epochs: int, after_epoch: Any, **__: Any) -> TrialResult:
        calls.append(epochs)
        curve = [0.4, 0.9] if len(calls) == 6 else [0.45, 0.5]
        stopped = after_epoch(curve[:1])
        own = curve[:1] if stopped else curve
        return TrialResult(own[-1], 1.0, 0.5, 0.1, 0.75, curve=tuple(own), stopped=stopped)

    monkeypatch.setattr(RUN_MODULE, "train_candidate", pretended)
    settings = plan(
        recipe=replace(RECIPE, epochs=2), max_trials=6, pruning="median", finalists=6, seeds=1
    )
    folder = tmp_path / "search"
    search(settings, noise(), folder)
    trials = read_trials(folder)
    assert [trial.was_stopped for trial in trials] == [False] * 5 + [True]
    assert trials[5].metrics[STOPPED_EPOCH] == 1
    assert best_first(trials)[-1] is trials[5]
    curves = sorted(folder.glob("trial_*/curve.json"))
    assert [json.loads(file.read_text()) for file in curves] == [[0.45, 0.5]] * 5 + [[0.4]]
    assert len(calls) == 6 + 5
    with pytest.raises(ValueError, match=r"- search\.pruning: 'median'"):
        search(replace(settings, pruning="none"), noise(), folder)


def test_a_stopped_trial_is_a_pruned_one_for_tpe(tmp_path: Path) -> None:
    made = make_oracle("tpe", objective=SCORE, max_trials=4, hyperparameters=space(), seed=1)
    made.verbose = 0
    made._set_project_dir(str(tmp_path), "search")
    trial = made.create_trial("one")
    made.update_trial(trial.trial_id, {"score": 0.5, STOPPED_EPOCH: 3.0})
    trial.status = "COMPLETED"
    made.end_trial(trial)
    finish(made, made.create_trial("one"), score=0.25)
    x = optuna.distributions.FloatDistribution(0.0, 1.0, step=1 / 64)
    pruned, complete = (made._known(item, {"x": x}) for item in made.trials.values())
    assert pruned.state == optuna.trial.TrialState.PRUNED
    assert pruned.intermediate_values == {3: 0.5}
    assert complete.value == 0.25
    assert [item.score for item in made.get_best_trials(2)] == [0.25, 0.5]


def test_pruning_that_is_refused() -> None:
    with pytest.raises(ValueError, match="Received: pruning='mean'"):
        plan(pruning="mean")
    with pytest.raises(ValueError, match="no pruning with a second objective"):
        plan(oracle="tpe", pruning="median", second_objective="macs")
