"""Searches whose processes are killed at random: every trial is completed once.

Each schedule kills a worker, the chief, the launcher, and all of them, in random order, by SIGKILL
or SIGTERM, a random moment after a random number of events of the trials. Nothing has a time limit.
"""

import contextlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes import free_ports, start

pytestmark = pytest.mark.slow
TRIALS = 6
KINDS = ("worker", "chief", "launcher", "all")


class Launched:
    """A launcher with its chief and workers, started again in the same folder and at one port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self._address = f"127.0.0.1:{free_ports(1)[0]}"
        self.start()

    def start(self) -> None:
        """Start the launcher."""
        self.launcher: subprocess.Popen[str] = start(
            "tuning_search.py",
            *("launch", self.folder, f"trials={TRIALS}", "seconds=0.4"),
            f'address="{self._address}"',
            KERAS_BACKEND="numpy",  # starts faster; the trials train nothing
        )

    def processes(self, role: str) -> list[psutil.Process]:
        """Those of the chief or of workers that run."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.launcher.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if child.environ().get("KERASTUNER_TUNER_ID", "").startswith(role):
                        found.append(child)
        return found

    def events(self) -> int:
        """How many trials have begun and ended in some process."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def wait_for_events(self, count: int) -> None:
        """Wait for more events, or for the end of the search."""
        wanted = self.events() + count
        while self.events() < wanted and self.launcher.poll() is None:
            time.sleep(0.01)

    def kill(self, kind: str, chance: random.Random) -> None:
        """Kill some of the processes; a launcher that has gone is started again."""
        number = chance.choice([signal.SIGKILL, signal.SIGTERM])
        children = [*self.processes("chief"), *self.processes("worker")]
        victims = {
            "worker": self.processes("worker")[:1],
            "chief": self.processes("chief"),
            "launcher": [],
            "all": children,
        }[kind]
        if kind in ("launcher", "all"):
            self.launcher.send_signal(signal.SIGKILL)  # it could end its processes in order
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(number)
        if kind in ("launcher", "all"):
            self.launcher.communicate()
            psutil.wait_procs(children)  # none outlives it
            self.start()

    def close(self) -> None:
        """End what still runs."""
        self.launcher.kill()
        self.launcher.communicate()


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    one = Launched(tmp_path / "search")
    yield one
    one.close()


@pytest.mark.parametrize("seed", range(10))
def test_every_trial_is_completed_once(launched: Launched, seed: int) -> None:
    chance = random.Random(seed)
    for kind in chance.sample(KINDS, len(KINDS)):
        launched.wait_for_events(chance.randint(1, 3))
        time.sleep(chance.uniform(0, 0.5))
        if launched.launcher.poll() is None:
            launched.kill(kind, chance)
    errors = launched.launcher.communicate()[1]
    logs = "".join(log.read_text()[-2000:] for log in launched.folder.glob("logs/*.log"))
    assert launched.launcher.returncode == 0, errors + logs

    names = [str(number) for number in range(TRIALS)]
    trials = [json.loads((launched.folder / f"trial_{n}/trial.json").read_text()) for n in names]
    assert [trial["status"] for trial in trials] == ["COMPLETED"] * TRIALS
    assert all(len(trial["metrics"]["metrics"]["score"]["observations"]) == 1 for trial in trials)
    state = json.loads((launched.folder / "oracle.json").read_text())
    assert sorted(state["end_order"]) == names
    assert (state["ongoing_trials"], state["retry_queue"], state["losses"]) == ({}, [], {})
