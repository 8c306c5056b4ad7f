"""Trials of a search in a database, by Optuna's storage: processes need not reach each other.

The chief's oracle proposes and judges as always; here it puts trials into the database and takes
results from it. Workers take trials, and record heartbeats; Optuna finds those that have stopped.
Any database of SQLAlchemy's that Optuna knows: PostgreSQL or MySQL, SQLite on one machine.
"""

from __future__ import annotations

import copy
import logging
import math
import secrets
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras_tuner
import optuna
from keras_tuner.engine.trial import Trial, TrialStatus
from optuna.trial import FrozenTrial, TrialState

from tuning.engine.control import SEARCH_KEY, TrialControl
from tuning.engine.leases import LEASE_SECONDS, ProcessReport
from tuning.engine.oracle import SearchOracle
from tuning.engine.service import IDLE_SECONDS, RETRY_SECONDS, ChiefLostError

# Of a stored trial: the trial as the worker gets it, the lease that it has of the oracle, and the
# results. Of the study: whether the search has finished.
_TRIAL, _LEASE, _RESULT, _FINISHED = "trial", "lease", "result", "finished"
_HEARTBEATS = 6  # in the time after which a trial without them is lost
_POLL_SECONDS = 0.5
_LOCK_SECONDS = 60.0
# Of the trials that run, so many wait in the database, so that no worker waits for the chief.
_AHEAD = 1 / 4
_log = logging.getLogger(__name__)


def is_storage(address: str) -> bool:
    """Whether an address is that of a database, such as sqlite:///search.db, and no HOST:PORT."""
    return "://" in address


class Storage:
    """The trials of one search in a database.

    Args:
        url: of the database, as SQLAlchemy has them.
        name: of the search; searches with other names may share the database.
        lease_seconds: without a heartbeat, after which a trial is lost.
        retry_seconds: how long a database that does not answer is asked again.

    Raises:
        ValueError: no database there, or its driver is not installed.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._name = name
        self._retry_seconds = retry_seconds
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        waits = {"timeout": _LOCK_SECONDS} if url.startswith("sqlite") else {}
        try:
            with _expected_warnings():
                self._storage = self._retried(
                    lambda: optuna.storages.RDBStorage(
                        url,
                        engine_kwargs={"pool_pre_ping": True, "connect_args": waits},
                        heartbeat_interval=max(1, math.floor(lease_seconds / _HEARTBEATS)),
                        grace_period=max(1, math.ceil(lease_seconds)),
                    )
                )
            if url.startswith("sqlite"):
                _one_at_a_time(self._storage.engine)
            self._study = self._retried(
                lambda: optuna.create_study(
                    storage=self._storage,
                    sampler=optuna.samplers.RandomSampler(),  # the oracle proposes
                    study_name=name,
                    direction="maximize",
                    load_if_exists=True,
                )
            )
        except (ImportError, ChiefLostError) as error:
            raise ValueError(
                "Expected the address of a database that Optuna can use, and its driver. Received: "
                f"{url.partition('@')[2] or url!r} ({' '.join(str(error).split())[:300]})"
            ) from error

    def trials(self) -> dict[str, FrozenTrial]:
        """All stored trials by their lease; those without a heartbeat for too long have failed."""
        with _expected_warnings():
            self._retried(lambda: optuna.storages.fail_stale_trials(self._study))
        found = self._retried(lambda: self._study.get_trials(deepcopy=False))
        return {trial.user_attrs[_LEASE]: trial for trial in found if _LEASE in trial.user_attrs}

    def put(self, lease: str, trial: Trial, network: str | None) -> None:
        """Store a trial for the next worker."""
        sent = copy.deepcopy(trial)
        sent.hyperparameters.values |= TrialControl(network=network).to_values()
        attributes = {_LEASE: lease, _TRIAL: sent.get_state()}
        self._retried(lambda: self._study.enqueue_trial({}, user_attrs=attributes))

    def take(self) -> optuna.Trial | None:
        """A waiting trial, which runs from now on; None: there is none."""
        if not self._retried(lambda: self._study.get_trials(False, states=[TrialState.WAITING])):
            return None
        with _expected_warnings():
            trial = self._retried(self._study.ask)
        if _TRIAL not in trial.user_attrs:  # others took the last one; Optuna made an empty one
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        self.beat(trial)
        return trial

    def beat(self, trial: optuna.Trial) -> None:
        """Record a heartbeat."""

        def record() -> None:
            study = self._storage.get_study_id_from_name(self._name)
            number = self._storage.get_trial_id_from_study_id_trial_number(study, trial.number)
            self._storage.record_heartbeat(number)

        self._retried(record)

    def end(self, trial: optuna.Trial, result: dict[str, Any], score: float | None) -> None:
        """Store the result of a trial, unless it counts as lost."""

        def store() -> None:
            trial.set_user_attr(_RESULT, result)
            if score is None:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, score)

        try:
            self._retried(store)
        except (RuntimeError, ValueError) as error:  # Optuna's, for a trial that has ended
            _log.warning("A result came too late, and another worker has the trial: %s", error)

    @property
    def has_finished(self) -> bool:
        """Whether the chief has ended the search."""
        return bool(self._retried(lambda: self._study.user_attrs).get(_FINISHED))

    def finish(self, has_finished: bool = True) -> None:
        """Tell the workers that there will be no more trials, or that there will."""
        self._retried(lambda: self._study.set_user_attr(_FINISHED, has_finished))

    def _retried(self, call: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + self._retry_seconds
        while True:
            try:
                return call()
            except _database_errors() as error:
                if time.monotonic() > deadline:
                    raise ChiefLostError(
                        f"No answer from the database for {self._retry_seconds:.0f} s ({error})."
                    ) from error
            time.sleep(min(IDLE_SECONDS, self._retry_seconds / 10))


def _one_at_a_time(engine: Any) -> None:
    """Begin each transaction of an SQLite database with the lock for writing.

    Optuna gives a waiting trial to one worker by SELECT ... FOR UPDATE, which SQLite ignores: two
    workers that read at the same time would both run it. So says SQLAlchemy to begin transactions
    in SQLite. A log beside the database (WAL) makes each of them cheap.
    """
    import sqlalchemy

    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # Python's sqlite3 begins no transactions of its own
        connection.execute("PRAGMA journal_mode=WAL")

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections made before
    sqlalchemy.event.listen(engine, "connect", connected)
    sqlalchemy.event.listen(engine, "begin", begin)


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Hold back that heartbeats are experimental, and meant for Optuna's own loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
        yield


def _database_errors() -> tuple[type[Exception], ...]:
    """What a database that does not answer raises, through Optuna or not."""
    import sqlalchemy

    known = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
    return (*known, sqlite3.Error)  # the last one while a connection is set up


class StorageClient:
    """The oracle of a worker: trials from the database, results to it.

    Args:
        oracle: the worker's own, for its settings.
        storage: of the search.
    """

    def __init__(self, oracle: SearchOracle, storage: Storage) -> None:
        self.objective = oracle.objective
        self._space = oracle.hyperparameters
        self._storage = storage
        self._taken: optuna.Trial | None = None
        self._trial = Trial(keras_tuner.HyperParameters())

    def get_space(self) -> keras_tuner.HyperParameters:
        """The search space: the database has no trials of another one under this name."""
        return self._space

    def create_trial(self, tuner_id: str) -> Trial:
        """A trial to run; waits a moment when there is none yet."""
        if self._storage.has_finished:
            return Trial(keras_tuner.HyperParameters(), status=TrialStatus.STOPPED)
        self._taken = self._storage.take()
        if self._taken is None:
            time.sleep(IDLE_SECONDS)
            return Trial(keras_tuner.HyperParameters(), status=TrialStatus.IDLE)
        self._trial = Trial.from_state(self._taken.user_attrs[_TRIAL])
        return self._trial

    def get_trial(self, trial_id: str) -> Trial:
        """The trial of this worker; also a heartbeat."""
        if self._taken is not None:
            self._storage.beat(self._taken)
        return self._trial

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Keep results until the trial ends."""
        for name, value in metrics.items():
            if not self._trial.metrics.exists(name):
                self._trial.metrics.register(name, direction="min")
            self._trial.metrics.update(name, value, step=step)
        return self._trial

    def end_trial(self, trial: Trial) -> None:
        """Store that a trial has ended, its results, and why it failed."""
        known = self._trial.metrics
        metrics = {name: known.get_best_value(name) for name in known.metrics}
        result = {"metrics": metrics, "status": trial.status, "message": trial.message}
        if self._taken is not None:
            self._storage.end(self._taken, result, metrics.get(self.objective.name))


