"""The choice of how cheaply trials train: a sample of networks, simulated trainings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_tuning_search import RECIPE, plan
from training_steps import noise

from keras_inception.cost.layers import network_cost
from keras_inception.spec.network import NetworkSpec
from tuning import fidelity
from tuning.candidate import TrialResult
from tuning.fidelity import choose_fidelity, load_choice, stratified_sample
from tuning.plan import SearchPlan

NETWORKS = 4
# Ranks of the networks after each epoch. With those at the end, 0 1 2 3, the rank correlation is -1
# for 3 2 1 0, 1 - 6 * 2 / 60 = .8 for 0 2 1 3, and 1 - 6 * 4 / 60 = .6 for 1 0 3 2.
RANKS = {
    23: ([3, 2, 1, 0], [0, 2, 1, 3], [0, 1, 2, 3]),
    12: ([0, 2, 1, 3], [0, 1, 2, 3], [0, 1, 2, 3]),
    6: ([3, 2, 1, 0], [1, 0, 3, 2], [0, 1, 2, 3]),
}


def full_plan(**changes: Any) -> SearchPlan:
    fields = {"recipe": replace(RECIPE, epochs=3), "validation_share": 0.25, "max_trials": 60}
    return plan(**fields | changes)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Images and epochs of each training: a second, and 10 an epoch of all 23 images."""
    seen: list[tuple[int, int]] = []

    def pretended(_: NetworkSpec, data: Any, *__: Any, epochs: int, **___: Any) -> TrialResult:
        images = len(data.train)
        place = sum(known == images for known, _ in seen)
        seen.append((images, epochs))
        curve = tuple(ranks[place] / 10 for ranks in RANKS[images][:epochs])
        in_epochs = {23: 10.0, 12: 5.0, 6: 2.5}[images] * epochs
        return TrialResult(curve[-1], 1.0, in_epochs - 1, 1.0, in_epochs + 1, curve=curve)

    monkeypatch.setattr(fidelity, "train_candidate", pretended)
    return seen


def test_the_cheapest_way_that_ranks_well_enough(
    tmp_path: Path, calls: list[tuple[int, int]]
) -> None:
    """Two full epochs (.8, 21 s) are good; one of half of the images (.8, 6 s) is cheaper; of a
    quarter only two epochs could cost less, and they reach .6."""
    choice = choose_fidelity(full_plan(), noise(32), tmp_path, networks=NETWORKS)
    assert calls == [(23, 3)] * 4 + [(12, 3)] * 4 + [(6, 2)] * 4
    chosen = choice.chosen
    assert (chosen.epochs, chosen.data_fraction, chosen.resolution) == (1, 0.5, None)
    assert chosen.seconds == 6
    assert chosen.rank_correlation == pytest.approx(0.8)
    assert choice.full.seconds == 31
    assert choice.seconds == 4 * (31 + 16 + 6)
    by_way = {(item.epochs, item.data_fraction): item.rank_correlation for item in choice.measured}
    assert by_way[1, 1.0] == pytest.approx(-1)
    assert by_way[2, 1.0] == pytest.approx(0.8)
    assert by_way[2, 0.25] == pytest.approx(0.6)
    assert choice.describe(60) == (
        "Trials train for 1 epoch, 50% of the images (rank correlation with full trainings 0.80; "
        "4 networks, measured in 4 min). 60 trials would take about 6 min, by full "
        "trainings 31 min."
    )
    applied = choice.applied(full_plan())
    assert (applied.halving_epochs, applied.data_fraction, applied.resolution) == ((1,), 0.5, None)
    assert load_choice(tmp_path) == choice


def test_no_longer_than_the_search_itself(tmp_path: Path, calls: list[tuple[int, int]]) -> None:
    """Four trials would take 4 * 31 s by full trainings, as long as the full ones of the sample."""
    choice = choose_fidelity(full_plan(max_trials=4), noise(32), tmp_path, networks=NETWORKS)
    assert calls == [(23, 3)] * 4
    assert (choice.chosen.epochs, choice.chosen.data_fraction) == (2, 1.0)


def test_full_trainings_where_nothing_cheaper_ranks(
    tmp_path: Path, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = ([3, 2, 1, 0], [3, 2, 1, 0], [0, 1, 2, 3])
    monkeypatch.setitem(RANKS, 23, bad)
    monkeypatch.setitem(RANKS, 12, ([0, 0, 0, 0],) * 3)
    monkeypatch.setitem(RANKS, 6, ([3, 2, 1, 0],) * 3)
    small = full_plan(max_trials=7)  # after 4 * (31 + 16 + 8.5) s of 7 * 31 s no other size
    choice = choose_fidelity(small, noise(32), tmp_path, networks=NETWORKS)
    assert choice.chosen == choice.full
    assert choice.applied(small) == small
    assert "no cheaper way ranks networks well enough" in choice.describe(9)


def test_measuring_that_is_killed_goes_on(
    tmp_path: Path, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(name: str, accuracy: float) -> None:
        if len(calls) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose_fidelity(full_plan(), noise(32), tmp_path, networks=NETWORKS, on_result=killed)
    assert load_choice(tmp_path) is None
    choice = choose_fidelity(full_plan(), noise(32), tmp_path, networks=NETWORKS)
    assert len(calls) == 12
    assert choice.chosen.seconds == 6


def test_the_sample_has_a_network_of_each_part(tmp_path: Path) -> None:
    space = full_plan().space
    sample = [network_cost(spec).total for spec in stratified_sample(space, 5, seed=2)]
    params = [cost.params for cost in sample]
    assert params == sorted(params)
    assert max(cost.macs for cost in sample) <= space.budget.macs
    assert stratified_sample(space, 5, seed=2) != stratified_sample(space, 5, seed=3)


def test_plans_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="networks=3"):
        choose_fidelity(full_plan(), noise(32), tmp_path, networks=3)
    with pytest.raises(ValueError, match="a plan of cheaper trainings"):
        choose_fidelity(full_plan(data_fraction=0.5), noise(32), tmp_path, networks=4)
