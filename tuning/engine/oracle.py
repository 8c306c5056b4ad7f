"""The oracle of a search, which lends its trials to workers and takes their results.

`stages` decides what is trained next, `storage` keeps it in files, `oracles` has one class for each
kind of search, which proposes the points. docs/tuning.md has the table of faults that this class
survives and KerasTuner's own does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from tuning.engine.control import TrialControl
from tuning.engine.keras_tuner_compat import synchronized
from tuning.engine.leases import Cause, ProcessReport
from tuning.engine.results import Bounds, check_point, check_results, check_space
from tuning.engine.storage import ENDED, StoredOracle

MAX_CONSECUTIVE_FAILURES = 8
# What a worker may report; KerasTuner turns INVALID into FAILED.
_ENDINGS = (*ENDED, TrialStatus.INVALID)


class UnknownTrialError(LookupError):
    """A call names a trial that the search does not have."""


class SearchOracle(StoredOracle):
    """An oracle whose search survives its processes; a kind of search defines `propose`.

    Against KerasTuner's `Oracle`:

    - A trial is lent to a worker's process, which renews the lease by `get_trial`. It is queued
      again when the lease expires or another process of the worker asks for a trial; the first
      result counts. Only processes that died by themselves count against a trial. Workers get
      IDLE, not STOPPED, while trials may come back.
    - Results that cannot be, and trials that do not exist, are refused.
    - Failures in a row end the search instead of raising, and the reasons are kept.

    Args:
        max_consecutive_failed_trials: so many end the search.
        bounds: by metric that every result must have, its smallest and largest value; default the
            objective, without bounds. Every number must be finite.
        settings: of `StoredOracle`.
    """

    def __init__(
        self,
        *,
        max_consecutive_failed_trials: int = MAX_CONSECUTIVE_FAILURES,
        bounds: Mapping[str, Bounds] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(max_consecutive_failed_trials=max_consecutive_failed_trials, **settings)
        self._bounds = bounds or {self.objective.name: (-math.inf, math.inf)}
        self._process = ProcessReport().process

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
    def lose(self, tuner_id: str) -> None:
        """Queue the trial of a worker that has vanished again, or end it after many of them."""
        if tuner_id in self.ongoing_trials:
            self._take_back(tuner_id, Cause.UNKNOWN)

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
