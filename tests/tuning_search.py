"""A search of tiny functions in a separate process, with plain KerasTuner or this package's oracle.

    python tests/tuning_search.py KIND FOLDER [FIELD=JSON ...]

KIND is "plain" or "ours"; "launch" runs "ours" as a chief and two workers at the address in
`address`, and ends with the launcher's exit code. Each trial writes the lines "begin ID PID" and
"end ID PID" to FOLDER.log, or to the file in `log`. KerasTuner's environment variables make it
chief, worker or standalone.
"""

import json
import os
import sys
import time
from pathlib import Path

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner

DEFAULTS = {
    "trials": 6,
    "seconds": 0.0,  # of a trial
    "slow": {},  # seconds of a trial by its number
    "dies": {},  # how many processes a trial kills, by its number
    "fails": [],  # numbers of trials that fail
    "lease": 2.0,
    "patience": 120.0,  # a chief restarts within it on a busy machine too
    "overwrite": False,
    "high": 1.0,
    "search": "same",
    "failures": 3,
    "log": "",
    "address": "",
    "finals": 0,  # networks of the last stage, by two seeds
}


def main() -> None:
    kind, folder, *changes = sys.argv[1:]
    options = DEFAULTS | {
        name: json.loads(value) for name, value in (item.split("=", 1) for item in changes)
    }
    space = keras_tuner.HyperParameters()
    space.Float("x", 0.0, options["high"], step=1 / 64, default=0.5)
    {"plain": plain, "ours": ours, "launch": launched}[kind](Path(folder), space, options)


def evaluate(tuner: BaseTuner, trial, folder: Path, options) -> dict[str, float]:
    number = str(int(trial.trial_id))
    log = Path(options["log"] or folder.with_suffix(".log"))
    note(log, f"begin {number} {os.getpid()}")
    seconds = options["slow"].get(number, options["seconds"])
    for _ in range(round(seconds / 0.05)):
        time.sleep(0.05)
        if hasattr(tuner, "heartbeat"):
            tuner.heartbeat(trial)
    begun = log.read_text().splitlines()
    if sum(line.startswith(f"begin {number} ") for line in begun) <= options["dies"].get(number, 0):
        os.abort()
    if int(number) in options["fails"]:
        raise RuntimeError(f"trial {number} diverged")
    note(log, f"end {number} {os.getpid()}")
    return {"score": -((trial.hyperparameters.values["x"] - 0.7) ** 2)}


def note(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")


def plain(folder: Path, space, options) -> None:
    class Tuner(BaseTuner):
        def run_trial(self, trial, *args, **kwargs):
            return evaluate(self, trial, folder, options)

    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("score", "max"),
        max_trials=options["trials"],
        hyperparameters=space,
        seed=1,
    )
    Tuner(
        oracle=oracle,
        directory=str(folder.parent),
        project_name=folder.name,
        overwrite=options["overwrite"],
    ).search()


def launched(folder: Path, space, options) -> None:
    from tuning.engine.launcher import launch

    command = [sys.executable, __file__, "ours", str(folder), *sys.argv[3:]]
    launch(command, folder=folder, workers=2, address=options["address"])


def ours(folder: Path, space, options) -> None:
    from tuning.engine.finals import Finals
    from tuning.engine.launcher import exit_with_launcher
    from tuning.engine.oracles import make_oracle
    from tuning.engine.tuner import SearchTuner

    exit_with_launcher()

    class Tuner(SearchTuner):
        def run_trial(self, trial, *args, **kwargs):
            return evaluate(self, trial, folder, options)

    count = options["finals"]
    oracle = make_oracle(
        "random",
        finals=Finals(finalists=count, seeds=(1, 2), epochs=1) if count else None,
        objective=keras_tuner.Objective("score", "max"),
        max_trials=options["trials"],
        hyperparameters=space,
        seed=1,
        lease_seconds=options["lease"],
        max_consecutive_failed_trials=options["failures"],
    )
    Tuner(oracle, folder, search_id=options["search"], retry_seconds=options["patience"]).search()


if __name__ == "__main__":
    main()
