"""Searches whose processes share a database: real processes, killed with -9."""

import json
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

import keras_tuner
import pytest
from keras_tuner.engine.trial import Trial
from processes import start

from tuning.engine.database import Storage, is_storage

SCRIPT = "tuning_search.py"
DEADLINE = 300.0


def test_addresses_of_databases_are_told_from_those_of_a_chief() -> None:
    assert is_storage("sqlite:///search.db")
    assert is_storage("postgresql+psycopg://user:word@host:5432/name")
    assert not is_storage("127.0.0.1:4321")
    assert not is_storage("[::1]:4321")


def test_workers_that_ask_at_the_same_time_get_different_trials(tmp_path) -> None:
    url, count, taken = f"sqlite:///{tmp_path / 'trials.db'}", 24, []
    storage = Storage(url, "search")
    for number in range(count):
        trial = Trial(keras_tuner.HyperParameters(), trial_id=str(number))
        storage.put(str(number), trial, None)

    def work() -> None:
        own = Storage(url, "search")
        start_together.wait()
        while (trial := own.take()) is not None:
            taken.append(trial.user_attrs["trial"]["trial_id"])

    start_together = threading.Barrier(6)
    threads = [threading.Thread(target=work) for _ in range(start_together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken, key=int) == [str(number) for number in range(count)]


class Search:
    """The processes of a search in `folder` with a database beside it."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder.with_suffix('.db')}"
        self._options = [f"{name}={json.dumps(value)}" for name, value in options.items()]
        self.processes = []

    def start(self, name: str, folder: Path | None = None, *changes: str):
        host, _, port = self.url.rpartition(":")
        process = start(
            SCRIPT,
            "ours",
            folder or self.folder,
            *self._options,
            f"log={json.dumps(str(self.folder.with_suffix('.log')))}",
            *changes,
            KERASTUNER_TUNER_ID=name,
            KERASTUNER_ORACLE_IP=host,
            KERASTUNER_ORACLE_PORT=port,
        )
        self.processes.append(process)
        return process

    def counts(self, word: str) -> Counter[str]:
        log = self.folder.with_suffix(".log")
        lines = log.read_text().splitlines() if log.exists() else []
        return Counter(line.split()[1] for line in lines if line.startswith(word))

    def wait_for(self, trial: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not self.counts("begin")[trial]:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def statuses(self) -> dict[str, str]:
        states = [json.loads(file.read_text()) for file in self.folder.glob("trial_*/trial.json")]
        return {str(int(state["trial_id"])): state["status"] for state in states}


def succeed(*processes) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, errors[-3000:]


@pytest.fixture
def search(tmp_path):
    opened = []

    def opener(**options):
        opened.append(Search(tmp_path / "search", **options))
        return opened[-1]

    yield opener
    for process in (process for one in opened for process in one.processes):
        process.kill()
        process.communicate()


def completed(count: int) -> dict[str, str]:
    return {str(number): "COMPLETED" for number in range(count)}


@pytest.mark.slow
def test_a_search_in_a_database_with_killed_processes(search, tmp_path) -> None:
    """A worker killed in trial 1, the chief after trial 2: each trial is completed once."""
    one = search(trials=8, seconds=2.0, lease=15.0, finals=1)
    chief, first, second = (one.start(name) for name in ("chief", "first", "second"))
    one.wait_for("1")
    log = one.folder.with_suffix(".log").read_text().splitlines()
    pid = int(next(line for line in log if line.startswith("begin 1 ")).split()[2])
    victim, other = (first, second) if first.pid == pid else (second, first)
    victim.kill()
    one.wait_for("2")
    chief.kill()
    third = one.start("third", tmp_path / "elsewhere")  # a machine that has not the folder
    succeed(one.start("chief"), other, third)
    assert one.statuses() == completed(10)  # eight, and the two seeds of the finalist
    assert one.counts("begin")["1"] == 2
    assert one.counts("end") == dict.fromkeys(completed(10), 1)


@pytest.mark.slow
def test_failures_and_deaths_are_the_trials(search) -> None:
    """Trial 1 raises; trial 2 kills its process once and is run again."""
    one = search(trials=4, seconds=0.2, lease=2.0, fails=[1], dies={"2": 1})
    processes = [one.start(name) for name in ("chief", "first", "second", "third")]
    succeed(processes[0])
    assert one.statuses() == completed(4) | {"1": "FAILED"}
    ends = [process.wait(timeout=DEADLINE) for process in processes[1:]]
    assert sorted(ends) == [-6, 0, 0]  # os.abort, and two that saw the end
    message = json.loads((one.folder / "trial_1" / "trial.json").read_text())["message"]
    assert "trial 1 diverged" in message


@pytest.mark.slow
def test_a_new_folder_with_a_used_database_and_no_database_are_refused(search, tmp_path) -> None:
    one = search(trials=2)
    succeed(one.start("chief"), one.start("first"))
    again = one.start("chief", tmp_path / "new")
    _, errors = again.communicate(timeout=DEADLINE)
    assert again.returncode != 0
    assert "Expected the folder (--out) of the search" in errors
    with sqlite3.connect(one.url.removeprefix("sqlite:///")) as database:
        names = [row[0] for row in database.execute("SELECT study_name FROM studies")]
    assert names == ["same"]
    one.url = "sqlite:////no/such/folder/x.db"
    process = one.start("first", None, "patience=1.0")
    _, errors = process.communicate(timeout=DEADLINE)
    assert "Expected the address of a database that Optuna can use" in errors
