"""Each fault of KerasTuner's oracle: the original behaviour and that of this package.

Runs in one process with a simulated clock; test_tuning_faults.py kills real processes.
"""

import json
import math
import resource
from pathlib import Path
from typing import Any

import keras_tuner
import pytest
from keras_tuner.engine.trial import TrialStatus

from tuning.engine.control import TrialControl
from tuning.engine.leases import MAX_LOSSES, Cause, ProcessReport
from tuning.engine.oracle import SearchOracle, UnknownTrialError
from tuning.engine.oracles import BayesianOracle, HyperbandOracle, RandomOracle, make_oracle
from tuning.engine.tpe import TPEOracle
from tuning.engine.tuner import SearchTuner

SCORE = keras_tuner.Objective("score", "max")
Plain = keras_tuner.oracles.RandomSearchOracle


class Clock:
    """A simulated clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def space(high: float = 1.0) -> keras_tuner.HyperParameters:
    hyperparameters = keras_tuner.HyperParameters()
    hyperparameters.Float("x", 0.0, high, step=1 / 64, default=0.5)
    return hyperparameters


def oracle(kind: type, folder: Path, trials: int = 4, **settings: Any) -> Any:
    made = kind(objective=SCORE, max_trials=trials, hyperparameters=space(), seed=1, **settings)
    made.verbose = 0
    made._set_project_dir(str(folder), "search")
    return made


def finish(made: Any, trial: Any, score: float = 0.0) -> None:
    made.update_trial(trial.trial_id, {"score": score})
    trial.status = TrialStatus.COMPLETED
    made.end_trial(trial)


def fail(made: Any, trial: Any, message: str) -> None:
    trial.status = TrialStatus.FAILED
    trial.message = message
    made.end_trial(trial)


# Killed workers


def test_a_trial_of_a_lost_worker_is_run_by_another(tmp_path: Path) -> None:
    plain = oracle(Plain, tmp_path / "plain", trials=2)
    plain.create_trial("first")
    finish(plain, plain.create_trial("second"))
    assert plain.create_trial("second").status == TrialStatus.STOPPED  # one trial is lost

    clock = Clock()
    ours = oracle(RandomOracle, tmp_path / "ours", trials=2, clock=clock, lease_seconds=10.0)
    lost = ours.create_trial("first")
    finish(ours, ours.create_trial("second"))
    assert ours.create_trial("second").status == TrialStatus.IDLE
    clock.now = 9.0
    ours.get_trial(lost.trial_id)  # a heartbeat
    clock.now = 18.0
    assert ours.create_trial("second").status == TrialStatus.IDLE
    clock.now = 19.5
    again = ours.create_trial("second")
    assert (again.status, again.trial_id) == (TrialStatus.RUNNING, lost.trial_id)
    finish(ours, again)
    assert ours.create_trial("second").status == TrialStatus.STOPPED
    assert ours.is_finished()


def test_the_first_of_two_results_of_a_trial_counts(tmp_path: Path) -> None:
    """A slow worker's trial was given to another; the first result counts."""
    clock = Clock()
    ours = oracle(RandomOracle, tmp_path, trials=1, clock=clock, lease_seconds=10.0)
    slow = ours.create_trial("slow")
    clock.now = 11.0
    quick = ours.create_trial("quick")
    assert quick.trial_id == slow.trial_id
    finish(ours, quick, score=0.25)
    finish(ours, slow, score=0.75)
    assert ours.end_order == [quick.trial_id]
    assert ours.get_best_trials()[0].score == 0.25
    assert ours.create_trial("slow").status == TrialStatus.STOPPED
    assert ours.create_trial("quick").status == TrialStatus.STOPPED


def test_a_result_of_a_requeued_trial_is_accepted(tmp_path: Path) -> None:
    clock = Clock()
    ours = oracle(RandomOracle, tmp_path, trials=2, clock=clock, lease_seconds=10.0)
    slow = ours.create_trial("slow")
    clock.now = 11.0
    ours.is_finished()  # ends the lease
    finish(ours, slow, score=0.5)
    assert ours.create_trial("slow").trial_id != slow.trial_id


