"""The last stage of a search: finalists trained fully with several seeds, and the verdict."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from keras_tuner.engine.trial import TrialStatus
from test_tuning_oracle import SCORE, Clock, fail, finish, space
from test_tuning_search import RUN_MODULE, plan
from training_steps import noise

from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.spec.variants import NANO, SMALL, TINY
from tuning import best_spec, read_trials, search
from tuning.candidate import TrialResult
from tuning.engine.control import TrialControl
from tuning.engine.finals import Finals
from tuning.engine.oracles import make_oracle
from tuning.report.page import write_report
from tuning.trials import SearchedTrial, read_finals
from tuning.verdict import rank_interval, read_verdict, verdict

# The oracle


def oracle(folder: Path, kind: str = "random", trials: int = 3, **settings: Any) -> Any:
    made = make_oracle(
        kind,
        objective=SCORE,
        max_trials=trials,
        hyperparameters=space(),
        seed=1,
        finals=Finals(finalists=2, seeds=(7, 8), epochs=5),
        **settings,
    )
    made.verbose = 0
    made._set_project_dir(str(folder), "search")
    return made


def control(trial: Any) -> TrialControl:
    return TrialControl.of(trial.hyperparameters.values)


def point(trial: Any) -> float:
    return trial.hyperparameters.values["x"]


@pytest.mark.parametrize("kind", ["tpe", "bayesian", "random"])
def test_the_best_two_are_trained_with_two_seeds_after_all_trials(
    tmp_path: Path, kind: str
) -> None:
    made = oracle(tmp_path, kind)
    assert made.trial_count == 3 + 2 * 2
    points = []
    for score in (0.5, 0.25, 0.75):
        trial = made.create_trial("one")
        points.append(point(trial))
        assert control(trial).finalist is None
        finish(made, trial, score)
    finals = []
    while (trial := made.create_trial("one")).status == TrialStatus.RUNNING:
        finals.append(trial)
        finish(made, trial, score=1.0)  # better than the trials, which it does not join
    expected = [(points[2], 7), (points[2], 8), (points[0], 7), (points[0], 8)]
    assert [(point(trial), control(trial).seed) for trial in finals] == expected
    assert {control(trial).epochs for trial in finals} == {5}
    assert [trial.score for trial in made.get_best_trials(9)] == [0.75, 0.5, 0.25]
    assert made.is_finished()


def test_finals_wait_for_trials_and_survive_lost_workers(tmp_path: Path) -> None:
    clock = Clock()
    made = oracle(tmp_path, trials=2, clock=clock, lease_seconds=10.0)
    slow = made.create_trial("slow")
    finish(made, made.create_trial("quick"), 0.5)
    assert made.create_trial("quick").status == TrialStatus.IDLE
    finish(made, slow, 0.25)
    lost = made.create_trial("slow")
    assert control(lost).seed == 7
    clock.now = 11.0
    again = made.create_trial("quick")
    assert again.trial_id == lost.trial_id
    fail(made, again, "a loss of nan")  # counts as done
    count = 0
    while (trial := made.create_trial("quick")).status == TrialStatus.RUNNING:
        finish(made, trial, 0.5)
        count += 1
    assert count == 3


def test_more_trials_of_a_search_with_finals(tmp_path: Path) -> None:
    """What is resumed keeps its finals and adds those of networks that have become the best."""

    def run(made: Any, score: float) -> list[int | None]:
        found = []
        while (trial := made.create_trial("one")).status == TrialStatus.RUNNING:
            found.append(control(trial).seed)
            finish(made, trial, score)
        return found

    assert run(oracle(tmp_path, trials=1), 0.5) == [None, 7, 8]
    more = oracle(tmp_path, trials=2)
    more.reload()
    assert run(more, 0.75) == [None, 7, 8]
    again = oracle(tmp_path, trials=2)
    again.reload()
    assert run(again, 1.0) == []


def test_finals_after_successive_halving_train_the_best_of_the_last_round(tmp_path: Path) -> None:
    made = oracle(tmp_path, trials=3, halving_epochs=(1, 3))
    assert made.trial_count == 3 + 1 + 4
    seen = []
    while (trial := made.create_trial("one")).status == TrialStatus.RUNNING:
        seen.append((control(trial).round, control(trial).seed, point(trial)))
        finish(made, trial, score=-abs(point(trial) - 0.7))
    ranked = sorted((x for _, _, x in seen[:3]), key=lambda x: abs(x - 0.7))
    assert seen[3] == (1, None, ranked[0])
    expected = [(None, 7, ranked[0]), (None, 8, ranked[0]), (None, 7, ranked[1])]
    assert seen[4:] == [*expected, (None, 8, ranked[1])]


# A search


def test_a_search_ends_with_full_trainings_of_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials of an epoch on half of the images of 10 pixels; a kill in the last stage. The second
    best of the trials is the best of the finalists."""
    trained: list[tuple[int, int, int, int]] = []
    scores: dict[str, float] = {}

    def pretended(
        spec: NetworkSpec, data: Any, recipe: Recipe, *, epochs: int, **_: Any
    ) -> TrialResult:
        if len(trained) == 5 and "killed" not in scores:
            scores["killed"] = 1
            raise KeyboardInterrupt
        trained.append((spec.input_shape[0], len(data.train), recipe.seed, epochs))
        key = replace(spec, input_shape=(10, 10, 1)).to_json()
        if spec.input_shape[0] == 10:
            scores[key] = [0.5, 0.7, 0.6][len(trained) - 1]
            return TrialResult(scores[key], 1.0, 0.5, 0.1, 0.75)
        full = {0.7: 0.8, 0.6: 0.9}[scores[key]] + recipe.seed / 100
        return TrialResult(full, 1.0, 0.5, 0.1, 0.75)

    monkeypatch.setattr(RUN_MODULE, "train_candidate", pretended)
    recipe = replace(plan().recipe, epochs=4, seed=3)
    proxy = {"halving_epochs": (1,), "resolution": 10, "data_fraction": 0.5}
    settings = plan(recipe=recipe, finalists=2, validation_share=0.25, **proxy)
    folder = tmp_path / "search"
    with pytest.raises(KeyboardInterrupt):
        search(settings, noise(32), folder)
    assert search(settings, noise(32), folder)
    trial, full = (10, 12, 3, 1), (12, 23)
    seeds = [(*full, 4, 4), (*full, 5, 4)]
    assert trained == [trial] * 3 + seeds * 2
    trials = read_trials(folder)
    assert [item.accuracy for item in trials] == [0.5, 0.7, 0.6]
    assert [item.finalist for item in read_finals(folder)] == [1, 1, 2, 2]
    assert best_spec(folder) == replace(trials[2].spec, name="one_module_tuned")
    stored = json.loads((folder / "verdict.json").read_text())
    assert [item["trial"] for item in stored["finalists"]] == [2, 1]
    assert stored["finalists"][0]["mean"] == pytest.approx(0.945)
    assert stored["finalists"][0]["standard_deviation"] == pytest.approx(0.01 / 2**0.5)
    assert stored["rank_correlation"] == pytest.approx(-1)
    write_report(folder)
    page = re.sub(r">\s+<", "><", (folder / "report.html").read_text())
    page = re.sub(r' data-value="[^"]*"', "", page)
    assert ' id="finalists">' in page
    assert "<td>1</td><td>2</td><td>94.50%</td><td>0.71%</td><td>2</td><td>60.00%</td>" in page


