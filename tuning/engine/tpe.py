"""Optuna's TPE behind a KerasTuner oracle: stateless, told everything anew at each question.

Source: Watanabe, "Tree-Structured Parzen Estimator" (arXiv 2304.11127); for two objectives Ozaki et
al., "Multiobjective tree-structured Parzen estimator" (JAIR 2022).
"""

from __future__ import annotations

from typing import Any

import keras_tuner
import optuna
from keras_tuner.engine import hyperparameters as kinds
from keras_tuner.engine.trial import Trial, TrialStatus

from tuning.engine.oracle import ROUND_VALUE

STARTUP_TRIALS = 10


class TPE(keras_tuner.Oracle):
    """Proposes by Optuna's tree-structured Parzen estimator.

    Args:
        second: another objective, a metric of the trials; None: one objective.
        startup_trials: random ones before the first proposal.
    """

    def __init__(
        self,
        *args: Any,
        second: keras_tuner.Objective | None = None,
        startup_trials: int = STARTUP_TRIALS,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._second = second
        self._startup_trials = startup_trials

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Random values at first, then what the estimator makes of all that is known."""
        if len(self.trials) < self._startup_trials:
            values = self._random_values()
        else:
            values = self._suggested()
        status = TrialStatus.STOPPED if values is None else TrialStatus.RUNNING
        return {"status": status, "values": values}

    def _suggested(self) -> dict[str, Any]:
        distributions = {
            item.name: _distribution(item)
            for item in self.hyperparameters.space
            if not isinstance(item, kinds.Fixed)
        }
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=0,
            multivariate=True,
            constant_liar=True,  # what runs counts as bad: no two workers get the same
            seed=self.seed + len(self.trials),
        )
        objectives = [self.objective, *([self._second] if self._second else [])]
        directions: list[Any] = [
            "maximize" if item.direction == "max" else "minimize" for item in objectives
        ]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=sampler, directions=directions)
        for trial in self.trials.values():
            if (known := self._known(trial, distributions, objectives)) is not None:
                study.add_trial(known)
        fixed = {
            item.name: item.value
            for item in self.hyperparameters.space
            if isinstance(item, kinds.Fixed)
        }
        return {**fixed, **study.ask(distributions).params}

    def _known(
        self, trial: Trial, distributions: dict[str, Any], objectives: list[keras_tuner.Objective]
    ) -> optuna.trial.FrozenTrial | None:
        """A trial as Optuna knows it; None: failed, or trained further than the first round."""
        values = trial.hyperparameters.values
        if trial.status not in (TrialStatus.COMPLETED, TrialStatus.RUNNING):
            return None
        if values.get(ROUND_VALUE, 0) or not set(distributions) <= set(values):
            return None
        complete = trial.status == TrialStatus.COMPLETED
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.RUNNING,
            params={name: values[name] for name in distributions},
            distributions=distributions,
            values=[trial.metrics.get_best_value(item.name) for item in objectives]
            if complete
            else None,
        )


def _distribution(item: Any) -> optuna.distributions.BaseDistribution:
    if isinstance(item, kinds.Choice):
        return optuna.distributions.CategoricalDistribution(item.values)
    if isinstance(item, kinds.Int):
        return optuna.distributions.IntDistribution(item.min_value, item.max_value)
    if isinstance(item, kinds.Float):
        return optuna.distributions.FloatDistribution(
            item.min_value, item.max_value, step=item.step, log=item.sampling == "log"
        )
    raise ValueError(f"Expected hyperparameters of kind Choice, Int or Float. Received: {item!r}")
