"""What a search trains next: new points, rounds of halving, and the finals; no network twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from keras_tuner.engine.trial import Trial, TrialStatus

from tuning.engine.control import TrialControl, point_of
from tuning.engine.finals import Finals, is_final
from tuning.engine.halving import Halving
from tuning.engine.keras_tuner_compat import OracleHooks
from tuning.engine.pruning import STOPPED_EPOCH
from tuning.engine.trial_files import TrialFiles

STOP: dict[str, Any] = {"status": TrialStatus.STOPPED, "values": None}


class StagedOracle(OracleHooks):
    """An oracle of a search in stages, whose new points a kind of search proposes.

    The neutral point is trial 0. The network of each trial is kept as it was when it was proposed,
    and no network is trained twice in the same way, though different points may give the same one.

    Args:
        network_of: the network of a point, as text; None: the point itself.
        halving: trains the best trials further; None: each trial is one training.
        finals: trains the best trials fully at the end; None: the search ends with its trials.
        settings: of `keras_tuner.Oracle`, or of the oracle of KerasTuner's that proposes.
    """

    def __init__(
        self,
        *,
        network_of: Callable[[dict[str, Any]], str] | None = None,
        halving: Halving | None = None,
        finals: Finals | None = None,
        **settings: Any,
    ) -> None:
        self._finals = finals
        self._max_search_trials = settings.get("max_trials")
        if finals is not None and "max_trials" in settings:
            settings["max_trials"] = None  # KerasTuner would count the last stage too
        super().__init__(**settings)
        self._network_of = network_of
        self._halving = halving
        # By trial, what must not come twice: the network, and the trial that it continues.
        self._keys: dict[str, str] = {}

    @property
    def files(self) -> TrialFiles:
        """The trials' files."""
        return TrialFiles(self.project_folder)

    @property
    def trial_count(self) -> int | None:
        """Trials of the whole search, those of later rounds and of the last stage too."""
        count = self._search_trial_count
        return self._finals.trial_count(count) + count if self._finals and count else count

    @property
    def _search_trial_count(self) -> int | None:
        return self._halving.trial_count if self._halving else self._max_search_trials

    def propose(self, trial_id: str) -> dict[str, Any]:
        """KerasTuner's answer with "status" and "values" for a new point; repeats are no matter."""
        raise NotImplementedError

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of the next trial, whose network is then on the disk."""
        response = self._next(trial_id)
        if response["status"] == TrialStatus.RUNNING and self.is_repeat(response["values"]):
            response = self._replaced(response["values"])
        if response["status"] == TrialStatus.RUNNING:
            self._keys[trial_id] = self._key(response["values"])
            if self._network_of is not None:
                self.files.write_network(trial_id, self._network_for(response["values"]))
        return response

    def random_values(self) -> dict[str, Any] | None:
        """The neutral point for the first trial, then random ones; None: no new one is found."""
        if not self.trials:
            return {item.name: item.default for item in self.hyperparameters.space}
        return super().random_values()

    def is_repeat(self, values: dict[str, Any]) -> bool:
        """Whether a trial stands for the same network, and continues the same trial."""
        return self._key(values) in self._keys.values()

    def network(self, trial_id: str) -> str | None:
        """The network that a trial stands for; None: the oracle has no `network_of`."""
        text = self.files.read_network(trial_id)
        if text is None and self._network_of is not None:  # a search of an older version
            text = self._network_of(point_of(self.trials[trial_id].hyperparameters.values))
        return text

    def _next(self, trial_id: str) -> dict[str, Any]:
        response = self._next_of_search(trial_id)
        if response["status"] == TrialStatus.STOPPED and self._finals is not None:
            return self._next_final(self._finals)
        return response

    def _next_final(self, finals: Finals) -> dict[str, Any]:
        """A training of the last stage, once all trials of the search have ended."""
        if any(not is_final(t.hyperparameters.values) for t in self.ongoing_trials.values()):
            return STOP
        for trial in self._finalists(finals.finalists):
            for values in finals.trainings(trial.trial_id, trial.hyperparameters.values):
                if not self.is_repeat(values):
                    return {"status": TrialStatus.RUNNING, "values": values}
        return STOP

    def _finalists(self, count: int) -> list[Trial]:
        """The best trials, each of another network."""
        by_network: dict[str, Trial] = {}
        for trial in self.get_best_trials(len(self.trials)):
            if trial.metrics.exists(STOPPED_EPOCH):
                continue
            by_network.setdefault(self._network_for(trial.hyperparameters.values, trial), trial)
        return list(by_network.values())[:count]

    def _search_trials(self) -> list[Trial]:
        """All trials but those of the last stage."""
        return [t for t in self.trials.values() if not is_final(t.hyperparameters.values)]

    def _next_of_search(self, trial_id: str) -> dict[str, Any]:
        if self._halving is None:
            most = self._max_search_trials
            if most is not None and len(self._search_trials()) >= most:
                return STOP
            return self.propose(trial_id)
        trials = self._search_trials()
        promoted = self._halving.promotion(trials, some_run=bool(self.ongoing_trials))
        if promoted is not None:
            return {"status": TrialStatus.RUNNING, "values": promoted}
        if self._halving.is_full(trials):
            return STOP
        response = self.propose(trial_id)
        if response["status"] == TrialStatus.RUNNING:
            response["values"] |= self._halving.first_round.to_values()
        return response

    def _replaced(self, values: dict[str, Any]) -> dict[str, Any]:
        """A random point in the place of a repeated one, trained as far."""
        other = self.random_values()
        if other is None:
            return STOP
        return {
            "status": TrialStatus.RUNNING,
            "values": other | TrialControl.of(values).to_values(),
        }

    def _key(self, values: dict[str, Any], network: str | None = None) -> str:
        control = TrialControl.of(values)
        return json.dumps([network or self._network_for(values), control.parent, control.seed])

    def _network_for(self, values: dict[str, Any], trial: Trial | None = None) -> str:
        """The network of a trial, or of a proposal: stored ones as they are; or else the point."""
        stored = trial.trial_id if trial is not None else TrialControl.of(values).finalist
        network = self.network(stored) if stored is not None else None
        if network is not None:
            return network
        point = point_of(values)
        return self._network_of(point) if self._network_of else json.dumps(point)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """The best completed trials of the search: of more epochs first, stopped ones last."""
        sign = 1 if self.objective.direction == "max" else -1

        def goodness(trial: Trial) -> tuple[bool, int, float]:
            epochs = TrialControl.of(trial.hyperparameters.values).epochs or 0
            return not trial.metrics.exists(STOPPED_EPOCH), epochs, sign * trial.score

        completed = [t for t in self._search_trials() if t.status == TrialStatus.COMPLETED]
        return sorted(completed, key=goodness, reverse=True)[:num_trials]