def test_a_rerun_replaces_the_scores_of_the_first_run(tmp_path: Path) -> None:
    """The process ended between its result and the end of the trial; it restarts under its name."""
    for kind, expected in ((Plain, 0.5), (RandomOracle, 1.0)):
        made = oracle(kind, tmp_path / kind.__name__)
        made.update_trial(made.create_trial("one").trial_id, {"score": 0.0})
        finish(made, made.create_trial("one"), score=1.0)
        assert made.get_best_trials()[0].score == expected


def restarts(cause: Cause, count: int) -> list[ProcessReport]:
    """The processes of a worker, each of which ended for that cause."""
    return [
        ProcessReport(
            process=str(number), predecessor=str(number - 1) if number else "", cause=cause
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("cause", "count", "reason"),
    [
        (Cause.OWN, 3, "3 processes died by themselves"),
        (Cause.UNKNOWN, 20, "20 processes vanished or were killed for an unknown reason"),
    ],
)
def test_a_trial_that_takes_its_processes_with_it_fails(
    tmp_path: Path, cause: Cause, count: int, reason: str
) -> None:
    assert MAX_LOSSES[cause] == count
    ours = oracle(RandomOracle, tmp_path, trials=2)
    ids = [ours.lend("worker", report).trial_id for report in restarts(cause, count + 1)]
    assert ids == ["0"] * count + ["1"]
    assert ours.trials["0"].status == TrialStatus.FAILED
    assert reason in ours.trials["0"].message


def test_what_is_not_the_trials_fault_never_counts(tmp_path: Path) -> None:
    """SIGTERM, and ends of the launcher or machine, after which nobody reports on a process."""
    ours = oracle(RandomOracle, tmp_path, trials=2)
    for report in restarts(Cause.OUTSIDE, 50):
        assert ours.lend("worker", report).trial_id == "0"
        assert ours.lend("worker", ProcessReport()).trial_id == "0"
    stranger = ProcessReport(predecessor="another process", cause=Cause.OWN)
    for _ in range(50):
        assert ours.lend("worker", stranger).trial_id == "0"
    for _ in range(50):
        ours.give_back("worker")
        assert ours.lend("worker", ProcessReport()).trial_id == "0"
    assert ours.trials["0"].status == TrialStatus.RUNNING


def test_a_request_repeated_by_one_process_gets_its_trial_again(tmp_path: Path) -> None:
    """The chief was killed after it had lent a trial, before its answer arrived."""
    ours = oracle(RandomOracle, tmp_path, trials=9)
    report = ProcessReport(process="b", predecessor="a", cause=Cause.OWN)
    trial = ours.lend("worker", report)
    again = oracle(RandomOracle, tmp_path, trials=9)
    again.reload()
    for _ in range(5):
        assert again.lend("worker", report).trial_id == trial.trial_id
    assert again.trials[trial.trial_id].status == TrialStatus.RUNNING
    assert again.leases.losses[Cause.OWN] == {}


def test_losses_survive_the_chief(tmp_path: Path) -> None:
    for report in restarts(Cause.OWN, 4):
        ours = oracle(RandomOracle, tmp_path, trials=2)
        ours.reload()
        trial = ours.lend("worker", report)
    assert (trial.trial_id, ours.trials["0"].status) == ("1", TrialStatus.FAILED)


# What a worker may report


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"score": 1.5}, "score to be finite, from 0 to 1"),
        ({"score": -0.1}, "score to be finite, from 0 to 1"),
        ({"score": math.nan}, "score to be finite"),
        ({"score": math.inf}, "score to be finite"),
        ({"score": 0.5, "other": math.nan}, "other to be finite"),
        ({"other": 0.5}, "results with score"),
        ({}, "results with score"),
    ],
)
def test_results_that_cannot_be_are_refused(
    tmp_path: Path, metrics: dict[str, float], reason: str
) -> None:
    ours = oracle(RandomOracle, tmp_path, bounds={"score": (0.0, 1.0)})
    trial = ours.create_trial("one")
    with pytest.raises(ValueError, match=reason):
        ours.update_trial(trial.trial_id, metrics)
    assert not trial.metrics.exists("score")
    finish(ours, trial, score=1.0)
    assert ours.trials["0"].status == TrialStatus.COMPLETED


