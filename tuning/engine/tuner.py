"""The loop that runs trials: alone, as chief or as a worker."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_tuner.engine.trial import Trial, TrialStatus

from keras_inception.locks import only_run_in
from tuning.engine.control import SEARCH_KEY, TrialControl
from tuning.engine.database import Storage, StorageClient, is_storage, serve_storage
from tuning.engine.keras_tuner_compat import TunerHooks
from tuning.engine.oracle import SearchOracle
from tuning.engine.service import RETRY_SECONDS, RetryingClient, chief_address, serve
from tuning.engine.trial_files import trial_files

# Heartbeats in the time of a lease, so that some may be late.
_HEARTBEATS = 6
# No compilation, step or evaluation of a trial takes as long.
STALL_SECONDS = 1800.0
# The status of a worker whose trial does not go on: the trial's fault.
_STALLED = 70


def is_chief() -> bool:
    """Whether this process serves the oracle."""
    return "chief" in os.environ.get("KERASTUNER_TUNER_ID", "") and _is_distributed()


def is_worker() -> bool:
    """Whether this process runs trials of a chief."""
    return _is_distributed() and not is_chief()


def _is_distributed() -> bool:
    return "KERASTUNER_ORACLE_IP" in os.environ


def _client(oracle: SearchOracle, retry_seconds: float) -> Any:
    """The chief's oracle for a worker: by the chief's service, or by a database."""
    if not is_storage(chief_address()):
        return RetryingClient(oracle, retry_seconds)
    name = str(oracle.hyperparameters.values.get(SEARCH_KEY))
    seconds = oracle.leases.seconds
    return StorageClient(
        oracle,
        Storage(chief_address(), name, lease_seconds=seconds, retry_seconds=retry_seconds),
    )


def _serve(oracle: SearchOracle) -> None:
    """Offer the oracle to workers until the search has finished."""
    if is_storage(chief_address()):
        serve_storage(oracle, chief_address())
    else:
        serve(oracle)


class SearchAbortedError(RuntimeError):
    """Too many trials in a row failed."""


class SearchTuner(TunerHooks):
    """Runs the trials of a `SearchOracle`; subclasses define `run_trial(trial)`.

    KerasTuner's tuner deletes a search when a worker joins late with `overwrite=True`; asks without
    a pause while there is no trial; and decides to resume by a state file of the worker, written in
    place. Here nothing is overwritten, and a search is resumed if its folder holds trials.

    Args:
        oracle: with its `hyperparameters`.
        folder: of the search.
        search_id: the same in all processes of a search; None: not checked.
        retry_seconds: that a worker waits for a chief that does not answer.
        trials_per_process: a worker ends after so many, to be restarted: TensorFlow's memory grows
            by about 100 MB a trial. None: any number.
        stall_seconds: a worker ends when its trial makes no step for so long, to be restarted.
    """

    def __init__(
        self,
        oracle: SearchOracle,
        folder: Path,
        *,
        search_id: str | None = None,
        retry_seconds: float = RETRY_SECONDS,
        trials_per_process: int | None = None,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        if search_id is not None:
            oracle.hyperparameters.Fixed(SEARCH_KEY, search_id)
        oracle.verbose = 0
        self._own_oracle = oracle
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it resumes
            super().__init__(oracle=oracle, directory=str(folder.parent), project_name=folder.name)
        self._last_heartbeat = time.monotonic()
        self._trials_per_process = trials_per_process
        self._stall_seconds = stall_seconds
        if is_worker():
            self.oracle = _client(oracle, retry_seconds)
            if search_id is not None:
                self._require_same_search(search_id)

    def _require_same_search(self, search_id: str) -> None:
        theirs = self.oracle.get_space().values.get(SEARCH_KEY)
        if theirs != search_id:
            raise ValueError(
                "Expected the chief's space, budget, data and recipe. Received: others "
                f"(search {search_id!r}, the chief's is {theirs!r}). Start this worker with the "
                "same command as the chief."
            )

    def search(self) -> bool:
        """Run the search, or this process's part of it.

        Returns:
            Whether the search has finished; False: this worker is to be restarted.

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
                _serve(self.oracle)
            else:
                self._run_trials()
        if self.oracle.aborted is not None:
            raise SearchAbortedError(
                f"Stopped after {self.oracle.max_consecutive_failed_trials} failed trials in a "
                f"row. The last one: {self.oracle.aborted}"
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
            with self._watched(trial):
                self._run_or_give_back(trial)
            self.on_trial_end(trial)
            count += 1
        return False

    def _run_or_give_back(self, trial: Trial) -> None:
        """Run a trial; of a search alone it is not lost when a signal ends the process.

        A worker's launcher reports why it ended.
        """
        try:
            self.run_and_report(trial)
        except BaseException:
            if not is_worker():
                self.oracle.give_back(self.tuner_id)
            raise

    @contextlib.contextmanager
    def _watched(self, trial: Trial) -> Iterator[None]:
        """End this worker if its trial makes no step for a long time, as only its end can help."""
        self._last_step = time.monotonic()
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(min(1.0, self._stall_seconds / 2)):
                if time.monotonic() - self._last_step > self._stall_seconds:
                    seconds = f"{self._stall_seconds:,.0f} s"
                    print(f"Trial {trial.trial_id} made no step in {seconds}.", file=sys.stderr)
                    os._exit(_STALLED)

        if is_worker():
            threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def network_of(self, trial: Trial) -> str | None:
        """The trial's network as text: sent with it, or from its folder; None: it has none."""
        if is_worker():
            return TrialControl.of(trial.hyperparameters.values).network
        return self.oracle.network(trial.trial_id)

    def on_trial_end(self, trial: Trial) -> None:
        """Send the end of a trial to the oracle, which saves it."""
        self.oracle.end_trial(trial)

    def heartbeat(self, trial: Trial) -> None:
        """Renew the lease of a trial; call it after every step: it seldom does anything."""
        self._last_step = time.monotonic()
        interval = self._own_oracle.leases.seconds / _HEARTBEATS
        if time.monotonic() - self._last_heartbeat > interval:
            self.oracle.get_trial(trial.trial_id)
            self._last_heartbeat = time.monotonic()

    def save(self) -> None:
        """Save the oracle's state; a tuner has none."""
        if not is_worker():
            self.oracle.save()

    def reload(self) -> None:
        """Resume the search, unless the chief does."""
        if not is_worker():
            self.oracle.reload()

    def resume_file(self) -> Path:
        """A trial's file, or where oracle.json would be."""
        return next(iter(trial_files(self._own_oracle.project_folder)), self._own_oracle.state_file)

    def run_trial(self, trial: Trial, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """Evaluate the trial's hyperparameters."""
        raise NotImplementedError
