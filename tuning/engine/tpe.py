"""Optuna's TPE as a kind of search. Stateless: each proposal is made from all trials so far.

Source: Watanabe, "Tree-Structured Parzen Estimator" (arXiv 2304.11127); for two objectives Ozaki et
al., "Multiobjective tree-structured Parzen estimator" (JAIR 2022).
"""

from __future__ import annotations

from typing import Any

import keras_tuner
import optuna
from keras_tuner.engine import hyperparameters as kinds
from keras_tuner.engine.trial import Trial, TrialStatus

from tuning.engine.control import TrialControl
from tuning.engine.finals import is_final
from tuning.engine.oracle import SearchOracle
from tuning.engine.pruning import STOPPED_EPOCH
from tuning.engine.stages import STOP

STARTUP_TRIALS = 10


class TPEOracle(SearchOracle):
    """Optuna's tree-structured Parzen estimator, for one objective or two.

    Args:
        second_objective: a metric of the trials beside the objective; None: one objective.
        startup_trials: random ones before the first that the estimator proposes.
        settings: of `SearchOracle`.
    """

    def __init__(
        self,
        *,
        second_objective: keras_tuner.Objective | None = None,
        startup_trials: int = STARTUP_TRIALS,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._second_objective = second_objective
        self._startup_trials = startup_trials

    def propose(self, trial_id: str) -> dict[str, Any]:
        """Random values at first, then those of the estimator."""
        if len(self.trials) >= self._startup_trials:
            return {"status": TrialStatus.RUNNING, "values": self._suggestion()}
        values = self.random_values()
        return STOP if values is None else {"status": TrialStatus.RUNNING, "values": values}

    def _suggestion(self) -> dict[str, Any]:
        space = self.hyperparameters.space
        fixed = {item.name: item.value for item in space if isinstance(item, kinds.Fixed)}
        distributions = {item.name: _distribution(item) for item in space if item.name not in fixed}
        study = self._study()
        for trial in self.trials.values():
            if (known := self._known(trial, distributions)) is not None:
                study.add_trial(known)
        return {**fixed, **study.ask(distributions).params}

    @property
    def _objectives(self) -> list[keras_tuner.Objective]:
        return [self.objective, *([self._second_objective] if self._second_objective else [])]

    def _study(self) -> optuna.Study:
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=0,
            multivariate=True,
            constant_liar=True,  # running trials count as bad: no two workers get the same point
            seed=self.seed + len(self.trials),
        )
        directions: list[Any] = [
            "maximize" if item.direction == "max" else "minimize" for item in self._objectives
        ]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(sampler=sampler, directions=directions)

    def _known(
        self, trial: Trial, distributions: dict[str, Any]
    ) -> optuna.trial.FrozenTrial | None:
        """A trial as Optuna knows it; None: failed, or not of the first round."""
        values = trial.hyperparameters.values
        if trial.status not in (TrialStatus.COMPLETED, TrialStatus.RUNNING):
            return None
        if (
            TrialControl.of(values).round
            or is_final(values)
            or not set(distributions) <= set(values)
        ):
            return None
        known: dict[str, Any] = {
            "params": {name: values[name] for name in distributions},
            "distributions": distributions,
        }
        states = optuna.trial.TrialState
        if trial.status == TrialStatus.RUNNING:
            return optuna.trial.create_trial(state=states.RUNNING, **known)
        scores = [trial.metrics.get_best_value(item.name) for item in self._objectives]
        if trial.metrics.exists(STOPPED_EPOCH):
            epoch = int(trial.metrics.get_best_value(STOPPED_EPOCH))
            reached = {epoch: scores[0]}
            return optuna.trial.create_trial(
                state=states.PRUNED, intermediate_values=reached, **known
            )
        return optuna.trial.create_trial(state=states.COMPLETE, values=scores, **known)


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
