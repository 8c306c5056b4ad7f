"""The last stage of a search: its best trials are trained fully, with several seeds.

A training of this stage is a trial of its own: it is lent, resumed and kept like all others. Its
control data name the trial whose network it trains, and the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuning.engine.control import TrialControl, point_of


@dataclass(frozen=True, kw_only=True)
class Finals:
    """What is trained in the last stage.

    Attributes:
        finalists: how many of the best networks.
        seeds: of the trainings of each.
        epochs: of each training.
    """

    finalists: int
    seeds: tuple[int, ...]
    epochs: int

    def trial_count(self, trials: int) -> int:
        """Trainings after a search of so many trials, if none fails."""
        return min(self.finalists, trials) * len(self.seeds)

    def trainings(self, trial_id: str, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The values of each training of a finalist."""
        for seed in self.seeds:
            control = TrialControl(finalist=trial_id, seed=seed, epochs=self.epochs)
            yield point_of(values) | control.to_values()


def is_final(values: Mapping[str, Any]) -> bool:
    """Whether a trial with these values is a training of the last stage."""
    return TrialControl.of(values).finalist is not None
