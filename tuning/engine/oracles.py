"""The kinds of search, each over the mended oracle, and successive halving over any of them."""

from __future__ import annotations

from typing import Any, Literal

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from tuning.engine.oracle import EPOCHS_VALUE, FIRST_EPOCH_VALUE, ROUND_VALUE, TRIAL_VALUE, Mended
from tuning.engine.tpe import TPE

Kind = Literal["tpe", "bayesian", "random", "hyperband"]

# For BayesianOptimization: fewer random trials at first than 3 a dimension, noisier and bolder.
GAUSSIAN_SETTINGS: dict[str, Any] = {"num_initial_points": 15, "alpha": 0.05, "beta": 1.0}
# A round keeps one in so many.
REDUCTION = 3


class RandomOracle(Mended, keras_tuner.oracles.RandomSearchOracle):
    """KerasTuner's random search: the control."""


class BayesianOracle(Mended, keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Gaussian process."""


class HyperbandOracle(Mended, keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband, over random points."""

    @property
    def trial_count(self) -> int:
        """Trials of all rounds of all brackets."""
        return sum(
            self._get_size(bracket, number)
            for bracket in range(self._get_num_brackets())
            for number in range(self._get_num_rounds(bracket))
        )


class TPEOracle(Mended, TPE):
    """Optuna's TPE, for one objective or two."""


class Halving(keras_tuner.Oracle):
    """Successive halving: the best of each round are trained on, from where they stand.

    A promoted trial is a trial of its own, whose values name the one it goes on from. A trial is
    promoted as soon as so many of its round are known to be worse that it must be among the best.

    Args:
        configurations: trials of the first round.
        round_epochs: to how many epochs the trials of each round are trained, rising.
        reduction: a round has one trial for so many of the round before.
    """

    def __init__(
        self,
        *args: Any,
        configurations: int,
        round_epochs: tuple[int, ...],
        reduction: int = REDUCTION,
        **kwargs: Any,
    ) -> None:
        if list(round_epochs) != sorted(set(round_epochs)) or not round_epochs:
            raise ValueError(
                "Expected rising numbers of epochs, one a round. "
                f"Received: round_epochs={round_epochs!r}"
            )
        super().__init__(*args, max_trials=None, **kwargs)
        self._configurations = configurations
        self._round_epochs = round_epochs
        self._reduction = reduction

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """A promotion if there is one, else a new point."""
        rounds: list[list[Trial]] = [[] for _ in self._round_epochs]
        for trial in self.trials.values():
            rounds[_round(trial)].append(trial)
        for number in range(len(rounds) - 1, 0, -1):
            if (best := self._promoted(number, rounds)) is not None:
                return {"status": TrialStatus.RUNNING, "values": self._going_on(best, number)}
        if len(rounds[0]) >= self._configurations:
            return {"status": TrialStatus.STOPPED, "values": None}
        response = super().populate_space(trial_id)
        if response["status"] == TrialStatus.RUNNING:
            response["values"] |= {
                EPOCHS_VALUE: self._round_epochs[0],
                FIRST_EPOCH_VALUE: 0,
                ROUND_VALUE: 0,
            }
        return response

    def _promoted(self, number: int, rounds: list[list[Trial]]) -> Trial | None:
        """The trial of the round before that is sure to be among its best, if there is one."""
        taken = {trial.hyperparameters.values[TRIAL_VALUE] for trial in rounds[number]}
        size = self._size(number)
        if len(taken) >= size:
            return None
        left = [trial for trial in rounds[number - 1] if trial.trial_id not in taken]
        completed = [trial for trial in left if trial.status == TrialStatus.COMPLETED]
        failed = [trial for trial in left if trial.status == TrialStatus.FAILED]
        if not completed or (
            len(completed) + len(failed) <= self._size(number - 1) - size
            and self._more_to_come(number, rounds)
        ):
            return None
        return max(completed, key=self._goodness)

    @property
    def trial_count(self) -> int:
        """Trials of all rounds."""
        rounds = range(len(self._round_epochs))
        return sum(self._size(number) for number in rounds)

    def _size(self, number: int) -> int:
        return max(1, self._configurations // self._reduction**number)

    def _more_to_come(self, number: int, rounds: list[list[Trial]]) -> bool:
        """Whether the round before may still get results that are not there yet."""
        return (
            bool(self.ongoing_trials)
            or len(rounds[0]) < self._configurations
            or (number > 1 and self._promoted(number - 1, rounds) is not None)
        )

    def _going_on(self, trial: Trial, number: int) -> dict[str, Any]:
        return trial.hyperparameters.values | {
            TRIAL_VALUE: trial.trial_id,
            EPOCHS_VALUE: self._round_epochs[number],
            FIRST_EPOCH_VALUE: self._round_epochs[number - 1],
            ROUND_VALUE: number,
        }

    def _goodness(self, trial: Trial) -> float:
        return trial.score if self.objective.direction == "max" else -trial.score

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """The best, those trained further before the others; completed ones only."""
        completed = [t for t in self.trials.values() if t.status == TrialStatus.COMPLETED]
        completed.sort(key=lambda trial: (_round(trial), self._goodness(trial)), reverse=True)
        return completed[:num_trials]


def _round(trial: Trial) -> int:
    return int(trial.hyperparameters.values.get(ROUND_VALUE, 0))


class HalvingTPEOracle(Mended, Halving, TPE):
    """Successive halving over TPE's points."""


class HalvingRandomOracle(Mended, Halving, keras_tuner.oracles.RandomSearchOracle):
    """Successive halving over random points."""


def make_oracle(
    kind: Kind,
    *,
    objective: keras_tuner.Objective,
    max_trials: int,
    second: keras_tuner.Objective | None = None,
    round_epochs: tuple[int, ...] = (),
    **settings: Any,
) -> keras_tuner.Oracle:
    """The oracle of a kind.

    Args:
        kind: "tpe", "bayesian", "random" or "hyperband".
        objective: what is searched for.
        max_trials: trials in all; with `round_epochs` of the first round; not of "hyperband",
            which makes as many as its brackets have.
        second: another objective; TPE alone.
        round_epochs: for successive halving, the epochs of each round; for "hyperband" the one
            number that is the most a trial gets.
        settings: of `Mended` and of KerasTuner's `Oracle`, such as `hyperparameters` and `seed`.

    Raises:
        ValueError: an unknown kind, or one that cannot do what is asked.
    """
    if second is not None and kind != "tpe":
        raise ValueError(f"Expected kind 'tpe' for two objectives. Received: kind={kind!r}")
    common = {"objective": objective, **settings}
    if kind == "tpe" and round_epochs:
        return HalvingTPEOracle(
            configurations=max_trials, round_epochs=round_epochs, second=second, **common
        )
    if kind == "tpe":
        return TPEOracle(max_trials=max_trials, second=second, **common)
    if kind == "random" and round_epochs:
        return HalvingRandomOracle(configurations=max_trials, round_epochs=round_epochs, **common)
    if kind == "random":
        return RandomOracle(max_trials=max_trials, **common)
    if kind == "bayesian" and not round_epochs:
        return BayesianOracle(max_trials=max_trials, **GAUSSIAN_SETTINGS, **common)
    if kind == "hyperband" and len(round_epochs) == 1:
        return HyperbandOracle(max_epochs=round_epochs[0], factor=REDUCTION, **common)
    raise ValueError(
        "Expected kind 'tpe', 'random' or 'bayesian', with round_epochs 'tpe' or 'random', or "
        "'hyperband' with one number of round_epochs, its most epochs. "
        f"Received: kind={kind!r}, round_epochs={round_epochs!r}"
    )
