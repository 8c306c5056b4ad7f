"""Goals of the search on Fashion-MNIST: better networks for less, finalists counted.

    export TFDS_DATA_DIR=... TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
    python benchmarks/search_goal.py --parts 3                     # the next three parts
    python benchmarks/search_goal.py                               # all that are missing
    python benchmarks/search_goal.py --quick --folder /tmp/try     # a smoke test on the sample

Two questions at 3 million multiply-adds:

- Does a search reach the accuracy of 60 random trials in a fifth of their core-seconds?
- Is its network at least half a point better than that of `tpe` for no more core-seconds?

`random` and `tpe` search around Table 1 scaled by hand (`search.py`), where most points have widths
at their floor. The others search around a base with room, by trials of the first epoch of a full
training, with finalists: `fifth_3_stages` in the space that `tune` searches by default, `fifth` and
`same` around `small`, which has two stages. `fifth_6m` and `fifth_6m_3_stages` are the same at 6
million. Each arm's network is then trained fully with five seeds on all training images and
evaluated on the test images; these trainings are not part of the core-seconds.

Each part, the search of an arm or one full training, appends a row to results/search_goal.csv when
it ends, and parts that have a row are not repeated; an interrupted search resumes. So the script
can run in pieces, on one quiet machine; arms may run at the same time, each on a core of its own.
The network of an arm is results/specs/goal_ARM.json. Core-seconds are processor time of the
process, on one thread, since two threads of TensorFlow take 1.5 times as much of it for layers as
small as these. About so many, measured but for `random` (35 a trial):

| arm | search | each of its five full trainings |
| --- | ---: | ---: |
| `fifth`, `fifth_3_stages` | 480 to 530 | 190 to 210 |
| `fifth_6m`, `fifth_6m_3_stages` | 650 | 260 |
| `tpe` | 1,230 | 170 |
| `same` | 1,470 | 190 |
| `random` | 2,100 | 320 |
"""

import argparse
import csv
import datetime
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import scipy.stats
from keras_tuner.engine.trial import Trial
from machine import device
from search import RESULTS, Setting, setting
from small_networks import table_28

from keras_inception import VARIANTS, ImageData, NetworkSpec, network_cost
from tuning import (
    NetworkTuner,
    SearchPlan,
    Space,
    base_network,
    base_with_room,
    best_first,
    best_spec,
    claim,
    read_trials,
    train_candidate,
)

