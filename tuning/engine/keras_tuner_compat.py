"""Every private part of KerasTuner that this package uses, under a public name.

`USES` lists them, each with its place in the source of the version that it was seen in and the
reason. They are checked when this module is imported: another version of KerasTuner without one of
them fails with one line, not in the middle of a search. KerasTuner is pinned below 1.5.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial
from keras_tuner.src import config, protos
from keras_tuner.src.distribute import oracle_chief, oracle_client
from keras_tuner.src.engine import oracle as oracle_module

SEEN_IN = "1.4.8"


class Use(NamedTuple):
    """A private name that is used.

    Attributes:
        owner: the class or module that has it; a class also by its instances.
        name: of the attribute.
        source: file and line in KerasTuner `SEEN_IN`.
        reason: why the public interface does not do.
    """

    owner: Any
    name: str
    source: str
    reason: str


_ORACLE = "keras_tuner/src/engine/oracle.py"
_TUNER = "keras_tuner/src/engine/base_tuner.py"
_HYPERBAND = "keras_tuner/src/tuners/hyperband.py"
_CHIEF = "keras_tuner/src/distribute/oracle_chief.py"
_CLIENT = "keras_tuner/src/distribute/oracle_client.py"
_PROTOS = "keras_tuner/src/protos/__init__.py"


_hyperband = keras_tuner.oracles.HyperbandOracle


def _plain_oracle() -> keras_tuner.Oracle:
    """An oracle whose instance attributes can be checked."""
    return keras_tuner.Oracle("loss", 1, keras_tuner.HyperParameters(), seed=1)


USES = (
    Use(oracle_module, "LOCKS", f"{_ORACLE}:39", "release the lock when a call raises"),
    Use(oracle_module, "THREADS", f"{_ORACLE}:41", "release the lock when a call raises"),
    Use(_plain_oracle(), "_retry_queue", f"{_ORACLE}:346", "queue lost trials again (issue 915)"),
    Use(keras_tuner.Oracle, "_check_consecutive_failures", f"{_ORACLE}:535", "it raises"),
    Use(keras_tuner.Oracle, "_project_dir", f"{_ORACLE}:741", "the folder of the search"),
    Use(keras_tuner.Oracle, "_get_oracle_fname", f"{_ORACLE}:774", "write oracle.json whole"),
    Use(keras_tuner.Oracle, "_save_trial", f"{_ORACLE}:802", "write trial.json whole"),
    Use(keras_tuner.Oracle, "_random_values", f"{_ORACLE}:807", "begin with the neutral point"),
    Use(keras_tuner.Oracle, "_duplicate", f"{_ORACLE}:832", "compare networks (issue 608)"),
    Use(keras_tuner.Oracle, "_record_values", f"{_ORACLE}:843", "compare networks (issue 608)"),
    Use(BaseTuner, "_try_run_and_update_trial", f"{_TUNER}:272", "it prints tracebacks"),
    Use(BaseTuner, "_get_tuner_fname", f"{_TUNER}:474", "resume by the trials' files"),
    Use(config, "DEBUG", "keras_tuner/src/config.py:15", "it prints tracebacks"),
    Use(_hyperband, "_get_size", f"{_HYPERBAND}:278", "count trials"),
    Use(_hyperband, "_get_num_rounds", f"{_HYPERBAND}:294", "count trials"),
    Use(_hyperband, "_get_num_brackets", f"{_HYPERBAND}:298", "count trials"),
    Use(oracle_chief, "OracleServicer", f"{_CHIEF}:27", "a chief that survives (issues 344, 915)"),
    Use(oracle_client, "OracleClient", f"{_CLIENT}:34", "a client that retries (issue 915)"),
    Use(oracle_client, "TIMEOUT", f"{_CLIENT}:31", "an hour without an answer (issue 990)"),
    Use(protos, "get_service", f"{_PROTOS}:31", "answer a worker"),
    Use(protos, "get_service_grpc", f"{_PROTOS}:35", "serve on a port that is not shared"),
)


def require_private_api(uses: Iterable[Use] = USES) -> None:
    """Check that the installed KerasTuner has every private name that is used.

    Raises:
        ImportError: one is gone.
    """
    for use in uses:
        if not hasattr(use.owner, use.name):
            raise ImportError(
                f"Expected KerasTuner with {use.name!r}, as in {use.source} of {SEEN_IN} (used to: "
                f"{use.reason}). Received: KerasTuner {version('keras-tuner')} without it. Install "
                f'it by pip install "keras-tuner=={SEEN_IN}".'
            )


require_private_api()

OracleServicer = oracle_chief.OracleServicer
OracleClient = oracle_client.OracleClient
messages = protos.get_service()
add_servicer = protos.get_service_grpc().add_OracleServicer_to_server
make_stub = protos.get_service_grpc().OracleStub


def set_client_timeout(seconds: float) -> None:
    """How long each call of an `OracleClient` waits for the chief."""
    oracle_client.TIMEOUT = seconds


def synchronized(method: Callable[..., Any]) -> Callable[..., Any]:
    """KerasTuner's decorator, with the lock released when the call raises.

    KerasTuner's own leaves it held (oracle.py:109), and the chief then waits for ever. Its methods
    do not lock again inside of this one.
    """

    @functools.wraps(method)
    def locked(oracle: Any, *args: Any, **kwargs: Any) -> Any:
        thread = threading.current_thread().name
        if oracle_module.THREADS[oracle] == thread:
            return method(oracle, *args, **kwargs)
        with oracle_module.LOCKS[oracle]:
            oracle_module.THREADS[oracle] = thread
            try:
                return method(oracle, *args, **kwargs)
            finally:
                oracle_module.THREADS[oracle] = None

    return locked


class OracleHooks(keras_tuner.Oracle):
    """`keras_tuner.Oracle` with public names for what a subclass replaces or reads."""

    hyperparameters: keras_tuner.HyperParameters
    ongoing_trials: dict[str, Trial]

    @property
    def project_folder(self) -> Path:
        """The folder of oracle.json and of the trials' folders."""
        return Path(self._project_dir)

    @property
    def state_file(self) -> Path:
        """oracle.json."""
        return Path(self._get_oracle_fname())

    @property
    def retry_queue(self) -> list[str]:
        """Trials that wait to be run again; the last one is next."""
        return self._retry_queue

    @retry_queue.setter
    def retry_queue(self, trial_ids: list[str]) -> None:
        self._retry_queue = trial_ids

    def save_trial(self, trial: Trial) -> None:
        """Write a trial's file."""
        raise NotImplementedError

    def random_values(self) -> dict[str, Any] | None:
        """Random values that are no repeat; None after 20 repeats in a row."""
        return super()._random_values()

    def is_repeat(self, values: dict[str, Any]) -> bool:
        """Whether a trial had these values."""
        raise NotImplementedError

    def _save_trial(self, trial: Trial) -> None:
        self.save_trial(trial)

    def _random_values(self) -> dict[str, Any] | None:
        return self.random_values()

    def _duplicate(self, values: dict[str, Any]) -> bool:
        return self.is_repeat(values)

    def _record_values(self, trial: Trial) -> None:
        """Fill in values that a proposal left out; `is_repeat` has its own record."""
        trial.hyperparameters.ensure_active_values()

    def _check_consecutive_failures(self) -> None:
        """KerasTuner raises here, which kills the worker that reports the failure."""


class TunerHooks(BaseTuner):
    """`BaseTuner` with public names for what a subclass replaces or calls."""

    def run_and_report(self, trial: Trial) -> None:
        """Run a trial and send its results; a failure is in its `message`, and not printed."""
        debug, config.DEBUG = config.DEBUG, False
        try:
            self._try_run_and_update_trial(trial)
        finally:
            config.DEBUG = debug

    def resume_file(self) -> Path:
        """The file by whose existence KerasTuner decides to resume the search."""
        raise NotImplementedError

    def _get_tuner_fname(self) -> str:
        return str(self.resume_file())


def hyperband_trial_count(oracle: keras_tuner.oracles.HyperbandOracle) -> int:
    """Trials of all rounds of all brackets."""
    return sum(
        oracle._get_size(bracket, number)
        for bracket in range(oracle._get_num_brackets())
        for number in range(oracle._get_num_rounds(bracket))
    )