def test_an_end_that_cannot_be_is_refused(tmp_path: Path) -> None:
    ours = oracle(RandomOracle, tmp_path)
    trial = ours.create_trial("one")
    copy = type(trial).from_state(trial.get_state())
    copy.status = TrialStatus.COMPLETED
    with pytest.raises(ValueError, match="Expected results of trial 0 before its end"):
        ours.end_trial(copy)
    ours.update_trial("0", {"score": 0.5})
    copy.hyperparameters.values["x"] = 7.0
    with pytest.raises(ValueError, match=r"Received: \{'x': 7.0\}"):
        ours.end_trial(copy)
    copy.hyperparameters.values["x"] = trial.hyperparameters.values["x"]
    copy.status = TrialStatus.RUNNING
    with pytest.raises(ValueError, match="Expected a status"):
        ours.end_trial(copy)
    assert ours.end_order == []


def test_unknown_trials_and_hyperparameters_are_refused(tmp_path: Path) -> None:
    ours = oracle(RandomOracle, tmp_path)
    trial = ours.create_trial("one")
    for call in (ours.get_trial, lambda key: ours.update_trial(key, {"score": 0.5})):
        with pytest.raises(UnknownTrialError, match="no trial '99'"):
            call("99")
    trial.trial_id = "99"
    with pytest.raises(UnknownTrialError):
        ours.end_trial(trial)
    strange = space()
    strange.Float("y", 0.0, 1.0)
    with pytest.raises(ValueError, match=r"Received: \['y'\]"):
        ours.update_space(strange)
    assert [item.name for item in ours.hyperparameters.space] == ["x"]
    assert ours.create_trial("two").status == TrialStatus.RUNNING  # the lock is free


# Files


@pytest.mark.parametrize("name", ["oracle.json", "trial_1/trial.json"])
def test_a_truncated_file_does_not_end_the_project(tmp_path: Path, name: str) -> None:
    made = oracle(RandomOracle, tmp_path)
    for _ in range(3):
        finish(made, made.create_trial("one"), score=0.5)
    file = tmp_path / "search" / name
    file.write_text(file.read_text()[:-10])
    with pytest.raises(json.JSONDecodeError):
        oracle(Plain, tmp_path).reload()

    ours = oracle(RandomOracle, tmp_path)
    with pytest.warns(UserWarning, match="is set aside"):
        ours.reload()
    assert ours.end_order == ["0", "1", "2"]
    torn = ours.trials["1"]
    assert torn.status == (TrialStatus.FAILED if "trial_1" in name else TrialStatus.COMPLETED)
    assert ours.create_trial("one").trial_id == "3"
    assert file.with_suffix(".unreadable").exists()


def test_a_failed_write_leaves_the_file_unchanged(tmp_path: Path) -> None:
    """Files may have at most 20 bytes; the original truncates its file before the write fails."""
    for kind, survives in ((Plain, False), (RandomOracle, True)):
        made = oracle(kind, tmp_path / kind.__name__)
        finish(made, made.create_trial("one"))
        file = Path(made._get_oracle_fname())
        before = file.read_text()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
        try:
            with pytest.raises(Exception, match="too large"):
                made.save()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (file.read_text() == before) == survives


def test_a_finished_search_runs_nothing_again(tmp_path: Path) -> None:
    for kind, expected in ((Plain, TrialStatus.RUNNING), (RandomOracle, TrialStatus.STOPPED)):
        first = oracle(kind, tmp_path / kind.__name__, trials=2)
        for _ in range(2):
            finish(first, first.create_trial("one"))
        second = oracle(kind, tmp_path / kind.__name__, trials=2)
        second.reload()
        assert second.create_trial("one").status == expected


def test_a_restarted_chief_leaves_running_trials_to_their_workers(tmp_path: Path) -> None:
    for kind, runs_twice in ((Plain, True), (RandomOracle, False)):
        before = oracle(kind, tmp_path / kind.__name__, trials=3)
        running = before.create_trial("one")
        after = oracle(kind, tmp_path / kind.__name__, trials=3)
        after.reload()
        other = after.create_trial("two")
        assert (other.trial_id == running.trial_id) == runs_twice
        if not runs_twice:
            finish(after, running, score=0.5)
            assert after.trials["0"].score == 0.5


