"""Chief and workers of a search as processes of this machine, restarted when they die.

A process keeps its name when it is restarted, so that a worker's trial comes back to it. None
outlives the launcher.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CHIEF = "chief"
LOG_FOLDER = "logs"
# Exit codes of a process: the search has finished; a usage error, which a restart does not mend;
# restart me.
FINISHED, USAGE_ERROR, RESTART = 0, 2, 75
# A process that died so often in a row, each time within the seconds, is not restarted.
_MAX_DEATHS = 5
_QUICK_SECONDS = 60.0
_POLL_SECONDS = 0.2
_STOP_SECONDS = 15.0
_LAUNCHED = "KERAS_INCEPTION_LAUNCHED"


class LaunchError(RuntimeError):
    """The processes cannot go on; the message has the end of the log."""


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(
    command: Sequence[str],
    *,
    folder: Path,
    workers: int,
    address: str,
    with_chief: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Run a search to its end.

    Args:
        command: of every process, whose role is in KerasTuner's environment variables.
        folder: of the search; the processes' output goes to its `logs`.
        workers: on this machine.
        address: HOST:PORT of the chief.
        with_chief: start the chief too, not only workers for one elsewhere.
        tick: called several times a second.

    Raises:
        LaunchError: a process ended by a usage error, or died again and again.
    """
    # The workers of other launchers have other names. KerasTuner takes a name with "chief" in it,
    # as a host may have, for the chief's.
    own = secrets.token_hex(4)
    names = [CHIEF] * with_chief + [f"worker-{own}-{index}" for index in range(workers)]
    processes = {name: _Process(name, command, folder, address) for name in names}
    try:
        while not _have_finished(processes):
            tick()
            time.sleep(_POLL_SECONDS)
    finally:
        for process in processes.values():
            process.stop()


def exit_with_launcher() -> None:
    """In a launched process: exit when the launcher ends, for whatever reason."""
    if os.environ.get(_LAUNCHED):
        threading.Thread(target=_exit_when_pipe_closes, daemon=True).start()


def _exit_when_pipe_closes() -> None:
    os.read(0, 1)  # the launcher writes nothing; its end closes the pipe
    os._exit(RESTART)


def _have_finished(processes: dict[str, _Process]) -> bool:
    """Restart what died; whether the chief has finished, or without one here all workers.

    A chief that was killed after its workers had finished would wait for them: they are restarted.
    """
    chief = processes.get(CHIEF)
    for process in processes.values():
        if process.restart_if_dead() and process is chief:
            for other in processes.values():
                if other.has_finished:
                    other.start()
    if chief is not None:
        return chief.has_finished
    return all(process.has_finished for process in processes.values())


class _Process:
    """A process that is restarted when it dies."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._name = name
        self._command = list(command)
        self._environment = {
            **os.environ,
            _LAUNCHED: "1",
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": host,
            "KERASTUNER_ORACLE_PORT": port,
        }
        self._log = folder / LOG_FOLDER / f"{name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._deaths = 0
        self.start()

    def start(self) -> None:
        """Start the process."""
        self.has_finished = False
        self._started = time.monotonic()
        with self._log.open("ab") as log:
            self._process: subprocess.Popen[Any] = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the launcher's to pass on
            )

    def restart_if_dead(self) -> bool:
        """Restart the process if it died; whether it did."""
        if self.has_finished or (code := self._process.poll()) is None:
            return False
        self._close_pipe()
        self.has_finished = code == FINISHED
        if self.has_finished:
            return False
        killed = code < 0 or code == RESTART
        if code == USAGE_ERROR or (self._name == CHIEF and not killed):
            raise self._error(f"ended with code {code}")
        self._count_death(code)
        self.start()
        return True

    def _count_death(self, code: int) -> None:
        quick = time.monotonic() - self._started < _QUICK_SECONDS
        self._deaths = self._deaths + 1 if quick and code != RESTART else 0
        if self._deaths >= _MAX_DEATHS:
            raise self._error(f"died {self._deaths} times in a row")

    def _error(self, what: str) -> LaunchError:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "nothing in its log"
        return LaunchError(f"{self._name} {what}: {last} (see {self._log})")

    def stop(self) -> None:
        """Give the process a moment to end by itself, then end it."""
        if not self.has_finished:
            if self._name != CHIEF:
                self._wait(_STOP_SECONDS / 3)
            for number in (signal.SIGTERM, signal.SIGKILL):
                if self._process.poll() is None:
                    self._process.send_signal(number)
                    self._wait(_STOP_SECONDS)
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()

    def _wait(self, seconds: float) -> None:
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return
