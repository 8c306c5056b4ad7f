"""Chief and workers of a search as processes of this machine; those that die are started again.

A process keeps its name when it is started again, so that a worker's trial comes back to it. None
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
# Exit codes of a process: all is done; a mistake, which no new start mends; start me again.
OVER, MISTAKE, AGAIN = 0, 2, 75
# A process that died so often in a row, each time within the seconds, is given up.
_MOST_DEATHS = 5
_QUICK_SECONDS = 60.0
_POLL_SECONDS = 0.2
_FAREWELL_SECONDS = 15.0
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
        command: of every process; KerasTuner's environment variables tell it what it is.
        folder: of the search; the processes' output goes to its `logs`.
        workers: on this machine.
        address: HOST:PORT of the chief.
        with_chief: start the chief too, not only workers for one elsewhere.
        tick: called several times a second.

    Raises:
        LaunchError: a process ended by a mistake or again and again.
    """
    # Another launcher's workers have other names, on this machine too.
    own = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    names = [CHIEF] * with_chief + [f"{own}-{index}" for index in range(workers)]
    crew = {name: _Member(name, command, folder, address) for name in names}
    try:
        while not _is_over(crew, with_chief):
            tick()
            time.sleep(_POLL_SECONDS)
    finally:
        for member in crew.values():
            member.end()


def end_with_launcher() -> None:
    """In a launched process: end when the launcher ends, however that was."""
    if os.environ.get(_LAUNCHED):
        threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    os.read(0, 1)  # the launcher writes nothing; its end closes the pipe
    os._exit(AGAIN)


def _is_over(crew: dict[str, _Member], with_chief: bool) -> bool:
    """Look after each process. Over: the chief is done, or without one here all workers are.

    A chief that was killed after its workers had ended would wait for them: they start again too.
    """
    for member in crew.values():
        if member.look_after() and member is crew.get(CHIEF):
            for other in crew.values():
                if other.code == OVER:
                    other.start()
    if with_chief:
        return crew[CHIEF].code == OVER
    return all(member.code == OVER for member in crew.values())


class _Member:
    """A process that is started again when it dies."""

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
        self.code: int | None = None
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

    def look_after(self) -> bool:
        """Start the process again if it died; whether it did."""
        if self.code == OVER or (code := self._process.poll()) is None:
            return False
        self.code = code
        self._close_pipe()
        if code == OVER:
            return False
        killed = code < 0 or code == AGAIN
        if code == MISTAKE or (self._name == CHIEF and not killed):
            raise self._error(f"ended with code {code}")
        quick = time.monotonic() - self._started < _QUICK_SECONDS
        self._deaths = self._deaths + 1 if quick and code != AGAIN else 0
        if self._deaths >= _MOST_DEATHS:
            raise self._error(f"died {self._deaths} times in a row")
        self.start()
        return True

    def _error(self, what: str) -> LaunchError:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "nothing in its log"
        return LaunchError(f"{self._name} {what}: {last} (see {self._log})")

    def end(self) -> None:
        """Give the process a moment to end by itself, then end it."""
        if self.code != OVER:
            over = self._process.poll() is not None
            if not over and self._name != CHIEF:
                self._wait(_FAREWELL_SECONDS / 3)
            for number in (signal.SIGTERM, signal.SIGKILL):
                if self._process.poll() is None:
                    self._process.send_signal(number)
                    self._wait(_FAREWELL_SECONDS)
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()

    def _wait(self, seconds: float) -> None:
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return