def test_a_trial_saved_just_before_the_kill_is_kept(tmp_path: Path) -> None:
    """trial.json is new, oracle.json is older."""
    for kind, expected in ((Plain, "1"), (RandomOracle, "0")):
        made = oracle(kind, tmp_path / kind.__name__)
        made.save()
        before = Path(made._get_oracle_fname()).read_text()
        made.create_trial("one")
        Path(made._get_oracle_fname()).write_text(before)
        after = oracle(kind, tmp_path / kind.__name__)
        after.reload()
        assert after.create_trial("two").trial_id == expected


# Failures


def test_three_failures_in_a_row(tmp_path: Path) -> None:
    """The original raises and keeps its lock; ours stops and keeps the last reason."""
    plain = oracle(Plain, tmp_path / "plain")
    for _ in range(2):
        fail(plain, plain.create_trial("one"), "diverged")
    third = plain.create_trial("one")
    with pytest.raises(RuntimeError, match="consecutive failures"):
        fail(plain, third, "diverged")

    ours = oracle(RandomOracle, tmp_path / "ours", trials=9, max_consecutive_failed_trials=3)
    for number in range(3):
        assert ours.aborted is None
        fail(ours, ours.create_trial("one"), f"diverged {number}")
    assert ours.aborted == "diverged 2"
    assert ours.create_trial("one").status == TrialStatus.STOPPED
    assert ours.is_finished()

    resumed = oracle(RandomOracle, tmp_path / "ours", trials=9, max_consecutive_failed_trials=3)
    resumed.reload()
    assert resumed.create_trial("one").status == TrialStatus.RUNNING


def test_a_trial_lost_after_the_end_does_not_delay_it(tmp_path: Path) -> None:
    """One worker's trials fail in a row while another is killed in the middle of one."""
    clock = Clock()
    ours = oracle(
        RandomOracle,
        tmp_path,
        trials=9,
        max_consecutive_failed_trials=3,
        clock=clock,
        lease_seconds=10.0,
    )
    ours.create_trial("killed")
    for _ in range(3):
        fail(ours, ours.create_trial("one"), "diverged")
    assert ours.create_trial("one").status == TrialStatus.STOPPED
    assert not ours.is_finished()  # the other worker's result may still arrive
    clock.now = 11.0
    assert ours.is_finished()


def test_the_reason_of_a_failure_is_kept(tmp_path: Path) -> None:
    """It is sent with the values, because the protocol has no field for a trial's message."""
    ours = oracle(RandomOracle, tmp_path)
    trial = ours.create_trial("one")
    sent = type(trial).from_proto(trial.to_proto())
    sent.message = "lost"
    assert type(trial).from_proto(sent.to_proto()).message is None
    sent.hyperparameters.values |= TrialControl(error="loss is nan").to_values()
    fail(ours, type(trial).from_proto(sent.to_proto()), "")
    state = json.loads((tmp_path / "search" / "trial_0" / "trial.json").read_text())
    assert state["message"] == "loss is nan"
    assert set(state["hyperparameters"]["values"]) == {"x"}


def test_a_refused_result_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    """A search alone; over gRPC test_tuning_access.py."""

    class Tuner(SearchTuner):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
            return {"score": math.nan if trial.trial_id == "0" else 0.5}

    ours = oracle(RandomOracle, tmp_path, trials=2)
    assert Tuner(ours, tmp_path / "search").search()
    assert [trial.status for trial in ours.trials.values()] == ["FAILED", "COMPLETED"]
    assert "Expected score to be finite" in ours.trials["0"].message


# Proposals


@pytest.mark.parametrize("kind", ["tpe", "bayesian", "random"])
def test_the_neutral_point_is_trial_0_and_networks_are_distinct(kind: str, tmp_path: Path) -> None:
    """Sixteen points of x give four different networks; then the search ends."""
    made = make_oracle(
        kind,
        objective=SCORE,
        max_trials=40,
        hyperparameters=space(),
        seed=3,
        network_of=lambda values: str(round(4 * values["x"])),
    )
    made.verbose = 0
    made._set_project_dir(str(tmp_path), "search")
    networks = []
    while (trial := made.create_trial("one")).status == TrialStatus.RUNNING:
        x = trial.hyperparameters.values["x"]
        networks.append(round(4 * x))
        finish(made, trial, score=-abs(x - 0.7))
    assert networks[0] == 2
    assert len(networks) == len(set(networks))
    assert set(networks) <= {0, 1, 2, 3, 4}
    assert len(networks) >= 4


