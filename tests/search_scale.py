"""A search with many workers: trials an hour, lost trials, and the load of the chief.

    pip install -e ".[cpu,tune]"
    python tests/search_scale.py            # eight minutes
    python tests/search_scale.py --quick    # a smoke test, writes nothing

Writes benchmarks/results/search_scale.csv. A trial takes 20 s and does nothing. The chief is a
process as `tune` starts it, once with its own service and once with an SQLite database; the workers
are threads of four processes, each with a client and a connection of its own. One trial of ten is
left by its worker, which then comes back as a new process. A lease is 15 s and heartbeats come
every 2.5 s, eight times as often as in `tune`. `share` compares the throughput with that of workers
that never wait; `chief_seconds` is the processor time of the chief. Chief and workers share the
machine's cores.
"""

import argparse
import csv
import datetime
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_inception import device_name
from keras_inception.bounded import read_json
from tuning.engine.access import SECRET_VARIABLE
from tuning.engine.database import Storage, StorageClient, is_storage
from tuning.engine.oracle import SearchOracle
from tuning.engine.oracles import make_oracle
from tuning.engine.service import RetryingClient, chief_address
from tuning.engine.tuner import SearchTuner

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "search_scale.csv"
COLUMNS = (
    *("transport", "workers", "trials", "completed", "left_by_workers", "wall_seconds"),
    *("share", "chief_seconds", "device", "optuna", "keras_tuner", "date"),
)
# SQLite locks the whole database in each transaction: with 200 workers the search does not end.
MEASURED: tuple[tuple[str, int], ...] = (
    *(("service", 10), ("sqlite", 10), ("service", 50), ("sqlite", 50)),
    ("service", 200),
)
ROUNDS = 4  # trials of each worker
SECONDS = 20.0  # of a trial
LEASE = 15.0
BEATS = 6  # in a lease
LEFT = 0.1
PROCESSES = 4
PORT = 8766
NAME = "scale"


def make(trials: int) -> SearchOracle:
    """Return the oracle of a random search over one number."""
    space = keras_tuner.HyperParameters()
    space.Float("x", 0.0, 1.0)
    space.Fixed("search", NAME)
    return make_oracle(
        "random",
        objective=keras_tuner.Objective("score", "max"),
        max_trials=trials,
        hyperparameters=space,
        seed=1,
        lease_seconds=LEASE,
    )


def run_chief(folder: Path, trials: int) -> None:
    """Serve a search in a folder; print the seconds of processor time that this takes."""
    tuner = SearchTuner(make(trials), folder, search_id=NAME)
    before = time.process_time()
    tuner.search()
    print(time.process_time() - before)


def run_workers(first: int, count: int, trials: int, seconds: float) -> None:
    """Run workers in threads; print when they began and ended, and how many trials they left."""
    began = time.time()
    left: list[str] = []
    threads = [
        threading.Thread(target=work, args=(f"worker-{number}", trials, seconds, left))
        for number in range(first, first + count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(began, time.time(), len(left))


def work(name: str, trials: int, seconds: float, left: list[str]) -> None:
    """Take trials until there are no more."""
    chance = random.Random(name)
    client = connect(trials)
    while (trial := client.create_trial(name)).status != TrialStatus.STOPPED:
        if trial.status == TrialStatus.IDLE:
            continue
        if chance.random() < LEFT:
            left.append(trial.trial_id)
            client = connect(trials)
            continue
        run(client, trial, seconds)


def connect(trials: int) -> RetryingClient | StorageClient:
    """Return a client as a new process has it."""
    address = chief_address()
    if not is_storage(address):
        return RetryingClient(make(trials))
    return StorageClient(make(trials), Storage(address, NAME, lease_seconds=LEASE))


def run(client: RetryingClient | StorageClient, trial: Trial, seconds: float) -> None:
    """Sleep as long as a trial takes, with heartbeats, and report its result."""
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        time.sleep(min(rest, LEASE / BEATS))
        client.get_trial(trial.trial_id)
    client.update_trial(trial.trial_id, {"score": trial.hyperparameters.values["x"]})
    trial.status = TrialStatus.COMPLETED
    client.end_trial(trial)


def measure(transport: str, workers: int, seconds: float) -> dict[str, object]:
    """Run a search; return a row of the table."""
    trials = ROUNDS * workers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "search"
        host, port = "127.0.0.1", str(PORT)
        if transport != "service":
            host, port = f"sqlite:///{name}/trials.db".split(":")
        environment = {
            **os.environ,
            SECRET_VARIABLE: "a secret of the benchmark".replace(" ", "-"),
            "KERASTUNER_ORACLE_IP": host,
            "KERASTUNER_ORACLE_PORT": port,
        }
        command = [sys.executable, __file__, "--seconds", str(seconds), "--trials", str(trials)]

        def start(tuner: str, *options: object) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [*command, *map(str, options)],
                env=environment | {"KERASTUNER_TUNER_ID": tuner},
                stdout=subprocess.PIPE,
                text=True,
            )

        chief = start("chief", "--folder", folder)
        while not (folder / "oracle.json").exists():
            time.sleep(0.1)
        each = -(-workers // PROCESSES)
        processes = [
            start("worker", "--first", first, "--workers", min(each, workers - first))
            for first in range(0, workers, each)
        ]
        reports = [process.communicate()[0].split()[-3:] for process in processes]
        began, ended, left = zip(*(map(float, report) for report in reports), strict=True)
        wall = max(ended) - min(began)
        chief_seconds = float(chief.communicate()[0].split()[-1])
        states = [read_json(file, "trial") for file in folder.glob("trial_*/trial.json")]
    return {
        "transport": transport,
        "workers": workers,
        "trials": trials,
        "completed": sum(state["status"] == TrialStatus.COMPLETED for state in states),
        "left_by_workers": round(sum(left)),
        "wall_seconds": round(wall, 1),
        "share": round(trials * seconds / workers / wall, 3),
        "chief_seconds": round(chief_seconds, 1),
        "device": device_name(),
        "optuna": version("optuna"),
        "keras_tuner": version("keras-tuner"),
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    """Run the table, or one process of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--first", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    if options.folder:
        run_chief(options.folder, options.trials)
    elif options.workers:
        run_workers(options.first, options.workers, options.trials, options.seconds)
    else:
        measured, seconds = MEASURED, SECONDS
        if options.quick:
            measured, seconds = (("service", 4), ("sqlite", 4)), 2.0
        rows = []
        for transport, workers in measured:
            rows.append(measure(transport, workers, seconds))
            print(rows[-1], flush=True)
            if not options.quick:
                write(rows)


def write(rows: list[dict[str, object]]) -> None:
    """Write the table."""
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
