"""The kinds of search: where the next point comes from."""

from __future__ import annotations

from typing import Any, Literal

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from tuning.engine.halving import REDUCTION, Halving
from tuning.engine.keras_tuner_compat import hyperband_trial_count
from tuning.engine.oracle import SearchOracle
from tuning.engine.stages import STOP
from tuning.engine.tpe import TPEOracle

Kind = Literal["tpe", "bayesian", "random", "hyperband"]

# Fewer random trials at first than KerasTuner's 3 for each dimension, more noise, less exploration.
GAUSSIAN_SETTINGS: dict[str, Any] = {"num_initial_points": 15, "alpha": 0.05, "beta": 1.0}


class RandomOracle(SearchOracle):
    """Random search: the control."""

    def propose(self, trial_id: str) -> dict[str, Any]:
        """Random values."""
        values = self.random_values()
        return STOP if values is None else {"status": TrialStatus.RUNNING, "values": values}


class BayesianOracle(SearchOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Gaussian process."""

    def propose(self, trial_id: str) -> dict[str, Any]:
        """KerasTuner's proposal."""
        return keras_tuner.oracles.BayesianOptimizationOracle.populate_space(self, trial_id)


class HyperbandOracle(SearchOracle, keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband, over random points."""

    def propose(self, trial_id: str) -> dict[str, Any]:
        """KerasTuner's proposal: a random point, or a trial to continue."""
        return keras_tuner.oracles.HyperbandOracle.populate_space(self, trial_id)

    @property
    def _search_trial_count(self) -> int:
        """Trials of all rounds of all brackets."""
        return hyperband_trial_count(self)


def make_oracle(
    kind: Kind,
    *,
    objective: keras_tuner.Objective,
    max_trials: int,
    second_objective: keras_tuner.Objective | None = None,
    halving_epochs: tuple[int, ...] = (),
    **settings: Any,
) -> SearchOracle:
    """The oracle of a kind.

    Args:
        kind: "tpe", "bayesian", "random" or "hyperband".
        objective: what is searched for.
        max_trials: trials in all; with `halving_epochs` of the first round; ignored by
            "hyperband", whose brackets have their own numbers of trials.
        second_objective: another metric; "tpe" alone.
        halving_epochs: for successive halving, the epochs at the end of each round; for
            "hyperband" one number, the most epochs of a trial.
        settings: of `SearchOracle` and of KerasTuner's `Oracle`, such as `hyperparameters` and
            `seed`.

    Raises:
        ValueError: an unknown kind, or one that cannot do what is asked.
    """
    if second_objective is not None and kind != "tpe":
        raise ValueError(f"Expected kind 'tpe' for two objectives. Received: kind={kind!r}")
    settings |= {"objective": objective}
    if kind == "hyperband" and len(halving_epochs) == 1:
        return HyperbandOracle(max_epochs=halving_epochs[0], factor=REDUCTION, **settings)
    if kind == "bayesian" and not halving_epochs:
        return BayesianOracle(max_trials=max_trials, **GAUSSIAN_SETTINGS, **settings)
    if kind not in ("tpe", "random"):
        raise ValueError(
            "Expected kind 'tpe', 'random' or 'bayesian', with halving_epochs 'tpe' or 'random', "
            "or 'hyperband' with one number of halving_epochs, its most epochs. "
            f"Received: kind={kind!r}, halving_epochs={halving_epochs!r}"
        )
    settings |= _budget(max_trials, halving_epochs, objective.direction)
    if kind == "tpe":
        return TPEOracle(second_objective=second_objective, **settings)
    return RandomOracle(**settings)


def _budget(max_trials: int, halving_epochs: tuple[int, ...], direction: str) -> dict[str, Any]:
    """How many trials, in one round or in several."""
    if not halving_epochs:
        return {"max_trials": max_trials}
    halving = Halving(configurations=max_trials, round_epochs=halving_epochs, direction=direction)
    return {"max_trials": None, "halving": halving}