class Stuck(keras_tuner.Oracle):
    """Always proposes the same point, like a converged Gaussian process on a grid."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        return {"status": TrialStatus.RUNNING, "values": {"x": 0.5}}


class StuckSearch(SearchOracle):
    """The same proposal, in this package's oracle."""

    def propose(self, trial_id: str) -> dict[str, Any]:
        return {"status": TrialStatus.RUNNING, "values": {"x": 0.5}}


def test_a_repeated_proposal_is_replaced_by_a_random_one(tmp_path: Path) -> None:
    for kind, networks in ((Stuck, 1), (StuckSearch, 4)):
        made = oracle(kind, tmp_path / kind.__name__)
        points = set()
        for _ in range(4):
            trial = made.create_trial("one")
            points.add(trial.hyperparameters.values["x"])
            finish(made, trial)
        assert len(points) == networks


def test_plain_search_repeats_networks_and_does_not_start_at_the_neutral_point(
    tmp_path: Path,
) -> None:
    made = oracle(Plain, tmp_path, trials=20)
    networks = []
    while (trial := made.create_trial("one")).status == TrialStatus.RUNNING:
        networks.append(round(4 * trial.hyperparameters.values["x"]))
        finish(made, trial)
    assert networks[0] != 2
    assert len(networks) > len(set(networks))


def search(
    kind: str, folder: Path, seed: int, trials: int, *, by_round: float = 0.0, **settings: Any
) -> Any:
    """Run a search whose score has its maximum at x = .7 and y = -.4.

    In later rounds `by_round` times z is added to the score.
    """
    hyperparameters = keras_tuner.HyperParameters()
    for name in "xyz":
        hyperparameters.Float(name, -1.0, 1.0, step=1 / 64, default=0.0)
    made = make_oracle(
        kind,
        objective=SCORE,
        max_trials=trials,
        hyperparameters=hyperparameters,
        seed=seed,
        **settings,
    )
    made.verbose = 0
    made._set_project_dir(str(folder), "search")
    while (trial := made.create_trial("one")).status == TrialStatus.RUNNING:
        values = trial.hyperparameters.values
        score = -((values["x"] - 0.7) ** 2) - (values["y"] + 0.4) ** 2 - 0.1 * values["z"] ** 2
        score += by_round * values.get("tuner/round", 0) * values["z"]
        made.update_trial(trial.trial_id, {"score": score, "cost": 1 + values["x"]})
        trial.status = TrialStatus.COMPLETED
        made.end_trial(trial)
    return made


def last_values(made: Any, count: int) -> list[dict[str, float]]:
    trials = sorted(made.trials.values(), key=lambda trial: int(trial.trial_id))
    return [trial.hyperparameters.values for trial in trials[-count:]]


def test_tpe_approaches_the_best_scores(tmp_path: Path) -> None:
    """After ten random trials, twenty are closer to the maximum at (.7, -.4)."""

    def mean_distance(kind: str) -> float:
        points = last_values(search(kind, tmp_path / kind, 1, 30), 15)
        return sum(math.dist((v["x"], v["y"]), (0.7, -0.4)) for v in points) / len(points)

    assert mean_distance("tpe") < 0.6 * mean_distance("random")


def test_two_objectives_spread_along_the_front(tmp_path: Path) -> None:
    """Score against cost = 1 + x: two objectives also try cheap points with worse scores."""
    second = keras_tuner.Objective("cost", "min")
    both = last_values(search("tpe", tmp_path / "both", 1, 36, second_objective=second), 20)
    one = last_values(search("tpe", tmp_path / "one", 1, 36), 20)
    assert sum(values["x"] < 0 for values in both) >= 6
    assert sum(values["x"] < 0 for values in one) <= 3


