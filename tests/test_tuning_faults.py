"""Searches of real processes killed with -9: behaviour of KerasTuner and of this package.

Each search evaluates tiny functions (tuning_search.py) that log the start and end of each trial.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import TESTS, free_ports, start

from tuning.engine.launcher import launch

pytestmark = pytest.mark.slow
SCRIPT = "tuning_search.py"
DEADLINE = 120.0
Process = subprocess.Popen[str]


class Search:
    """The processes of one search, which are all terminated when it is closed."""

    def __init__(self, kind: str, folder: Path, **options: Any) -> None:
        self.kind = kind
        self.folder = folder
        self._options = options
        self._port = str(free_ports(1)[0])
        self._processes: list[Process] = []

    @property
    def log(self) -> Path:
        return Path(self._options.get("log") or self.folder.with_suffix(".log"))

    def start(self, tuner_id: str = "", **options: Any) -> Process:
        """Start a process: "chief", a worker's name, or "" for a search alone."""
        changes = [
            f"{name}={json.dumps(value)}" for name, value in (self._options | options).items()
        ]
        environment = {}
        if tuner_id:
            environment = {
                "KERAS_INCEPTION_TUNING_SECRET": "the-secret-of-the-tests",
                "KERASTUNER_TUNER_ID": tuner_id,
                "KERASTUNER_ORACLE_IP": "127.0.0.1",
                "KERASTUNER_ORACLE_PORT": options.pop("port", self._port),
            }
        process = start(SCRIPT, self.kind, self.folder, *changes, **environment)
        self._processes.append(process)
        return process

    def counts(self, word: str) -> Counter[str]:
        """Return how often each trial started or ended."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return Counter(line.split()[1] for line in lines if line.startswith(word))

    def wait(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text() if self.log.exists() else ""
            time.sleep(0.05)

    def pid_of(self, trial: str) -> int:
        line = next(x for x in self.log.read_text().splitlines() if x.startswith(f"begin {trial} "))
        return int(line.split()[2])

    def trials(self) -> dict[str, str]:
        """Return the status of each trial, from the project's files."""
        files = sorted(self.folder.glob("trial_*/trial.json"))
        states = [json.loads(file.read_text()) for file in files]
        return {state["trial_id"]: state["status"] for state in states}

    def close(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.communicate()


@pytest.fixture
def search(tmp_path: Path) -> Iterator[Callable[..., Search]]:
    opened: list[Search] = []

    def opener(kind: str, name: str = "", **options: Any) -> Search:
        opened.append(Search(kind, tmp_path / (name or kind), **options))
        return opened[-1]

    yield opener
    for one in opened:
        one.close()


def succeed(*processes: Process) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, errors[-3000:]


def kill(process: Process) -> None:
    process.kill()
    process.communicate()


ALL_SIX = {str(number): "COMPLETED" for number in range(6)}
ONCE = dict.fromkeys(ALL_SIX, 1)


def test_a_worker_killed_in_a_trial(search) -> None:
    """Plain: its trial is never run again. Ours: another worker runs it."""
    for kind in ("plain", "ours"):
        one = search(kind, seconds=1.0)
        chief, first, second = (one.start(name) for name in ("chief", "first", "second"))
        one.wait(lambda one=one: one.counts("begin")["1"])
        victim = first if one.pid_of("1") == first.pid else second
        other = second if victim is first else first
        kill(victim)
        succeed(other)
        if kind == "plain":
            assert sorted(one.counts("end")) == ["0", "2", "3", "4", "5"]
            assert one.trials()["1"] == "RUNNING"
            assert chief.poll() is None
        else:
            succeed(chief)
            assert one.counts("end") == ONCE
            assert one.trials() == ALL_SIX


def test_a_worker_and_the_chief_killed_in_the_last_stage(search) -> None:
    """Three trials, and two finalists by two seeds: each ends once, on another worker."""
    one = search("ours", seconds=1.0, trials=3, finals=2)
    chief, first, second = (one.start(name) for name in ("chief", "first", "second"))
    one.wait(lambda: one.counts("begin")["3"])
    victim = first if one.pid_of("3") == first.pid else second
    kill(victim)
    kill(chief)
    chief = one.start("chief")
    succeed(second if victim is first else first, chief)
    assert one.counts("end") == dict.fromkeys(map(str, range(7)), 1)
    assert set(one.trials().values()) == {"COMPLETED"}
    states = [
        json.loads(file.read_text())["hyperparameters"]["values"]
        for file in sorted(one.folder.glob("trial_*/trial.json"))
    ]
    seeds = [values.get("tuner/seed") for values in states]
    assert seeds == [None, None, None, 1, 2, 1, 2]
    finalists = [values.get("tuner/finalist") for values in states[3:]]
    assert finalists[0] == finalists[1] != finalists[2] == finalists[3]


def test_a_worker_restarted_under_its_name_resumes_its_trial(search) -> None:
    one = search("ours", seconds=1.0, lease=60.0)
    chief, worker = one.start("chief"), one.start("worker")
    one.wait(lambda: one.counts("begin")["2"])
    kill(worker)
    succeed(one.start("worker"), chief)
    assert one.counts("end") == ONCE


def test_the_chief_killed_and_restarted(search) -> None:
    """Plain: the running trial runs twice. Ours: the worker waits and continues."""
    for kind in ("plain", "ours"):
        one = search(kind, seconds=3.0, trials=3, lease=20.0)
        chief, first, second = (one.start(name) for name in ("chief", "first", "second"))
        one.wait(lambda one=one: len(one.counts("begin")) == 2)
        kill(chief)
        chief = one.start("chief")
        if kind == "plain":
            one.wait(lambda one=one: len(one.counts("end")) == 3)
            assert max(one.counts("begin").values()) == 2
        else:
            succeed(chief, first, second)
            assert one.counts("begin") == {"0": 1, "1": 1, "2": 1}


@pytest.mark.parametrize("names", [("chief", "first", "second"), ("",)])
def test_everything_killed_and_restarted(search, names: tuple[str, ...]) -> None:
    """Completed trials are kept and not run again; the others are run."""
    one = search("ours", seconds=0.5)
    begun: dict[str, int] = {}
    for completed in (1, 3):
        processes = [one.start(name) for name in names]
        one.wait(lambda n=completed: list(one.trials().values()).count("COMPLETED") >= n)
        for process in processes:
            kill(process)
        done = {key for key, status in one.trials().items() if status == "COMPLETED"}
        begun = {key: one.counts("begin")[key] for key in done} | begun
    succeed(*(one.start(name) for name in names))
    assert one.trials() == ALL_SIX
    assert {key: one.counts("begin")[key] for key in begun} == begun
    assert len(begun) >= 3


def test_the_chief_never_comes_back(search) -> None:
    """Plain: the worker waits an hour. Ours: it exits after its timeout with an error."""
    for kind in ("plain", "ours"):
        one = search(kind, seconds=1.0, patience=4.0)
        chief, worker = one.start("chief"), one.start("worker")
        one.wait(lambda one=one: one.counts("begin")["0"])
        kill(chief)
        if kind == "plain":
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(timeout=15)
        else:
            _, errors = worker.communicate(timeout=60)
            assert worker.returncode == 1
            assert "No answer from the chief" in errors


def test_a_late_worker_told_to_overwrite(search) -> None:
    """Plain: it deletes the others' results. Ours: workers cannot overwrite."""
    one = search("plain", seconds=1.0)
    one.start("chief")
    one.start("early")
    one.wait(lambda: one.counts("end")["2"])
    assert (one.folder / "trial_0").exists()
    one.start("late", overwrite=True)
    one.wait(lambda: not (one.folder / "trial_0").exists())

    ours = search("ours", seconds=8.0, lease=40.0)  # the late worker takes long to start
    chief, early = ours.start("chief"), ours.start("early")
    ours.wait(lambda: ours.counts("end")["0"])
    late = ours.start("late", overwrite=True)
    succeed(chief, early, late)
    assert ours.trials() == ALL_SIX
    assert ours.counts("end") == ONCE
    assert len({ours.pid_of(trial) for trial in ALL_SIX}) == 2  # the late worker ran some trials


def test_three_failed_trials_in_a_row(search) -> None:
    """Plain: the worker dies of a gRPC error, the chief hangs. Ours: both exit with the reason."""
    for kind in ("plain", "ours"):
        one = search(kind, fails=[1, 2, 3])
        chief, worker = one.start("chief"), one.start("worker")
        _, errors = worker.communicate(timeout=DEADLINE)
        if kind == "plain":
            assert worker.returncode != 0
            assert "consecutive failures" in errors
            with pytest.raises(subprocess.TimeoutExpired):
                chief.wait(timeout=10)
        else:
            assert worker.returncode == 0
            _, errors = chief.communicate(timeout=DEADLINE)
            assert "SearchAbortedError: Stopped after 3 failed trials in a row" in errors
            assert "RuntimeError: trial 3 diverged" in errors


def test_a_second_chief(search) -> None:
    """Plain: it binds to the port of the first. Ours: refused, as is a chief in the same folder."""
    plain = search("plain", seconds=1.0)
    plain.start("chief")
    with pytest.raises(subprocess.TimeoutExpired):
        plain.start("chief").wait(timeout=15)

    ours = search("ours")
    chief = ours.start("chief")
    ours.wait(lambda: (ours.folder / "oracle.json").exists())
    time.sleep(1)
    _, errors = ours.start("chief", port=str(free_ports(1)[0])).communicate(timeout=DEADLINE)
    assert "Expected a folder in which no other run is going on" in errors
    other = search("ours", "other")
    other._port = ours._port
    _, errors = other.start("chief").communicate(timeout=DEADLINE)
    assert "Expected a free port" in errors
    succeed(ours.start("worker"), chief)


def test_a_worker_of_another_search(search) -> None:
    """Plain: it runs the chief's trials with its own settings. Ours: refused."""
    plain = search("plain")
    plain.start("chief")
    succeed(plain.start("stranger", high=2.0))
    assert plain.counts("end") == ONCE

    ours = search("ours")
    chief = ours.start("chief")
    stranger = ours.start("stranger", search="another")
    _, errors = stranger.communicate(timeout=DEADLINE)
    assert "Expected the chief's space, budget, data and recipe" in errors
    succeed(ours.start("worker"), chief)
    assert ours.counts("end") == ONCE


def test_a_full_disk(search, small_disk: Path, tmp_path: Path) -> None:
    """Plain: a truncated file makes the project unreadable. Ours: files are intact; it resumes."""
    for kind in ("plain", "ours"):
        one = search(kind, seconds=0.5, log=str(tmp_path / f"{kind}.log"))
        one.folder = small_disk / kind
        filler = small_disk / "filler"
        process = one.start()
        one.wait(lambda one=one: one.counts("end")["1"])
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 512)
        _, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode != 0
        filler.unlink()
        again = one.start()
        _, errors = again.communicate(timeout=DEADLINE)
        if kind == "plain":
            assert again.returncode != 0
            assert "JSONDecodeError" in errors
        else:
            assert again.returncode == 0, errors[-3000:]
            assert one.trials() == ALL_SIX


def test_the_launcher_ends_a_trial_that_kills_its_workers(tmp_path: Path) -> None:
    """Trial 1 aborts its worker, which is restarted; after the third time the trial has failed."""
    folder = tmp_path / "search"
    options = ["trials=3", 'dies={"1": 9}', "lease=60", f'log="{tmp_path}/log"']
    launch(
        [sys.executable, str(TESTS / SCRIPT), "ours", str(folder), *options],
        folder=folder,
        workers=1,
        address=f"127.0.0.1:{free_ports(1)[0]}",
    )
    states = [json.loads(file.read_text()) for file in sorted(folder.glob("trial_*/trial.json"))]
    assert [state["status"] for state in states] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert "3 processes died by themselves" in states[1]["message"]
