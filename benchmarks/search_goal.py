"""Goals of the search on Fashion-MNIST: better networks for less, finalists counted.

    TFDS_DATA_DIR=... python benchmarks/search_goal.py      # some three hours on two cores; resumes
    python benchmarks/search_goal.py --quick --folder /tmp/try     # a smoke test on the sample

Two questions at 3 million multiply-adds, both answered in results/search_goal.csv:

- `fifth` against `random`: does it reach the accuracy of 60 random trials in a fifth of their
  core-seconds?
- `same` against `tpe`: is its network at least half a point better for no more core-seconds?

`random` and `tpe` search around Table 1 scaled by hand (`search.py`), where most points have widths
at their floor. `fifth` and `same` search around `base_with_room`, by trials of the first epoch of
a full training, with finalists. Each arm's network is then trained fully with five seeds on all
training images and evaluated on the test images; these trainings are not part of the core-seconds.
Core-seconds are processor time of the process. Run all arms on one machine.
"""

import argparse
import csv
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import scipy.stats
from keras_tuner.engine.trial import Trial
from machine import device
from search import RESULTS, Setting, setting
from small_networks import table_28

from keras_inception import VARIANTS, NetworkSpec, network_cost
from tuning import (
    NetworkTuner,
    SearchPlan,
    Space,
    base_with_room,
    best_spec,
    claim,
    train_candidate,
)

SEEDS = range(100, 105)
FULL_EPOCHS = 4
# Core-seconds of the trials of a search, one number a trial, in its folder.
CORE_SECONDS_FILE = "core_seconds.json"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A search: its oracle, its trials, and whether it has a base with room and finalists."""

    oracle: str
    trials: int
    finalists: int = 0
    seeds: int = 1

    @property
    def has_room(self) -> bool:
        """Whether the space is around a base with room."""
        return self.finalists > 0


ARMS = {
    "random": Arm(oracle="random", trials=60),
    "tpe": Arm(oracle="tpe", trials=60),
    "fifth": Arm(oracle="tpe", trials=6, finalists=2),
    "same": Arm(oracle="tpe", trials=24, finalists=3, seeds=2),
}
# An arm, the one that it is compared with, the share of its core-seconds, and the points it gains.
GOALS = (("fifth", "random", 0.2, 0.0), ("same", "tpe", 1.0, 0.005))


def plan_of(arm: Arm, have: Setting, quick: bool) -> SearchPlan:
    """Return the plan of an arm."""
    form, divisor = (table_28(), 4)
    if arm.has_room:
        form, divisor = base_with_room(VARIANTS["small"], have.budget)
    full = replace(have.recipe, name="full", epochs=2 if quick else FULL_EPOCHS)
    return SearchPlan(
        space=Space(base=form, budget=have.budget, width_divisor=divisor, depth=True, stem=True),
        recipe=full if arm.has_room else have.recipe,
        halving_epochs=(1,) if arm.has_room else (),
        oracle=arm.oracle,
        max_trials=2 if quick else arm.trials,
        data_fraction=have.fraction,
        finalists=arm.finalists,
        seeds=arm.seeds,
    )


class TimedTuner(NetworkTuner):
    """Keeps the core-seconds of each trial, proposals included."""

    def search(self) -> bool:
        """Run the arm."""
        self._file = Path(self.project_dir) / CORE_SECONDS_FILE
        self._last = time.process_time()
        return super().search()

    def on_trial_end(self, trial: Trial) -> None:
        """Add what was used since the last trial."""
        now = time.process_time()
        seconds = core_seconds(self._file)
        seconds[trial.trial_id] = seconds.get(trial.trial_id, 0.0) + now - self._last
        self._file.write_text(json.dumps(seconds), encoding="utf-8")
        self._last = now
        super().on_trial_end(trial)


def core_seconds(file: Path) -> dict[str, float]:
    """Return the core-seconds by trial; {}: none has ended."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def run_arm(arm: Arm, have: Setting, folder: Path, quick: bool) -> NetworkSpec:
    """Run or resume the search of an arm, and return its network."""
    plan = plan_of(arm, have, quick)
    claim(folder, plan.identity(have.data))
    TimedTuner(plan, have.data, folder).search()
    spec = best_spec(folder)
    if spec is None:
        raise SystemExit(f"No trial of {folder} was completed.")
    return spec


def full_accuracies(
    spec: NetworkSpec, have: Setting, folder: Path, quick: bool
) -> dict[str, float]:
    """Train a network fully with each seed, or read what was trained; accuracies by seed."""
    file = folder / "full_trainings.json"
    found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    epochs = 2 if quick else FULL_EPOCHS
    for seed in SEEDS[:2] if quick else SEEDS:
        if str(seed) not in found:
            recipe = replace(have.recipe, name="full", epochs=epochs, seed=seed)
            result = train_candidate(spec, have.data, recipe, epochs=epochs)
            found[str(seed)] = result.accuracy
            file.write_text(json.dumps(found), encoding="utf-8")
    return found


def row_of(name: str, have: Setting, folder: Path, quick: bool) -> dict[str, Any]:
    """Run an arm and its full trainings, and return its row."""
    spec = run_arm(ARMS[name], have, folder, quick)
    accuracies = list(full_accuracies(spec, have, folder, quick).values())
    seconds = core_seconds(folder / CORE_SECONDS_FILE)
    mean = statistics.fmean(accuracies)
    half = float(scipy.stats.t.ppf(0.975, len(accuracies) - 1) * scipy.stats.sem(accuracies))
    return {
        "arm": name,
        "trainings": len(seconds),
        "core_seconds": round(sum(seconds.values())),
        "macs": network_cost(spec).total.macs,
        "accuracy": round(mean, 4),
        "interval_95": round(half, 4),
        "accuracies": " ".join(f"{value:.4f}" for value in accuracies),
        "device": device(),
    }


def judge(rows: dict[str, dict[str, Any]]) -> None:
    """Print whether each goal is reached, with the interval of the difference (Welch's t)."""
    for name, other, share, gain in GOALS:
        if name in rows and other in rows:
            own, theirs = rows[name], rows[other]
            samples = [list(map(float, row["accuracies"].split())) for row in (own, theirs)]
            interval = scipy.stats.ttest_ind(*samples, equal_var=False).confidence_interval()
            used = own["core_seconds"] / theirs["core_seconds"]
            gained = own["accuracy"] - theirs["accuracy"]
            print(
                f"{name} against {other}: {used:.2f} of the core-seconds (goal {share}), "
                f"{gained:+.2%} (95% interval {interval.low:+.2%} to {interval.high:+.2%}; goal "
                f"{gain:+.1%}): {'reached' if used <= share and gained >= gain else 'missed'}"
            )


def main() -> None:
    """Run the requested arms, write the table and judge the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--quick", action="store_true", help="use the sample and few trials")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("saved_models/benchmark-search-goal"),
        help="folder of the searches",
    )
    arguments = parser.parse_args()
    have = setting(arguments.quick)
    rows = {
        name: row_of(name, have, arguments.folder / name, arguments.quick)
        for name in arguments.arms
    }
    path = (arguments.folder if arguments.quick else RESULTS) / "search_goal.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, next(iter(rows.values())), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
    for row in rows.values():
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    judge(rows)


if __name__ == "__main__":
    main()
