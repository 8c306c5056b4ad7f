"""The oracle of a search: it proposes trials, lends them to workers, and keeps them in files.

`oracles` has one class for each kind of search, which adds the proposals. docs/tuning.md has the
table of faults that this class survives and KerasTuner's own does not.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_inception.files import write_text
from tuning.engine.control import TrialControl, point_of
from tuning.engine.finals import Finals, is_final
from tuning.engine.halving import Halving
from tuning.engine.keras_tuner_compat import OracleHooks, synchronized
from tuning.engine.leases import LEASE_SECONDS, Cause, Leases, ProcessReport
from tuning.engine.pruning import STOPPED_EPOCH
from tuning.engine.records import oracle_state, read_or_set_aside
from tuning.engine.results import Bounds, check_point, check_results, check_space
from tuning.engine.trial_files import TrialFiles

MAX_CONSECUTIVE_FAILURES = 8
STOP: dict[str, Any] = {"status": TrialStatus.STOPPED, "values": None}
_UNREADABLE = (
    "trial.json could not be read, and is set aside as trial.unreadable: whether this trial was "
    "completed, and with what result, is not known"
)
_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
# What a worker may report; KerasTuner turns INVALID into FAILED.
_ENDINGS = (*_ENDED, TrialStatus.INVALID)


class UnknownTrialError(LookupError):
    """A call names a trial that the search does not have."""


class SearchOracle(OracleHooks):
    """An oracle whose search survives its processes; a kind of search defines `propose`.

    Against KerasTuner's `Oracle`:

    - The neutral point is trial 0, and no network is trained twice, though different points may
      give the same network. The network of each trial is kept as it was when it was proposed.
    - A trial is lent to a worker's process, which renews the lease by `get_trial`. It is queued
      again when the lease expires or another process of the worker asks for a trial; the first
      result counts. Only processes that died by themselves count against a trial. Workers get
      IDLE, not STOPPED, while trials may come back.
    - Results that cannot be, and trials that do not exist, are refused.
    - Failures in a row end the search instead of raising, and the reasons are kept.
    - Files are written whole, and a reload copes with those that are not.

    Args:
        network_of: the network of a point, as text; None: the point itself.
        halving: trains the best trials further; None: each trial is one training.
        finals: trains the best trials fully at the end; None: the search ends with its trials.
        lease_seconds: without a heartbeat, after which a trial is queued again.
        clock: seconds that rise, for the leases.
        max_consecutive_failed_trials: so many end the search.
        bounds: by metric that every result must have, its smallest and largest value; default the
            objective, without bounds. Every number must be finite.
        settings: of `keras_tuner.Oracle`, or of the oracle of KerasTuner's that proposes.
    """

    def __init__(
        self,
        *,
        network_of: Callable[[dict[str, Any]], str] | None = None,
        halving: Halving | None = None,
        finals: Finals | None = None,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        max_consecutive_failed_trials: int = MAX_CONSECUTIVE_FAILURES,
        bounds: Mapping[str, Bounds] | None = None,
        **settings: Any,
    ) -> None:
        self._finals = finals
        self._max_search_trials = settings.get("max_trials")
        if finals is not None and "max_trials" in settings:
            settings["max_trials"] = None  # KerasTuner would count the last stage too
        super().__init__(max_consecutive_failed_trials=max_consecutive_failed_trials, **settings)
        self.leases = Leases(lease_seconds, clock)
        self._bounds = bounds or {self.objective.name: (-math.inf, math.inf)}
        self._network_of = network_of
        self._halving = halving
        # By trial, what must not come twice: the network, and the trial that it continues.
        self._keys: dict[str, str] = {}
        self._resumed_after = 0
        self._process = ProcessReport().process

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

    # Trials

    def create_trial(self, tuner_id: str) -> Trial:
        """Lend a trial to this process; why the one before it ended is not known."""
        before = self.leases.processes.get(tuner_id, "")
        report = ProcessReport(process=self._process, predecessor=before, cause=Cause.UNKNOWN)
        return self.lend(tuner_id, report)

    @synchronized
    def lend(self, tuner_id: str, report: ProcessReport) -> Trial:
        """Lend a trial to a worker; IDLE: ask again later; STOPPED: the search has finished.

        Args:
            tuner_id: the worker.
            report: on its process. The process that has a trial gets it again: it has not received
                the answer to its first request.
        """
        self._expire_leases()
        if self.aborted is not None:
            self.tuner_ids.discard(tuner_id)
            return Trial(keras_tuner.HyperParameters(), status=TrialStatus.STOPPED)
        holder = self.leases.processes.get(tuner_id)
        if tuner_id in self.ongoing_trials and holder != report.process:
            self._take_back(tuner_id, report.cause_of(holder or ""))
        self.leases.processes[tuner_id] = report.process
        trial = super().create_trial(tuner_id)
        self.leases.renew(tuner_id)
        if trial.status == TrialStatus.STOPPED and (self.ongoing_trials or self.retry_queue):
            self.tuner_ids.add(tuner_id)
            trial.status = TrialStatus.IDLE
        return trial

    @synchronized
    def give_back(self, tuner_id: str) -> None:
        """Queue the trial of a worker again, which stops for a reason that is not the trial's."""
        if tuner_id in self.ongoing_trials:
            self._take_back(tuner_id, Cause.OUTSIDE)

    @synchronized
    def get_trial(self, trial_id: str) -> Trial:
        """The trial; a worker's request is its heartbeat."""
        self._require_trial(trial_id)
        for tuner_id, trial in self.ongoing_trials.items():
            if trial.trial_id == trial_id:
                self.leases.renew(tuner_id)
        return super().get_trial(trial_id)

    @synchronized
    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Take results, unless another worker has ended the trial.

        Raises:
            ValueError: results that cannot be.
        """
        trial = self._require_trial(trial_id)
        check_results(metrics, self._bounds)
        if trial_id in self.end_order:
            return trial
        trial.metrics = type(trial.metrics)()  # KerasTuner averages with an interrupted run's
        return super().update_trial(trial_id, metrics, step)

    @synchronized
    def end_trial(self, trial: Trial) -> None:
        """End a trial, once.

        Raises:
            ValueError: it cannot have ended so.
        """
        known = self._require_trial(trial.trial_id)
        check_point(trial.hyperparameters.values, known.hyperparameters.values)
        if trial.status not in _ENDINGS:
            raise ValueError(f"Expected a status among {_ENDINGS}. Received: {trial.status!r}")
        has_results = known.metrics.exists(self.objective.name)
        if trial.status == TrialStatus.COMPLETED and not has_results:
            raise ValueError(f"Expected results of trial {trial.trial_id} before its end.")
        trial.message = TrialControl.of(trial.hyperparameters.values).error or trial.message
        # A worker's copy of the values also holds what was sent along.
        trial.hyperparameters = known.hyperparameters
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

    def update_space(self, hyperparameters: keras_tuner.HyperParameters) -> None:
        """Refuse hyperparameters that the space does not have.

        Raises:
            ValueError: there are some.
        """
        check_space(hyperparameters, self.hyperparameters)

    def _require_trial(self, trial_id: str) -> Trial:
        if trial_id not in self.trials:
            raise UnknownTrialError(f"this search has no trial {trial_id[:40]!r}")
        return self.trials[trial_id]

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """The best completed trials of the search: of more epochs first, stopped ones last."""
        sign = 1 if self.objective.direction == "max" else -1

        def goodness(trial: Trial) -> tuple[bool, int, float]:
            epochs = TrialControl.of(trial.hyperparameters.values).epochs or 0
            return not trial.metrics.exists(STOPPED_EPOCH), epochs, sign * trial.score

        completed = [t for t in self._search_trials() if t.status == TrialStatus.COMPLETED]
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
                self._take_back(tuner_id, Cause.UNKNOWN)

    def _take_back(self, tuner_id: str, cause: Cause) -> None:
        """Queue a lost trial again, or end it as failed: it may take its processes with it."""
        trial = self.ongoing_trials.pop(tuner_id)
        failure = self.leases.count_loss(trial.trial_id, cause)
        if failure is None:
            self.retry_queue.append(trial.trial_id)
        else:
            trial.status = TrialStatus.FAILED
            trial.message = failure
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
        """What oracle.json holds: KerasTuner's state, and the leases'."""
        return {**super().get_state(), **self.leases.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Set what `get_state` returned; the space stays that of this process's plan."""
        space = self.hyperparameters
        super().set_state(state)
        self.hyperparameters = space
        self.leases.set_state(state)

    def reload(self) -> None:
        """Resume from the folder; workers that outlived the chief keep their trials."""
        for trial_id, state in self.files.read_trials():
            self.trials[trial_id] = self._loaded(trial_id, state)
        state = read_or_set_aside(Path(self.state_file), oracle_state)
        if state is not None:
            self._restore(state)
        self._reconcile()
        self.leases.restart(self.ongoing_trials)
        self._resumed_after = len(self.end_order)  # earlier failures do not end it again

    def _restore(self, state: dict[str, Any]) -> None:
        """Set a state; nothing of one that KerasTuner refuses: the trials' files say more."""
        space = self.hyperparameters
        for key in ("start_order", "end_order", "retry_queue"):
            state[key] = [trial_id for trial_id in state[key] if trial_id in self.trials]
        hashes, tried = state["id_to_hash"], state["tried_so_far"]
        state["id_to_hash"] = {key: value for key, value in hashes.items() if value in tried}
        ongoing = state["ongoing_trials"]
        state["ongoing_trials"] = {t: key for t, key in ongoing.items() if key in self.trials}
        try:
            self.set_state(state)
        except Exception as error:  # KerasTuner's, for parts of another shape
            warnings.warn(f"{self.state_file} is not used ({error!r}).", stacklevel=2)
            self.hyperparameters = space
            self.ongoing_trials = {}

    def _loaded(self, trial_id: str, state: dict[str, Any] | None) -> Trial:
        trial = None
        try:
            trial = None if state is None else Trial.from_state(state)
        except Exception as error:  # KerasTuner's, for hyperparameters of another shape
            self.files.set_aside(trial_id, error)
        if trial is None:
            trial = Trial(keras_tuner.HyperParameters(), trial_id, TrialStatus.FAILED)
            trial.message = _UNREADABLE
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