def serve_storage(oracle: SearchOracle, url: str) -> None:
    """Put an oracle's trials into a database, and take the results, until the search has finished.

    Raises:
        ValueError: no database, or one that has trials of this search which the folder lacks.
        ChiefLostError: the database does not answer any more.
    """
    name = str(oracle.hyperparameters.values.get(SEARCH_KEY))
    storage = Storage(url, name, lease_seconds=oracle.leases.seconds)
    oracle.leases.seconds = math.inf  # Optuna's heartbeats take their place
    if storage.trials() and not oracle.trials:
        raise ValueError(
            "Expected the folder (--out) of the search that this database has trials of, or "
            "another database. Received: a new folder"
        )
    storage.finish(False)
    lease = secrets.token_hex(8)
    while True:
        stored = storage.trials()
        _take_results(oracle, storage, stored)
        states = [trial.state for trial in stored.values()]
        running, waiting = states.count(TrialState.RUNNING), states.count(TrialState.WAITING)
        trial = None
        while waiting <= running * _AHEAD:
            trial = oracle.lend(lease, ProcessReport(process=lease))
            if trial.status != TrialStatus.RUNNING:
                break
            storage.put(lease, trial, oracle.network(trial.trial_id))
            lease = secrets.token_hex(8)
            waiting += 1
        if trial is not None and trial.status == TrialStatus.STOPPED:
            storage.finish()
            return
        time.sleep(_POLL_SECONDS)


def _take_results(oracle: SearchOracle, storage: Storage, stored: dict[str, FrozenTrial]) -> None:
    """Bring the oracle's trials that run to what the database says of them."""
    for lease, trial in list(oracle.ongoing_trials.items()):
        found = stored.get(lease)
        if found is None:  # a chief died before it had stored it
            storage.put(lease, trial, oracle.network(trial.trial_id))
        elif _RESULT in found.user_attrs and found.state.is_finished():
            _end(oracle, trial, found.user_attrs[_RESULT])
        elif found.state.is_finished():
            oracle.lose(lease)


def _end(oracle: SearchOracle, trial: Trial, result: dict[str, Any]) -> None:
    """End a trial by its stored result."""
    ended = copy.deepcopy(trial)
    ended.status, ended.message = result["status"], result["message"]
    try:
        if result["metrics"]:
            oracle.update_trial(trial.trial_id, result["metrics"])
    except ValueError as error:
        _log.warning("Refused the result of trial %s: %s", trial.trial_id, error)
        ended.status, ended.message = TrialStatus.FAILED, str(error)
    oracle.end_trial(ended)
