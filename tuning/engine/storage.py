"""The state of a search on the disk: written whole, and read back whatever was lost."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_inception.files import write_text
from tuning.engine.leases import LEASE_SECONDS, Leases
from tuning.engine.records import oracle_state, read_or_set_aside
from tuning.engine.stages import StagedOracle

ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
_UNREADABLE = (
    "trial.json could not be read, and is set aside as trial.unreadable: whether this trial was "
    "completed, and with what result, is not known"
)


class StoredOracle(StagedOracle):
    """An oracle that is saved after each change, and resumes from what it finds.

    A trial's own file says whether it has ended; oracle.json says who runs what.

    Args:
        lease_seconds: without a heartbeat, after which a trial is queued again.
        clock: seconds that rise, for the leases.
        settings: of `StagedOracle`.
    """

    def __init__(
        self,
        *,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.leases = Leases(lease_seconds, clock)
        # Trials that had ended when this process began: their failures do not end it again.
        self._resumed_after = 0

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
        self._resumed_after = len(self.end_order)

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
        ended = {key for key, trial in self.trials.items() if trial.status in ENDED}
        self.ongoing_trials = {
            tuner: trial
            for tuner, trial in self.ongoing_trials.items()
            if trial.trial_id not in ended
        }
        running = {trial.trial_id for trial in self.ongoing_trials.values()}
        self.retry_queue = sorted(set(self.trials) - ended - running, reverse=True)
        self.start_order += sorted(set(self.trials) - set(self.start_order))
        self.end_order += sorted(ended - set(self.end_order))