def test_finalists_and_seeds_that_are_refused() -> None:
    with pytest.raises(ValueError, match="Received: finalists=-1, seeds=2"):
        plan(finalists=-1)
    with pytest.raises(ValueError, match="Received: finalists=0, seeds=0"):
        plan(seeds=0)


# The verdict


def searched(number: int, accuracy: float, finalist: int | None = None) -> SearchedTrial:
    return SearchedTrial(
        number=number,
        status="COMPLETED",
        values={},
        metrics={"val_accuracy": accuracy},
        spec=(NANO, TINY, SMALL)[number % 3],
        macs=1,
        params=1,
        round=0,
        epochs=None,
        finalist=finalist,
        message=None,
        folder=Path("trial"),
    )


def judged(before: list[float], after: list[list[float]]) -> Any:
    trials = [searched(number, accuracy) for number, accuracy in enumerate(before)]
    finals = [
        searched(100, accuracy, finalist=number)
        for number, own in enumerate(after)
        for accuracy in own
    ]
    return verdict(trials, finals)


def test_differences_beyond_the_noise_by_tukeys_table() -> None:
    """Pairs .01414 apart have a deviation of .01; q(.05; 3 groups, 3 degrees of freedom) is 5.910
    in the tables, so means must differ by 5.910 * .01 / sqrt(2) = .04179."""
    half = 0.01 / 2**0.5
    means = [0.9, 0.9 - 0.0416, 0.9 - 0.0420]
    found = judged([0.1, 0.2, 0.3], [[mean - half, mean + half] for mean in means])
    assert found.noise == pytest.approx(0.01)
    assert [item.number for item in found.finalists] == [0, 1, 2]
    assert found.worse == (2,)
    text = "It beats that of trial 2 by more than the noise; its lead over the others"
    assert text in str(found)


def test_the_rank_correlation_by_hand() -> None:
    """Ranks 1 2 3 4 5 against 1 2 3 5 4: rho = 1 - 6 * 2 / 120 = .9. Fisher's z is 1.4722, its
    deviation sqrt(1.405 / 2) = .83815, so 1.4722 -+ 1.6428: from -.1689 to .9961."""
    after = [[0.1], [0.2], [0.3], [0.5], [0.4]]
    found = judged([0.5, 0.6, 0.7, 0.8, 0.9], after)
    assert found.rank_correlation == pytest.approx(0.9)
    assert found.interval == pytest.approx((-0.1689, 0.9961), abs=1e-4)
    assert found.finalists[0].number == 3
    assert (found.noise, found.worse) == (None, ())
    # 1 counts as .95, whose z is 1.83178; sqrt(1.45125 / 2) = .85184: 1.83178 -+ 1.66957
    assert rank_interval(1.0, 5) == pytest.approx((0.1608, 0.9982), abs=1e-4)
    assert rank_interval(1.0, 3) == (-1, 1)


def test_unfinished_finalists_are_left_out() -> None:
    found = judged([0.1, 0.2], [[0.5, 0.6], [0.9]])
    assert [item.number for item in found.finalists] == [0]
    assert found.rank_correlation is None


def test_no_verdict_without_finals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = TrialResult(0.5, 1.0, 0.5, 0.1, 0.75)
    monkeypatch.setattr(RUN_MODULE, "train_candidate", lambda *_, **__: result)
    folder = tmp_path / "search"
    search(plan(max_trials=1), noise(), folder)
    assert read_verdict(folder) is None
    assert not (folder / "verdict.json").exists()
