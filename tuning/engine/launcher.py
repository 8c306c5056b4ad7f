"""Chief and workers of a search as processes of this machine, restarted when they die.

A process keeps its name when it is restarted, so that a worker's trial comes back to it, and knows
why the one before it ended. None outlives the launcher.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_inception.wording import counted
from tuning.engine.access import Access, chosen_secret
from tuning.engine.leases import Cause, ProcessReport

CHIEF = "chief"
LOG_FOLDER = "logs"
# Exit codes of a process: the search has finished; a usage error, which a restart does not mend;
# restart me.
FINISHED, USAGE_ERROR, RESTART = 0, 2, 75
# A process that died so often in a row, each time within the seconds, is not restarted. Others kill
# processes too, so more is allowed where nothing shows whether it died by itself.
_MAX_DEATHS = {Cause.OWN: 5, Cause.UNKNOWN: 50}
_ASKED = (-signal.SIGTERM, -signal.SIGINT, -getattr(signal, "SIGHUP", 1), RESTART)
_VMSTAT = Path("/proc/vmstat")
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
    access: Access | None = None,
    with_chief: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Run a search to its end.

    Args:
        command: of every process, whose role is in KerasTuner's environment variables.
        folder: of the search; the processes' output goes to its `logs`.
        workers: on this machine.
        address: HOST:PORT of the chief.
        access: of the chief and its workers; None: a new secret that they alone know.
        with_chief: start the chief too, not only workers for one elsewhere.
        tick: called several times a second.

    Raises:
        LaunchError: a process ended by a usage error, or died again and again.
    """
    # The chief's launcher has the same names when it is started again, so that trials need not wait
    # for their leases to expire; those of other launchers must differ. KerasTuner takes a name with
    # "chief" in it, as a host may have, for the chief's.
    prefix = "worker" if with_chief else f"worker-{secrets.token_hex(4)}"
    names = [CHIEF] * with_chief + [f"{prefix}-{index}" for index in range(workers)]
    access = access or Access(secret=chosen_secret(None, may_create=False))
    shared = {**_address_variables(address), **access.to_environment()}
    environment = {**_thread_variables(workers), **os.environ, **shared}
    processes = {name: _Process(name, command, folder, environment) for name in names}
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


def _address_variables(address: str) -> dict[str, str]:
    """KerasTuner's environment variables of HOST:PORT."""
    host, _, port = address.rpartition(":")
    return {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port}


def _thread_variables(workers: int) -> dict[str, str]:
    """TensorFlow's threads for each of several workers, together as many as cores.

    A trial of small layers takes a third less processor time on one thread than on two, whose
    threads wait for each other.
    """
    if workers == 1:
        return {}
    threads = max(1, (os.cpu_count() or 1) // workers)
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return dict.fromkeys(names, str(threads))


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory; 0 where it does not say."""
    if not _VMSTAT.exists():
        return 0
    found = re.search(r"^oom_kill (\d+)$", _VMSTAT.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


class _Process:
    """A process that is restarted when it dies."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: dict[str, str]
    ) -> None:
        self._name = name
        self._command = list(command)
        self._environment = {**environment, _LAUNCHED: "1", "KERASTUNER_TUNER_ID": name}
        self._report = ProcessReport()
        self._log = folder / LOG_FOLDER / f"{name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._deaths = dict.fromkeys(_MAX_DEATHS, 0)
        self.start()

    def start(self) -> None:
        """Start the process."""
        self.has_finished = False
        self._started = time.monotonic()
        self._oom_kills = _oom_kills()
        with self._log.open("ab") as log:
            self._process: subprocess.Popen[Any] = subprocess.Popen(
                self._command,
                env=self._environment | self._report.to_environment(),
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
        cause = self._cause(code)
        self._count_death(cause)
        self._report = ProcessReport(predecessor=self._report.process, cause=cause)
        self.start()
        return True

    def _cause(self, code: int) -> Cause:
        """Why the process ended."""
        if code in _ASKED:
            return Cause.OUTSIDE
        if code == -signal.SIGKILL and _oom_kills() == self._oom_kills:
            return Cause.UNKNOWN
        return Cause.OWN

    def _count_death(self, cause: Cause) -> None:
        quick = time.monotonic() - self._started < _QUICK_SECONDS
        for one in self._deaths:
            in_a_row = quick and cause is not Cause.OUTSIDE
            self._deaths[one] = self._deaths[one] + (one is cause) if in_a_row else 0
            if self._deaths[one] >= _MAX_DEATHS[one]:
                raise self._error(f"died {counted(self._deaths[one], 'time')} in a row")

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
