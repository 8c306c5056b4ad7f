"""Successive halving: the best third of each round are trained further, from where they stand.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization" (arXiv 1502.07943).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_tuner.engine.trial import Trial, TrialStatus

from tuning.engine.control import TrialControl

# A round keeps one trial in so many.
REDUCTION = 3


class Halving:
    """Says which trial is trained further, from the trials so far.

    A promoted trial is a trial of its own, whose control data name the one that it continues. A
    trial is promoted as soon as it is certain to be among the best of its round.

    Args:
        configurations: trials of the first round.
        round_epochs: to how many epochs the trials of each round are trained, rising.
        direction: of the objective, "max" or "min".
        reduction: a round has one trial for so many of the round before.
    """

    def __init__(
        self,
        *,
        configurations: int,
        round_epochs: tuple[int, ...],
        direction: str,
        reduction: int = REDUCTION,
    ) -> None:
        if list(round_epochs) != sorted(set(round_epochs)) or not round_epochs:
            raise ValueError(
                "Expected increasing numbers of epochs, one a round. "
                f"Received: round_epochs={round_epochs!r}"
            )
        self._round_epochs = round_epochs
        self._sizes = [
            max(1, configurations // reduction**number) for number in range(len(round_epochs))
        ]
        self._sign = 1 if direction == "max" else -1

    @property
    def trial_count(self) -> int:
        """Trials of all rounds."""
        return sum(self._sizes)

    @property
    def first_round(self) -> TrialControl:
        """How far a new point is trained."""
        return TrialControl(epochs=self._round_epochs[0], initial_epoch=0, round=0)

    def is_full(self, trials: Sequence[Trial]) -> bool:
        """Whether the first round has all of its trials."""
        return len(self._rounds(trials)[0]) >= self._sizes[0]

    def promotion(self, trials: Sequence[Trial], *, some_run: bool) -> dict[str, Any] | None:
        """The values of a trial that continues one of `trials`; None: no one is certain yet.

        Args:
            trials: all of the search.
            some_run: whether results of some are still to come.
        """
        rounds = self._rounds(trials)
        for number in range(len(rounds) - 1, 0, -1):
            if (best := self._promoted(number, rounds, some_run)) is not None:
                return best.hyperparameters.values | self._control(best, number).to_values()
        return None

    def _rounds(self, trials: Sequence[Trial]) -> list[list[Trial]]:
        rounds: list[list[Trial]] = [[] for _ in self._round_epochs]
        for trial in trials:
            rounds[_control_of(trial).round or 0].append(trial)
        return rounds

    def _promoted(self, number: int, rounds: list[list[Trial]], some_run: bool) -> Trial | None:
        """The trial of the round before that is certain to be among its best, if there is one."""
        taken = {_control_of(trial).parent for trial in rounds[number]}
        size, before = self._sizes[number], self._sizes[number - 1]
        if len(taken) >= size:
            return None
        left = [trial for trial in rounds[number - 1] if trial.trial_id not in taken]
        completed = [trial for trial in left if trial.status == TrialStatus.COMPLETED]
        known = len(completed) + sum(trial.status == TrialStatus.FAILED for trial in left)
        if not completed or (known <= before - size and self._may_grow(number, rounds, some_run)):
            return None
        return max(completed, key=lambda trial: self._sign * trial.score)

    def _may_grow(self, number: int, rounds: list[list[Trial]], some_run: bool) -> bool:
        """Whether the round before may still get results that are not known yet."""
        return (
            some_run
            or len(rounds[0]) < self._sizes[0]
            or (number > 1 and self._promoted(number - 1, rounds, some_run) is not None)
        )

    def _control(self, trial: Trial, number: int) -> TrialControl:
        return TrialControl(
            parent=trial.trial_id,
            epochs=self._round_epochs[number],
            initial_epoch=self._round_epochs[number - 1],
            round=number,
        )


def _control_of(trial: Trial) -> TrialControl:
    return TrialControl.of(trial.hyperparameters.values)
