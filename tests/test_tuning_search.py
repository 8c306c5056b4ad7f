"""Searches of tiny networks: folders, resume, promoted trials, KerasTuner's own tuners."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
from training_steps import noise, one_module_spec

from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.data.splits import ImageData, Split
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.training.snapshot import Snapshots
from tuning import (
    InceptionHyperModel,
    SearchPlan,
    Space,
    best_first,
    best_spec,
    pareto_front,
    read_trials,
    search,
)
from tuning.candidate import TrialResult, hold_out, subset, train_candidate
from tuning.engine.oracle import MAX_CONSECUTIVE_FAILURES
from tuning.engine.tuner import SearchAbortedError

# The package's `search` is the function.
RUN_MODULE = importlib.import_module("tuning.run")
RECIPE = Recipe(
    name="job", epochs=4, batch_size=8, base_learning_rate=0.1, average="exponential", clip_norm=1.0
)
BASE = one_module_spec(batch_norm=True, aux=False, dropout_rate=0.4)
COST = network_cost(BASE).total


def plan(**changes: Any) -> SearchPlan:
    space = Space(base=BASE, budget=Budget(macs=3 * COST.macs), width_divisor=1)
    fields = {"recipe": replace(RECIPE, epochs=1), "oracle": "random", "max_trials": 3}
    fields |= {"finalists": 0}
    return SearchPlan(space=space, **fields | changes)


def pretended(spec: NetworkSpec, *_: Any, **__: Any) -> TrialResult:
    """Replaces training: the wider the pool projection, the better the score."""
    accuracy = spec.modules[0].filters_pool_proj / 100
    return TrialResult(accuracy, 1 - accuracy, 0.5, 0.1, 0.75)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[NetworkSpec]:
    """The networks of the simulated trainings, in order."""
    trained: list[NetworkSpec] = []

    def counting(spec: NetworkSpec, *arguments: Any, **options: Any) -> TrialResult:
        trained.append(spec)
        return pretended(spec)

    monkeypatch.setattr(RUN_MODULE, "train_candidate", counting)
    return trained


# Data


def test_held_out_images_are_training_images_and_not_test_images() -> None:
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    labels = np.arange(20) % 2
    data = ImageData(
        "numbered", Split(images, labels), Split(images[:4] + 100, labels[:4]), ("even", "odd")
    )
    split = hold_out(data, 0.25, seed=3)
    train, test = (sorted(part.images.ravel().tolist()) for part in (split.train, split.test))
    assert len(test) == 4  # a quarter of each class, 2.5 images, rounded to an even number
    assert np.bincount(split.test.labels).tolist() == [2, 2]
    assert sorted(train + test) == list(range(20))
    assert np.array_equal(split.train.images.ravel() % 2, split.train.labels)
    assert hold_out(data, 0.25, seed=4).test.images.tolist() != split.test.images.tolist()
    part = subset(split, 0.4, seed=3)
    assert len(part.train) == 6
    assert set(part.train.images.ravel()) <= set(train)
    assert part.test is split.test
    for refused in (0.0, 1.0, 0.01):
        with pytest.raises(ValueError, match="Received: share="):
            hold_out(data, refused)
    with pytest.raises(ValueError, match="Received: data_fraction="):
        subset(data, 1.5)


def test_every_step_and_every_evaluation_batch_sends_a_heartbeat() -> None:
    """Two epochs of three steps on 24 images, and a batch of 8 others after each."""
    signs: list[None] = []
    data = hold_out(noise(32), 0.25)
    train_candidate(BASE, data, RECIPE, epochs=2, after_step=lambda: signs.append(None))
    assert len(signs) == 2 * (3 + 1)


# Resume and promotion


def test_a_promoted_trial_resumes_weights_and_optimizer(tmp_path: Path) -> None:
    """Two epochs and two more are bit for bit four: weights, moments, averages, dropout."""

    def state(name: str) -> dict[str, np.ndarray]:
        return Snapshots(tmp_path / name / "state").newest().arrays

    data = hold_out(noise(), 0.25)
    four = train_candidate(BASE, data, RECIPE, epochs=4, folder=tmp_path / "four")
    train_candidate(BASE, data, RECIPE, epochs=2, folder=tmp_path / "two")
    again = train_candidate(
        BASE, data, RECIPE, epochs=4, folder=tmp_path / "more", start_from=tmp_path / "two"
    )
    assert (again.accuracy, again.loss) == (four.accuracy, four.loss)
    for name, values in state("four").items():
        np.testing.assert_array_equal(state("more")[name], values, err_msg=name)
    assert not np.array_equal(state("two")["model/0"], state("four")["model/0"])


@pytest.mark.slow
def test_keras_tuners_hyperband_loses_the_optimizer(tmp_path: Path) -> None:
    """In the original, a promoted trial starts with its weights and a new optimizer."""
    seen = []

    def build(hp: keras_tuner.HyperParameters) -> keras.Model:
        hp.Float("x", 0, 1)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    class Looking(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            seen.append((self.params["epochs"], int(self.model.optimizer.iterations)))

    tuner = keras_tuner.Hyperband(
        build, "loss", max_epochs=3, seed=1, directory=tmp_path, project_name="plain"
    )
    tuner.search(np.ones((8, 2)), np.ones((8, 1)), verbose=0, callbacks=[Looking()])
    promoted = [iterations for epochs, iterations in seen if epochs == 3]
    assert promoted
    assert set(promoted) == {0}


@pytest.mark.slow
def test_halving_in_a_folder_with_real_trainings(tmp_path: Path) -> None:
    halving = plan(recipe=RECIPE, max_trials=3, halving_epochs=(1, 3))
    assert search(halving, noise(), tmp_path / "search")
    trials = read_trials(tmp_path / "search")
    assert [(trial.round, trial.epochs) for trial in trials] == [(0, 1), (0, 1), (0, 1), (1, 3)]
    best = best_first(trials)
    assert best[0] is trials[3]
    assert best[0].spec == best[1].spec
    assert best[1].accuracy == max(trial.accuracy for trial in trials[:3])
    assert best[0].metrics["seconds"] > best[0].metrics["training_seconds"] > 0


# Folders


def test_a_search_and_its_files(tmp_path: Path, counted: list[NetworkSpec]) -> None:
    folder = tmp_path / "search"
    assert search(plan(), noise(), folder)
    trials = read_trials(folder)
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert [trial.spec for trial in trials] == counted
    assert counted[0] == plan().space.spec({})  # the neutral point
    assert len({trial.spec.to_json() for trial in trials}) == 3
    for trial in trials:
        assert trial.status == "COMPLETED"
        assert 0.95 * 3 * COST.macs < trial.macs <= 3 * COST.macs
        assert trial.accuracy == trial.spec.modules[0].filters_pool_proj / 100
        assert trial.metrics["seconds"] == 0.75
    best = max(trials, key=lambda trial: trial.accuracy)
    written = NetworkSpec.from_json((folder / "best_spec.json").read_text())
    assert written == replace(best.spec, name=f"{BASE.name}_tuned")

    assert search(plan(), noise(), folder)  # finished: nothing is trained again
    assert len(counted) == 3
    assert search(plan(max_trials=4), noise(), folder)  # more trials of the same search
    assert len(counted) == 4


def test_another_space_is_refused_with_the_difference(
    tmp_path: Path, counted: list[NetworkSpec]
) -> None:
    folder = tmp_path / "search"
    search(plan(max_trials=1), noise(), folder)
    narrower = replace(plan().space, budget=Budget(macs=2 * COST.macs))
    with pytest.raises(ValueError, match=re.escape(f" - space.budget.macs: {3 * COST.macs}")):
        search(replace(plan(), space=narrower), noise(), folder)
    with pytest.raises(ValueError, match=r"\+ recipe\.clip_norm: 0"):
        search(plan(recipe=replace(RECIPE, epochs=1, clip_norm=0.0)), noise(), folder)
    with pytest.raises(ValueError, match=r"\+ search\.seed: 2"):
        search(plan(seed=2), noise(), folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="which holds other files"):
        search(plan(), noise(), tmp_path / "other")


def test_a_trial_that_diverges_is_one_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def failing(spec: NetworkSpec, *arguments: Any, **options: Any) -> Any:
        calls.append(spec)
        if len(calls) == 2:
            raise FloatingPointError("Received: a loss of nan")
        return pretended(spec)

    monkeypatch.setattr(RUN_MODULE, "train_candidate", failing)
    assert search(plan(max_trials=4), noise(), tmp_path / "search")
    trials = read_trials(tmp_path / "search")
    assert [trial.status for trial in trials] == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    assert "a loss of nan" in trials[1].message
    assert len(best_first(trials)) == 3
    assert "Traceback" not in capsys.readouterr().err  # KerasTuner 1.4.8 prints one


def test_a_recipe_with_which_all_trials_diverge_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise MemoryError("out of memory")

    monkeypatch.setattr(RUN_MODULE, "train_candidate", failing)
    with pytest.raises(SearchAbortedError, match="MemoryError: out of memory"):
        search(plan(max_trials=30), noise(), tmp_path / "search")
    assert len(read_trials(tmp_path / "search")) == MAX_CONSECUTIVE_FAILURES
    assert best_spec(tmp_path / "search") is None


def test_accuracy_against_multiply_adds(tmp_path: Path, counted: list[NetworkSpec]) -> None:
    space = replace(plan().space, min_budget_share=0.5)
    two = replace(plan(oracle="tpe", max_trials=14, second_objective="macs"), space=space)
    search(two, noise(), tmp_path / "search")
    trials = read_trials(tmp_path / "search")
    assert len({trial.macs for trial in trials}) > 1
    points = {(trial.macs, trial.accuracy) for trial in trials}
    unbeaten = {
        (macs, accuracy)
        for macs, accuracy in points
        if not any(
            other_macs <= macs and other >= accuracy and (other_macs, other) != (macs, accuracy)
            for other_macs, other in points
        )
    }
    assert {(trial.macs, trial.accuracy) for trial in pareto_front(trials)} == unbeaten


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"second_objective": "price"}, "Received: second_objective='price'"),
        ({"second_objective": "macs"}, "Expected kind 'tpe' for two objectives"),
        ({"max_trials": 0}, "Received: max_trials=0"),
        ({"halving_epochs": (1, 9)}, "at most the recipe's 1 epoch."),
    ],
)
def test_refused_plans(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        plan(**changes)


def test_spaces_round_trip_through_json() -> None:
    space = replace(plan().space, kernels=("3",), depth=True, stem=True, min_budget_share=0.5)
    assert Space.from_json(space.to_json()) == space
    assert json.loads(space.to_json())["budget"] == {"macs": 3 * COST.macs, "params": None}


# KerasTuner's own tuners


def test_the_hypermodel_in_keras_tuners_random_search(tmp_path: Path) -> None:
    model = InceptionHyperModel(
        budget=Budget(macs=3 * COST.macs),
        input_shape=(12, 12, 1),
        classes=3,
        recipe=replace(RECIPE, average="none", epochs=1),
        base=BASE,
        width_divisor=1,
    )
    tuner = keras_tuner.RandomSearch(
        model, "val_accuracy", max_trials=2, seed=1, directory=tmp_path, project_name="plain"
    )
    images = np.random.default_rng(0).uniform(-1, 1, (32, 12, 12, 1)).astype("float32")
    labels = np.arange(32) % 3
    tuner.search(images, labels, validation_data=(images, labels), verbose=0)
    best = tuner.oracle.get_best_trials(1)[0]
    spec = model.spec(best.hyperparameters)
    assert best.metrics.get_last_value("macs") == network_cost(spec).total.macs <= 3 * COST.macs
    assert tuner.get_best_models(1)[0].output_shape == (None, 3)
