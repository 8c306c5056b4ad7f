"""The oracle of a search: it proposes trials, lends them to workers, and keeps them in files.

`oracles` has one class for each kind of search, which adds the proposals. docs/tuning.md has the
table of faults that this class survives and KerasTuner's own does not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_inception.files import write_text
from tuning.engine.control import TrialControl, point_of
from tuning.engine.halving import Halving
from tuning.engine.keras_tuner_compat import OracleHooks, synchronized
from tuning.engine.leases import LEASE_SECONDS, Leases
from tuning.engine.trial_files import TrialFiles, read_json
from tuning.space import Value

# Processes that may end while they run a trial before the trial has failed.
MAX_LOSSES = 3
MAX_CONSECUTIVE_FAILURES = 8
STOP: dict[str, Any] = {"status": TrialStatus.STOPPED, "values": None}
_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class SearchOracle(OracleHooks):
    """An oracle whose search survives its processes; a kind of search defines `propose`.

    Against KerasTuner's `Oracle`:

    - The neutral point is trial 0, and no network is trained twice, though different points may
      give the same network. The network of each trial is kept as it was when it was proposed.
    - A trial is lent to a worker, which renews the lease by `get_trial`. It is queued again when
      the lease expires or the worker asks for another; the first result counts. Workers get IDLE,
      not STOPPED, while trials may come back.
    - Failures in a row end the search instead of raising, and the reasons are kept.
    - Files are written whole, and a reload copes with those that are not.

    Args:
        network_of: the network of a point, as text; None: the point itself.
        halving: trains the best trials further; None: each trial is one training.
        lease_seconds: without a heartbeat, after which a trial is queued again.
        clock: seconds that rise, for the leases.
        max_consecutive_failed_trials: so many end the search.
        settings: of `keras_tuner.Oracle`, or of the oracle of KerasTuner's that proposes.
    """

    def __init__(
        self,
        *,
        network_of: Callable[[dict[str, Value]], str] | None = None,
        halving: Halving | None = None,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        max_consecutive_failed_trials: int = MAX_CONSECUTIVE_FAILURES,
        **settings: Any,
    ) -> None:
        super().__init__(max_consecutive_failed_trials=max_consecutive_failed_trials, **settings)
        self.leases = Leases(lease_seconds, clock)
        self._network_of = network_of
        self._halving = halving
        # By trial, what must not come twice: the network, and the trial that it continues.
        self._keys: dict[str, str] = {}
        self._resumed_after = 0

    @property
    def files(self) -> TrialFiles:
        """The trials' files."""
        return TrialFiles(self.project_folder)

    @property
    def trial_count(self) -> int | None:
        """Trials of the whole search, those of later rounds too."""
        return self._halving.trial_count if self._halving else self.max_trials

    # Proposals

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
                network = self._network_of(point_of(response["values"]))
                self.files.write_network(trial_id, network)
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
        if self._halving is None:
            return self.propose(trial_id)
        trials = list(self.trials.values())
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
        if network is None:
            point = point_of(values)
            network = self._network_of(point) if self._network_of else json.dumps(point)
        return json.dumps([network, TrialControl.of(values).parent])

    # Trials

    @synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """Lend a trial to a worker; IDLE: ask again later; STOPPED: the search has finished."""
        self._expire_leases()
        if self.aborted is not None:
            self.tuner_ids.discard(tuner_id)
            return Trial(keras_tuner.HyperParameters(), status=TrialStatus.STOPPED)
        if tuner_id in self.ongoing_trials:  # its process ended in the middle, and is back
            self._take_back(tuner_id)
        trial = super().create_trial(tuner_id)
        self.leases.renew(tuner_id)
        if trial.status == TrialStatus.STOPPED and (self.ongoing_trials or self.retry_queue):
            self.tuner_ids.add(tuner_id)
            trial.status = TrialStatus.IDLE
        return trial

    @synchronized
    def get_trial(self, trial_id: str) -> Trial:
        """The trial; a worker's request is its heartbeat."""
        for tuner_id, trial in self.ongoing_trials.items():
            if trial.trial_id == trial_id:
                self.leases.renew(tuner_id)
        return super().get_trial(trial_id)

    @synchronized
    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Take results, unless another worker has ended the trial."""
        trial = self.trials[trial_id]
        if trial_id in self.end_order:
            return trial
        trial.metrics = type(trial.metrics)()  # KerasTuner averages with an interrupted run's
        return super().update_trial(trial_id, metrics, step)

    @synchronized
    def end_trial(self, trial: Trial) -> None:
        """End a trial, once."""
        trial.message = TrialControl.of(trial.hyperparameters.values).error or trial.message
        # A worker's copy of the values also holds what was sent along.
        trial.hyperparameters = self.trials[trial.trial_id].hyperparameters
        if trial.trial_id not in self.end_order:
            if trial.trial_id in self.retry_queue:
                self.retry_queue.remove(trial.trial_id)
            super().end_trial(trial)
        self.ongoing_trials = {
            tuner_id: ongoing
            for tuner_id, ongoing in self.ongoing_trials.items()
            if ongoing.trial_id != trial.trial_id
        }
        self.save()

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """The best completed trials; those trained for more epochs before the others."""
        sign = 1 if self.objective.direction == "max" else -1

        def goodness(trial: Trial) -> tuple[int, float]:
            return TrialControl.of(trial.hyperparameters.values).epochs or 0, sign * trial.score

        completed = [t for t in self.trials.values() if t.status == TrialStatus.COMPLETED]
        return sorted(completed, key=goodness, reverse=True)[:num_trials]

    # Leases and failures

    @property
    def aborted(self) -> str | None:
        """The last reason, if all of the last trials since the resume failed; None: go on."""
        count = self.max_consecutive_failed_trials
        last = [self.trials[key] for key in self.end_order[self._resumed_after :][-count:]]
        if len(last) < count or any(trial.status != TrialStatus.FAILED for trial in last):
            return None
        return str(last[-1].message)

    @synchronized
    def is_finished(self) -> bool:
        """Whether no trial runs or will run, and every worker knows it or has gone."""
        self._expire_leases()
        waiting = self.retry_queue if self.aborted is None else []
        return not (self.ongoing_trials or waiting or self.tuner_ids)

    def _expire_leases(self) -> None:
        for tuner_id in self.leases.take_expired():
            self.tuner_ids.discard(tuner_id)
            if tuner_id in self.ongoing_trials:
                self._take_back(tuner_id)

    def _take_back(self, tuner_id: str) -> None:
        """Queue a lost trial again, or end it as failed: it may take its processes with it."""
        trial = self.ongoing_trials.pop(tuner_id)
        self.leases.losses[trial.trial_id] += 1
        losses = self.leases.losses[trial.trial_id]
        if losses < MAX_LOSSES:
            self.retry_queue.append(trial.trial_id)
        else:
            trial.status = TrialStatus.FAILED
            trial.message = (
                f"{losses} processes ended while they ran this trial: killed, or out of memory"
            )
            self.end_order.append(trial.trial_id)
        self.save_trial(trial)
        self.save()

    # Files

    def save(self) -> None:
        """Write oracle.json."""
        write_text(self.state_file, json.dumps(self.get_state()))

    def save_trial(self, trial: Trial) -> None:
        """Write trial.json."""
        self.files.write_trial(trial.trial_id, trial.get_state())

    def get_state(self) -> dict[str, Any]:
        """What oracle.json holds: KerasTuner's state, and the losses."""
        return {**super().get_state(), "losses": dict(self.leases.losses)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Set what `get_state` returned; the space stays that of this process's plan."""
        space = self.hyperparameters
        super().set_state(state)
        self.hyperparameters = space
        self.leases.losses.update(state.get("losses", {}))

    def reload(self) -> None:
        """Resume from the folder; workers that outlived the chief keep their trials."""
        for trial_id, state in self.files.read_trials():
            self.trials[trial_id] = self._loaded(trial_id, state)
        if (state := read_json(self.state_file)) is not None:
            self.set_state(state)
        self._reconcile()
        self.leases.restart(self.ongoing_trials)
        self._resumed_after = len(self.end_order)  # earlier failures do not end it again

    def _loaded(self, trial_id: str, state: dict[str, Any] | None) -> Trial:
        if state is not None:
            trial = Trial.from_state(state)
        else:
            trial = Trial(keras_tuner.HyperParameters(), trial_id, TrialStatus.FAILED)
            trial.message = "trial.json could not be read"
            self.save_trial(trial)
        network = self.files.read_network(trial_id)
        if network or trial.hyperparameters.values:
            self._keys[trial_id] = self._key(trial.hyperparameters.values, network)
        return trial

    def _reconcile(self) -> None:
        """The trials' own files say what has ended; what neither ended nor runs is queued."""
        ended = {key for key, trial in self.trials.items() if trial.status in _ENDED}
        self.ongoing_trials = {
            tuner: trial
            for tuner, trial in self.ongoing_trials.items()
            if trial.trial_id not in ended
        }
        running = {trial.trial_id for trial in self.ongoing_trials.values()}
        self.retry_queue = sorted(set(self.trials) - ended - running, reverse=True)
        self.start_order += sorted(set(self.trials) - set(self.start_order))
        self.end_order += sorted(ended - set(self.end_order))
