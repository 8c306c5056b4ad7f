"""The oracle as a service of the chief, and its client in the workers: KerasTuner's, mended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief, oracle_client

PATIENCE_SECONDS = 600.0
IDLE_SECONDS = 1.0
# Time for the last answers to reach the workers.
_GRACE_SECONDS = 2.0


class ChiefLostError(keras_tuner.errors.FatalError):
    """The chief does not answer, or cannot go on. Fatal: no fault of the trial."""


class PatientClient(oracle_client.OracleClient):
    """Talks to a chief that may be killed and come back.

    The original's call fails at once when the chief dies in the middle of it, which counts as the
    trial's failure, and blocks for an hour when it is gone; an idle worker asks without a pause.
    """

    def __init__(self, oracle: keras_tuner.Oracle, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__(oracle)
        self._patience = patience
        oracle_client.TIMEOUT = patience  # how long each call waits for a chief

    def get_space(self) -> keras_tuner.HyperParameters:
        """The chief's search space."""
        return self._patiently(super().get_space)

    def create_trial(self, tuner_id: str) -> Trial:
        """A trial to run; waits a moment when there is none yet."""
        trial = self._patiently(super().create_trial, tuner_id)
        if trial.status == TrialStatus.IDLE:
            time.sleep(IDLE_SECONDS)
        return trial

    def get_trial(self, trial_id: str) -> Trial:
        """A trial of the chief's."""
        return self._patiently(super().get_trial, trial_id)

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Tell results."""
        return self._patiently(super().update_trial, trial_id, metrics, step)

    def end_trial(self, trial: Trial) -> None:
        """Tell that a trial has ended."""
        self._patiently(super().end_trial, trial)

    def _patiently(self, call: Callable[..., Any], *arguments: Any) -> Any:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return call(*arguments)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNKNOWN:  # the oracle raised
                    raise ChiefLostError(f"The chief cannot go on: {error.details()}") from error
                if time.monotonic() > deadline:
                    raise ChiefLostError(
                        f"No answer from the chief for {self._patience:.0f} s. Start it again, "
                        "then this worker."
                    ) from error
            time.sleep(min(IDLE_SECONDS, self._patience / 10))


class _Servicer(oracle_chief.OracleServicer):
    """Remembers what the oracle could not do."""

    failure: OSError | None = None

    def CreateTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._remembering(super().CreateTrial, request, context)

    def UpdateTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._remembering(super().UpdateTrial, request, context)

    def EndTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._remembering(super().EndTrial, request, context)

    def _remembering(self, call: Callable[..., Any], request: Any, context: Any) -> Any:
        try:
            return call(request, context)
        except OSError as error:
            self.failure = error
            raise


def serve(oracle: Any) -> None:
    """Serve a mended oracle at KERASTUNER_ORACLE_IP and _PORT until the search is over.

    The original shares its port with any other chief, so that two searches mix; waits for ever for
    workers that are gone; and hangs when the oracle raises.

    Raises:
        ValueError: the port is taken.
        OSError: the project folder cannot be written.
    """
    address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=1), options=(("grpc.so_reuseport", 0),)
    )
    servicer = _Servicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ValueError(
            f"Expected a free port. Received: {address}, which another process has: perhaps "
            "another search. Choose another port."
        ) from error
    server.start()
    try:
        while not (servicer.stop_triggered and oracle.is_over()):
            if servicer.failure is not None:
                raise servicer.failure
            time.sleep(0.2)
    finally:
        server.stop(_GRACE_SECONDS).wait()
