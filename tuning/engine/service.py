"""The oracle as a service of the chief, and its client in the workers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from tuning.engine.access import Access, SecretRequired
from tuning.engine.control import TrialControl
from tuning.engine.keras_tuner_compat import (
    OracleClient,
    OracleServicer,
    add_servicer,
    make_stub,
    messages,
    set_client_timeout,
)
from tuning.engine.leases import ProcessReport
from tuning.engine.oracle import SearchOracle, UnknownTrialError

RETRY_SECONDS = 600.0
IDLE_SECONDS = 1.0
# Time for the last answers to reach the workers.
_GRACE_SECONDS = 2.0


# What a worker says when asking again cannot help.
_FATAL = {
    grpc.StatusCode.UNKNOWN: "The chief cannot go on: {}",
    grpc.StatusCode.NOT_FOUND: "The chief refuses this worker: {}. Stop it: it is left over from "
    "another search.",
    grpc.StatusCode.UNAUTHENTICATED: "The chief refuses this worker: {}. Start both with the same "
    "--secret-file.",
}
_log = logging.getLogger(__name__)


class ChiefLostError(keras_tuner.errors.FatalError):
    """The chief does not answer, or cannot go on. Fatal: not a failure of the trial."""


class RetryingClient(OracleClient):
    """A client whose chief may be killed and restarted.

    A call of KerasTuner's fails at once when the chief dies in the middle of it, which counts as
    the trial's failure, and blocks for an hour when the chief has gone; an idle worker asks again
    without a pause. This one also sends the secret of the search and a report on its process.

    Args:
        oracle: the worker's own, for its settings.
        retry_seconds: how long a call is repeated.
    """

    def __init__(self, oracle: SearchOracle, retry_seconds: float = RETRY_SECONDS) -> None:
        super().__init__(oracle)
        report = ProcessReport.from_environment()
        self.stub = make_stub(
            Access.from_environment().channel(chief_address(), report.to_metadata())
        )
        self._retry_seconds = retry_seconds
        set_client_timeout(retry_seconds)

    def get_space(self) -> keras_tuner.HyperParameters:
        """The chief's search space."""
        return self._retried(super().get_space)

    def create_trial(self, tuner_id: str) -> Trial:
        """A trial to run; waits a moment when there is none yet."""
        trial = self._retried(super().create_trial, tuner_id)
        if trial.status == TrialStatus.IDLE:
            time.sleep(IDLE_SECONDS)
        return trial

    def get_trial(self, trial_id: str) -> Trial:
        """A trial of the chief's; also a heartbeat."""
        return self._retried(super().get_trial, trial_id)

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Send results."""
        return self._retried(super().update_trial, trial_id, metrics, step)

    def end_trial(self, trial: Trial) -> None:
        """Send that a trial has ended, and why it failed."""
        trial.hyperparameters.values |= TrialControl(error=trial.message).to_values()
        self._retried(super().end_trial, trial)

    def _retried(self, call: Callable[..., Any], *arguments: Any) -> Any:
        deadline = time.monotonic() + self._retry_seconds
        while True:
            try:
                return call(*arguments)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                    raise ValueError(error.details()) from error
                if error.code() in _FATAL:
                    raise ChiefLostError(_FATAL[error.code()].format(error.details())) from error
                if time.monotonic() > deadline:
                    raise ChiefLostError(
                        f"No answer from the chief for {self._retry_seconds:.0f} s. If it has "
                        "ended, start it again, then this worker. If not, its --certificate may "
                        "have expired, not name its host, or not fit the worker's."
                    ) from error
            time.sleep(min(IDLE_SECONDS, self._retry_seconds / 10))


class _Servicer(OracleServicer):
    """Sends a trial's network with it, refuses what cannot be, and keeps the error of a full disk.

    Refusals are written to the chief's log as well.
    """

    failure: OSError | None = None

    def CreateTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._errors_answered(context, "CreateTrial"):
            report = ProcessReport.from_metadata(context.invocation_metadata())
            trial = self.oracle.lend(request.tuner_id, report)
            if trial.status == TrialStatus.STOPPED:
                self.stop_triggered = True
            response = messages.CreateTrialResponse(trial=trial.to_proto())
            if trial.trial_id in self.oracle.trials:
                control = TrialControl(network=self.oracle.network(trial.trial_id))
                for name, text in control.to_values().items():
                    response.trial.hyperparameters.values.values[name].string_value = text
            return response

    def UpdateTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._errors_answered(context, "UpdateTrial"):
            return super().UpdateTrial(request, context)

    def EndTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._errors_answered(context, "EndTrial"):
            return super().EndTrial(request, context)

    def GetTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._errors_answered(context, "GetTrial"):
            return super().GetTrial(request, context)

    def UpdateSpace(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._errors_answered(context, "UpdateSpace"):
            return super().UpdateSpace(request, context)

    @contextmanager
    def _errors_answered(self, context: Any, call: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise
        except UnknownTrialError as error:
            _log.warning("Refused %s of %s: %s", call, context.peer(), error)
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except ValueError as error:
            _log.warning("Refused %s of %s: %s", call, context.peer(), error)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


def serve(oracle: SearchOracle) -> None:
    """Serve an oracle at KERASTUNER_ORACLE_IP and _PORT until the search has finished.

    KerasTuner's chief shares its port with any other, so that two searches mix; waits for ever for
    workers that have gone; and hangs when the oracle raises.

    Raises:
        ValueError: there is no secret, or the port is taken.
        OSError: the folder or a certificate cannot be read or written.
    """
    access = Access.from_environment()
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=1),
        interceptors=[SecretRequired(access.secret)],
        options=(("grpc.so_reuseport", 0),),
    )
    servicer = _Servicer(oracle)
    add_servicer(servicer, server)
    access.bind(server, chief_address())
    server.start()
    try:
        while not (servicer.stop_triggered and oracle.is_finished()):
            if servicer.failure is not None:
                raise servicer.failure
            time.sleep(0.2)
    finally:
        server.stop(_GRACE_SECONDS).wait()


def chief_address() -> str:
    """HOST:PORT of the chief, or the address of a database, of KerasTuner's variables."""
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