def test_halving_promotes_the_best_third(tmp_path: Path) -> None:
    """Nine trials, then the best three, then the best of these; each names its predecessor."""
    made = search("random", tmp_path, 1, 9, halving_epochs=(1, 3, 9))
    trials = list(made.trials.values())
    rounds = {number: [] for number in range(3)}
    for trial in trials:
        values = trial.hyperparameters.values
        rounds[values["tuner/round"]].append(trial)
        assert values["tuner/epochs"] == (1, 3, 9)[values["tuner/round"]]
        assert values["tuner/initial_epoch"] == (0, 1, 3)[values["tuner/round"]]
    assert [len(rounds[number]) for number in range(3)] == [9, 3, 1]
    best = sorted(rounds[0], key=lambda trial: -trial.score)[:3]
    promoted = {trial.hyperparameters.values["tuner/trial_id"] for trial in rounds[1]}
    assert promoted == {trial.trial_id for trial in best}
    assert made.get_best_trials(1) == rounds[2]


def test_halving_waits_for_all_of_a_round(tmp_path: Path) -> None:
    """The best of the second round is not always among the first two trained."""
    for seed in range(1, 7):
        made = search(
            "random", tmp_path / str(seed), seed, 9, by_round=9.0, halving_epochs=(1, 3, 9)
        )
        second, third = (
            [t for t in made.trials.values() if t.hyperparameters.values["tuner/round"] == number]
            for number in (1, 2)
        )
        best = max(second, key=lambda trial: trial.score)
        assert [t.hyperparameters.values["tuner/trial_id"] for t in third] == [best.trial_id]


def test_a_replacement_of_a_repeated_point_keeps_its_round(tmp_path: Path) -> None:
    """There are only four networks, so most proposals are repetitions."""
    made = search(
        "tpe", tmp_path, 1, 27, halving_epochs=(1, 3), network_of=lambda v: str(round(13 * v["x"]))
    )
    trained = [trial.hyperparameters.values["tuner/epochs"] for trial in made.trials.values()]
    assert trained.count(1) == 27
    assert trained.count(3) == 9
    assert made.trial_count == 36


def test_hyperband_makes_as_many_trials_as_it_says(tmp_path: Path) -> None:
    """Most epochs 9: brackets of 9 + 3 + 1, 5 + 2 and 3 trials, by the paper's rule of thirds."""
    made = search("hyperband", tmp_path, 1, 1, halving_epochs=(9,))
    epochs = [trial.hyperparameters.values["tuner/epochs"] for trial in made.trials.values()]
    assert made.trial_count == len(epochs) == 23
    assert max(epochs) == 9
    assert all(trial.status == TrialStatus.COMPLETED for trial in made.trials.values())


def test_halving_continues_after_failures(tmp_path: Path) -> None:
    """All but one of nine fail; the remaining one is promoted to the last round."""
    made = make_oracle(
        "random",
        objective=SCORE,
        max_trials=9,
        hyperparameters=space(),
        seed=1,
        halving_epochs=(1, 2, 4),
        max_consecutive_failed_trials=20,
    )
    made.verbose = 0
    made._set_project_dir(str(tmp_path), "search")
    while (trial := made.create_trial("one")).status == TrialStatus.RUNNING:
        if int(trial.trial_id) < 8:
            fail(made, trial, "diverged")
        else:
            finish(made, trial, score=0.5)
    ended = [t.hyperparameters.values["tuner/epochs"] for t in made.get_best_trials(9)]
    assert ended == [4, 2, 1]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("best", {}),
        ("bayesian", {"halving_epochs": (1, 2)}),
        ("hyperband", {}),
        ("hyperband", {"halving_epochs": (1, 3)}),
        ("random", {"second_objective": keras_tuner.Objective("cost", "min")}),
        ("tpe", {"halving_epochs": (2, 1)}),
    ],
)
def test_refused_oracles(kind: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Received: "):
        make_oracle(kind, objective=SCORE, max_trials=3, hyperparameters=space(), **settings)


def test_every_kind_is_a_search_oracle() -> None:
    """Its methods come before those of KerasTuner's oracle that proposes."""
    for kind in (RandomOracle, BayesianOracle, HyperbandOracle, TPEOracle):
        assert issubclass(kind, SearchOracle)
        order = [base.__name__ for base in kind.__mro__]
        assert order.index("SearchOracle") < order.index("Oracle")
        for name in ("populate_space", "create_trial", "end_trial", "save", "reload"):
            assert name not in vars(kind)
            assert getattr(kind, name) is getattr(SearchOracle, name)