SEEDS = range(100, 105)
FULL_EPOCHS = 4
# Core-seconds of the trials of a search, one number a trial, in its folder.
CORE_SECONDS_FILE = "core_seconds.json"
COLUMNS = (
    *("arm", "part", "seed", "trainings", "core_seconds", "macs", "accuracy", "device", "date"),
)
SEARCH, FULL = "search", "full training"
Row = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A search: its oracle, the form of its base, its trials and finalists.

    With finalists it has a base with room. `times_budget`: times 3 million multiply-adds.
    """

    oracle: str
    trials: int
    form: NetworkSpec = field(default_factory=table_28)
    finalists: int = 0
    seeds: int = 1
    times_budget: int = 1

    @property
    def has_room(self) -> bool:
        """Whether the space is around a base with room."""
        return self.finalists > 0


TWO_STAGES, THREE_STAGES = VARIANTS["small"], base_network((28, 28, 1), classes=10)
# The cheapest first.
ARMS = {
    "fifth": Arm(oracle="tpe", form=TWO_STAGES, trials=7, finalists=2),
    "fifth_6m": Arm(oracle="tpe", form=TWO_STAGES, trials=7, finalists=2, times_budget=2),
    "fifth_3_stages": Arm(oracle="tpe", form=THREE_STAGES, trials=7, finalists=2),
    "fifth_6m_3_stages": Arm(
        oracle="tpe", form=THREE_STAGES, trials=7, finalists=2, times_budget=2
    ),
    "tpe": Arm(oracle="tpe", trials=60),
    "same": Arm(oracle="tpe", form=TWO_STAGES, trials=20, finalists=3, seeds=2),
    "random": Arm(oracle="random", trials=60),
}
# Of the published search of `random`, on one core, before trials became cheaper.
PUBLISHED_SECONDS = 2660
# An arm, the one that it is compared with, the share of its core-seconds, and the points it gains.
GOALS = (
    *(("fifth_3_stages", "random", 0.2, 0.0), ("fifth_3_stages", "tpe", 1.0, 0.005)),
    *(("fifth", "random", 0.2, 0.0), ("same", "tpe", 1.0, 0.005)),
)


def plan_of(arm: Arm, have: Setting, quick: bool) -> SearchPlan:
    """Return the plan of an arm."""
    form, divisor = arm.form, 4
    budget = replace(have.budget, macs=arm.times_budget * have.budget.macs)
    if arm.has_room:
        form, divisor = base_with_room(form, budget)
    full = replace(have.recipe, name="full", epochs=2 if quick else FULL_EPOCHS)
    return SearchPlan(
        space=Space(base=form, budget=budget, width_divisor=divisor, depth=True, stem=True),
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


def timed_search(
    plan: SearchPlan, data: ImageData, folder: Path
) -> tuple[NetworkSpec, dict[str, Any]]:
    """Run or resume a search; return its network, and the columns of its row."""
    claim(folder, plan.identity(data))
    TimedTuner(plan, data, folder).search()
    spec = best_spec(folder)
    if spec is None:
        raise SystemExit(f"No trial of {folder} was completed.")
    seconds = core_seconds(folder / CORE_SECONDS_FILE)
    return spec, {
        "trainings": len(seconds),
        "core_seconds": round(sum(seconds.values())),
        "macs": network_cost(spec).total.macs,
        "accuracy": round(best_first(read_trials(folder))[0].accuracy, 4),
    }


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of the benchmark: the search of an arm, or a full training of its network.

    Attributes:
        arm: name in `ARMS`.
        seed: of a full training; None: the search.
    """

    arm: str
    seed: int | None = None

    def is_in(self, row: Row) -> bool:
        """Whether the row is this part's."""
        return (row["arm"], row["seed"]) == (self.arm, "" if self.seed is None else str(self.seed))


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Setting, folder of the searches, and the table of what has ended.

    Attributes:
        quick: few trials on the sample.
        folder: of the searches.
        results: of the table and of the networks.
    """

    have: Setting
    quick: bool
    folder: Path
    results: Path

    @property
    def table(self) -> Path:
        """The CSV file."""
        return self.results / "search_goal.csv"

    def rows(self) -> list[Row]:
        """What has ended."""
        if not self.table.exists():
            return []
        with self.table.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def missing(self, arms: list[str]) -> Iterator[Part]:
        """The parts that have no row, in the order of the arms."""
        seeds = SEEDS[:2] if self.quick else SEEDS
        done = self.rows()
        for arm in arms:
            for part in (Part(arm=arm), *(Part(arm=arm, seed=seed) for seed in seeds)):
                if not any(part.is_in(row) for row in done):
                    yield part

    def run(self, part: Part) -> None:
        """Run a part and append its row."""
        found = self._search(part.arm) if part.seed is None else self._train(part.arm, part.seed)
        values = {
            "arm": part.arm,
            "part": SEARCH if part.seed is None else FULL,
            "seed": part.seed,
            "device": device(),
            "date": datetime.date.today().isoformat(),
        }
        new = not self.table.exists()
        self.table.parent.mkdir(parents=True, exist_ok=True)
        with self.table.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(values | found)

    def _spec_file(self, arm: str) -> Path:
        return self.results / "specs" / f"goal_{arm}.json"

    def _search(self, name: str) -> dict[str, Any]:
        plan = plan_of(ARMS[name], self.have, self.quick)
        spec, row = timed_search(plan, self.have.data, self.folder / name)
        file = self._spec_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(spec.to_json(), encoding="utf-8")
        return row

    def _train(self, name: str, seed: int) -> dict[str, Any]:
        spec = NetworkSpec.from_json(self._spec_file(name).read_text(encoding="utf-8"))
        epochs = 2 if self.quick else FULL_EPOCHS
        recipe = replace(self.have.recipe, name="full", epochs=epochs, seed=seed)
        started = time.process_time()
        result = train_candidate(spec, self.have.data, recipe, epochs=epochs)
        return {
            "trainings": 1,
            "core_seconds": round(time.process_time() - started),
            "macs": network_cost(spec).total.macs,
            "accuracy": round(result.accuracy, 4),
        }


def difference(values: list[float], others: list[float]) -> tuple[float, float, float]:
    """Return how much higher the mean of values is, and its 95% interval (Welch)."""
    compared = scipy.stats.ttest_ind(values, others, equal_var=False)
    interval = compared.confidence_interval()
    return statistics.fmean(values) - statistics.fmean(others), interval.low, interval.high


def report(rows: list[Row]) -> None:
    """Print each arm's mean and whether each goal is reached, as far as there are rows."""
    accuracies: dict[str, list[float]] = {}
    seconds = {row["arm"]: float(row["core_seconds"]) for row in rows if row["part"] == SEARCH}
    for row in rows:
        if row["part"] == FULL:
            accuracies.setdefault(row["arm"], []).append(float(row["accuracy"]))
    for arm, values in accuracies.items():
        deviation = f", standard deviation {statistics.stdev(values):.2%}" if values[1:] else ""
        print(
            f"{arm}: {seconds[arm]:,.0f} core-seconds of search; {len(values)} full trainings, "
            f"mean {statistics.fmean(values):.2%}{deviation}"
        )
    for name, other, share, gain in GOALS:
        samples = [accuracies.get(arm, []) for arm in (name, other)]
        if min(map(len, samples)) >= 2:
            gained, low, high = difference(*samples)
            used = seconds[name] / seconds[other]
            is_reached = used <= share and gained >= gain
            print(
                f"{name} against {other}: {used:.2f} of the core-seconds now, "
                f"{seconds[name] / PUBLISHED_SECONDS:.2f} of those published for random "
                f"(goal {share}), {gained:+.2%} (95% interval {low:+.2%} to "
                f"{high:+.2%}; goal {gain:+.1%}): {'reached' if is_reached else 'missed'}"
            )


def main() -> None:
    """Run the missing parts of the requested arms, and judge the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--parts", type=int, help="run so many parts; default all")
    parser.add_argument("--quick", action="store_true", help="use the sample and few trials")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("saved_models/benchmark-search-goal"),
        help="folder of the searches",
    )
    arguments = parser.parse_args()
    benchmark = Benchmark(
        have=setting(arguments.quick),
        quick=arguments.quick,
        folder=arguments.folder,
        results=arguments.folder if arguments.quick else RESULTS,
    )
    for part in list(benchmark.missing(arguments.arms))[: arguments.parts]:
        print(f"{part.arm}: {SEARCH if part.seed is None else f'{FULL}, seed {part.seed}'}")
        benchmark.run(part)
    report(benchmark.rows())


if __name__ == "__main__":
    main()
