"""KerasTuner's tuner loop, mended: whoever runs trials, alone, as chief or as a worker."""

from __future__ import annotations

import contextlib
import io
import os
import time
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src import config

from keras_inception.files import only_run_in
from tuning.engine.oracle import ERROR_VALUE
from tuning.engine.service import PATIENCE_SECONDS, PatientClient, serve

# The value of the space by which workers and chief know that they search the same.
SEARCH_VALUE = "tuner/search"


def is_chief() -> bool:
    """Whether this process serves the oracle."""
    return "chief" in os.environ.get("KERASTUNER_TUNER_ID", "") and _is_distributed()


def is_worker() -> bool:
    """Whether this process runs trials of a chief."""
    return _is_distributed() and not is_chief()


def _is_distributed() -> bool:
    return "KERASTUNER_ORACLE_IP" in os.environ


class SearchAbortedError(RuntimeError):
    """Too many trials in a row failed."""


class MendedTuner(BaseTuner):
    """Runs trials of a mended oracle; subclasses define `run_trial(trial)`.

    The original wipes a project when a worker joins late with `overwrite=True`; asks without a
    pause while it is told to wait; and keeps a state file a worker, written in place, by whose
    presence it decides whether to go on. Here nothing is ever overwritten, and a project goes on if
    its folder holds trials.

    Args:
        oracle: a mended one, its `hyperparameters` given.
        folder: of the project.
        search_id: the same in all processes of a search; None: not checked.
        patience: seconds that a worker waits for a chief that does not answer.
        trials_per_process: a worker ends after so many, to be started again: TensorFlow's memory
            grows by about 100 MB a trial. None: any number.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        folder: Path,
        *,
        search_id: str | None = None,
        patience: float = PATIENCE_SECONDS,
        trials_per_process: int | None = None,
    ) -> None:
        if search_id is not None:
            oracle.hyperparameters.Fixed(SEARCH_VALUE, search_id)
        oracle.verbose = 0
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it goes on
            super().__init__(oracle=oracle, directory=str(folder.parent), project_name=folder.name)
        self._beaten = time.monotonic()
        self._lease_seconds = oracle.lease_seconds
        self._trials_per_process = trials_per_process
        if is_worker():
            self.oracle = PatientClient(oracle, patience)
            if search_id is not None:
                self._require_same_search(search_id)

    def _require_same_search(self, search_id: str) -> None:
        theirs = self.oracle.get_space().values.get(SEARCH_VALUE)
        if theirs != search_id:
            raise ValueError(
                "Expected the chief's space, budget, data and recipe. Received: others "
                f"(search {search_id!r}, the chief's is {theirs!r}). Start this worker with the "
                "same command as the chief."
            )

    def search(self) -> bool:
        """Run the search, or this process's part of it.

        Returns:
            Whether the search is over; False: this worker is to be started again.

        Raises:
            SearchAbortedError: too many trials in a row failed.
            ValueError: another process searches in this folder, or the port is taken.
            OSError: the folder cannot be written.
        """
        if is_worker():
            return self._run_trials()
        with only_run_in(Path(self.project_dir)):
            self.oracle.save()
            if is_chief():
                serve(self.oracle)
            else:
                self._run_trials()
        if self.oracle.aborted is not None:
            raise SearchAbortedError(
                f"Stopped after {self.oracle.most_failures} failed trials in a row. The last "
                f"one: {self.oracle.aborted}"
            )
        return True

    def _run_trials(self) -> bool:
        count = 0
        while count != self._trials_per_process:
            trial = self.oracle.create_trial(self.tuner_id)
            if trial.status == TrialStatus.STOPPED:
                return True
            if trial.status == TrialStatus.IDLE:
                continue
            self.on_trial_begin(trial)
            self._try_run_and_update_trial(trial)
            self.on_trial_end(trial)
            count += 1
        return False

    def _try_run_and_update_trial(self, trial: Trial, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Without the traceback that KerasTuner 1.4.8 prints: the trial keeps the reason."""
        debug, config.DEBUG = config.DEBUG, False
        try:
            super()._try_run_and_update_trial(trial, *fit_args, **fit_kwargs)
        finally:
            config.DEBUG = debug

    def on_trial_end(self, trial: Trial) -> None:
        """Tell the oracle, with the message of a failure among the values."""
        if trial.message:
            trial.hyperparameters.values[ERROR_VALUE] = trial.message
        self.oracle.end_trial(trial)

    def beat(self, trial: Trial) -> None:
        """Renew the lease of a trial; to be called after every step, it does so seldom."""
        if time.monotonic() - self._beaten > self._lease_seconds / 6:
            self.oracle.get_trial(trial.trial_id)
            self._beaten = time.monotonic()

    def save(self) -> None:
        """The oracle's state; there is no other."""
        if not is_worker():
            self.oracle.save()

    def reload(self) -> None:
        """Take up the project, unless the chief does."""
        if not is_worker():
            self.oracle.reload()

    def _get_tuner_fname(self) -> str:
        """What must be there for a project to go on."""
        trials = sorted(Path(self.project_dir).glob("trial_*/trial.json"))
        return str(trials[0]) if trials else self.oracle._get_oracle_fname()

    def run_trial(self, trial: Trial, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """Evaluate the trial's hyperparameters."""
        raise NotImplementedError
