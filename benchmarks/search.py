"""The search on Fashion-MNIST at equal cost, compared with random widths and between oracles.

    TFDS_DATA_DIR=... python benchmarks/search.py search --arms tpe raw   # about an hour per arm
    python benchmarks/search.py summary
    python benchmarks/search.py --quick --folder /tmp/try    # a smoke test: the sample, few trials

The script resumes when it is restarted. Each training appends a row to results/search_trials.csv
when it ends; results/search.csv is the summary. The best network of each arm is saved in
results/specs; `frontier_trained.py` trains it fully and compares it with the paper's table. The
plots of the report of `tpe` go to docs/images. Arms may run in parallel, each on its own core
(`taskset -c 0`); `raw` needs the wall time of `tpe`. Arms:

- `tpe`, `bayesian` and `random`: equally many trials over projected points around Table 1 scaled by
  hand (nine modules, 28 x 28), including depth and stem;
- `plain`: `tpe` over the widths and depth of plain convolutional networks;
- `time` and `plain_time`: `tpe` within milliseconds instead of multiply-adds, per image in a batch
  of 64, over Inception networks of few layers and over plain networks (start on an idle machine);
- `raw`: KerasTuner's own RandomSearch over raw widths without projection, for as much wall time as
  `tpe` took. A proposal over the budget is rejected before training and counts as a wasted trial.

Trials are scored on held-out training images. The summary has the best accuracies, the wasted
trials, the time outside training (TensorFlow's compilation, and the search's own as a share of
training), and the number of trainings after which each arm reached the best of `random`.
"""

import argparse
import csv
import datetime
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial
from machine import device
from small_networks import lean_28, plain_28, table_28

from keras_inception import (
    Budget,
    ImageData,
    NetworkBound,
    NetworkSpec,
    Recipe,
    fit_to_budget,
    module_widths,
    network_cost,
    open_data,
    with_module_widths,
)
from tuning import (
    LatencyBudget,
    NetworkTuner,
    SearchPlan,
    Space,
    TrialResult,
    Wanted,
    best_spec,
    claim,
    hold_out,
    load_or_fit,
    measure_latency_model,
    subset,
    train_candidate,
    write_report,
)

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Arm:
    """The oracle, network and budget of an arm over projected points.

    Attributes:
        oracle: kind that proposes the points.
        base: network at the neutral point.
        kernels: sets of kernel sizes in addition to those of the base.
        milliseconds: latency budget per image, in place of multiply-adds.
    """

    oracle: str
    base: NetworkSpec
    kernels: tuple[str, ...] = ()
    milliseconds: float | None = None


MILLISECONDS, TIMED_BATCH = 0.07, 64
ARMS = {
    "tpe": Arm("tpe", table_28()),
    "bayesian": Arm("bayesian", table_28()),
    "random": Arm("random", table_28()),
    "plain": Arm("tpe", plain_28(2)),
    "time": Arm("tpe", lean_28(), kernels=("3,5",), milliseconds=MILLISECONDS),
    "plain_time": Arm("tpe", plain_28(2), milliseconds=MILLISECONDS),
}
RAW = "raw"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
PICTURES = ("progress.png", "importance.png", "stages.png")
COLUMNS = (
    *("arm", "number", "status", "accuracy", "macs", "params"),
    *("training_seconds", "evaluation_seconds", "seconds", "wall_seconds", "epochs", "widths"),
    *("device", "versions", "date"),
)
Row = dict[str, str]


RECIPE = Recipe(
    name="trial",
    epochs=1,
    batch_size=64,
    base_learning_rate=0.016,
    average="exponential",
    average_momentum=0.98,
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Data, budget, number of trials and recipe."""

    data: ImageData
    budget: Budget
    trials: int
    fraction: float
    recipe: Recipe


def setting(quick: bool) -> Setting:
    """Return the full setting, or a small one for a smoke test."""
    return Setting(
        data=open_data("sample" if quick else "tfds:fashion_mnist"),
        budget=Budget(macs=3_000_000),
        trials=2 if quick else 60,
        fraction=0.2 if quick else 0.4,
        recipe=RECIPE,
    )


class Ledger:
    """The CSV file of trainings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def rows(self) -> list[Row]:
        """All rows in the file."""
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def of(self, arm: str) -> list[Row]:
        """Return the rows of an arm; of a trial that was run twice, only the last."""
        return list({row["number"]: row for row in self.rows if row["arm"] == arm}.values())

    def add(self, **values: Any) -> None:
        """Append a row and write it to disk immediately."""
        packages = ("tensorflow-cpu", "keras", "keras-tuner", "optuna")
        about = {
            "device": device(),
            "versions": " ".join(f"{name} {version(name)}" for name in packages),
            "date": datetime.date.today().isoformat(),
        }
        new = not self.path.exists()
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(values | about)

    def add_training(
        self, spec: NetworkSpec, result: TrialResult, wall_seconds: float, **values: Any
    ) -> None:
        """Append the row of a training."""
        cost = network_cost(spec).total
        self.add(
            status="COMPLETED",
            accuracy=round(result.accuracy, 5),
            macs=cost.macs,
            params=cost.params,
            training_seconds=round(result.training_seconds, 2),
            evaluation_seconds=round(result.evaluation_seconds, 2),
            seconds=round(result.seconds, 2),
            wall_seconds=round(wall_seconds, 2),
            widths=json.dumps(module_widths(spec)),
            **values,
        )


class RecordedTuner(NetworkTuner):
    """Writes a row after each trial, with the time since the last one, suggestions included."""

    ledger: Ledger
    arm: str

    def search(self) -> bool:
        """Run the arm."""
        self._last = time.monotonic()
        return super().search()

    def _train(self, trial: Trial, spec: NetworkSpec) -> TrialResult:
        self._result = super()._train(trial, spec)
        self._spec = spec
        return self._result

    def on_trial_end(self, trial: Trial) -> None:
        """Write the row, then report to the oracle; after a kill in between, both are repeated."""
        now = time.monotonic()
        common = {"arm": self.arm, "number": int(trial.trial_id)}
        wall, self._last = now - self._last, now
        if trial.status == "COMPLETED":
            epochs = self._plan.recipe.epochs
            self.ledger.add_training(self._spec, self._result, wall, epochs=epochs, **common)
        else:
            self.ledger.add(status=trial.status, wall_seconds=round(wall, 2), **common)
        super().on_trial_end(trial)


def budget_of(arm: Arm, have: Setting, folder: Path) -> NetworkBound:
    """Return the setting's multiply-adds, or a latency budget measured on this machine."""
    if arm.milliseconds is None:
        return have.budget
    wanted = Wanted(runtime="saved_model", precision="float32", batch_size=TIMED_BATCH)
    space = Space(base=arm.base, budget=have.budget, width_divisor=4, kernels=arm.kernels)
    model = load_or_fit(
        folder / "latency.json", wanted, lambda: measure_latency_model(space, wanted)
    )
    print(f"The latency model is off by {model.error:.1%} on held-out networks.", flush=True)
    return LatencyBudget(milliseconds=arm.milliseconds, model=model)


def search_arm(name: str, have: Setting, ledger: Ledger, folder: Path, specs: Path) -> None:
    """Run or resume one arm over projected points."""
    arm = ARMS[name]
    plan = SearchPlan(
        space=Space(
            base=arm.base,
            budget=budget_of(arm, have, folder),
            width_divisor=4,
            depth=True,
            kernels=arm.kernels,
            stem=True,
        ),
        recipe=have.recipe,
        oracle=arm.oracle,
        max_trials=have.trials,
        data_fraction=have.fraction,
        finalists=0,  # `search_goal.py` has searches with finalists
    )
    claim(folder, plan.identity(have.data))
    tuner = RecordedTuner(plan, have.data, folder)
    tuner.ledger, tuner.arm = ledger, name
    tuner.search()
    if (found := best_spec(folder)) is not None:
        specs.mkdir(exist_ok=True)
        (specs / f"search_{name}.json").write_text(found.to_json(), encoding="utf-8")


def show(folder: Path) -> None:
    """Write the report of the search and copy its plots to docs/images."""
    write_report(folder)
    for name in PICTURES:
        shutil.copy(folder / name, IMAGES / f"search_{name}")


def trial_data(have: Setting) -> ImageData:
    """Return the training and held-out images of a trial, the same in all arms."""
    return subset(hold_out(have.data, 1 / 6, 1), have.fraction, 1)


class RawTuner(BaseTuner):
    """KerasTuner's unmodified loop over raw widths; a network over the budget is a failed trial."""

    def __init__(self, have: Setting, ledger: Ledger, seconds: float, folder: Path) -> None:
        self._have = have
        self._ledger = ledger
        self._base = fit_to_budget(table_28(), have.budget, width_divisor=4, scale_stem=True)
        self._data = trial_data(have)
        self._left = seconds - sum(float(row["wall_seconds"]) for row in ledger.of(RAW))
        space = keras_tuner.HyperParameters()
        for name, width in module_widths(self._base).items():
            space.Int(name, 4, 2 * width, step=4)  # on average about the hand-scaled width
        oracle = keras_tuner.oracles.RandomSearchOracle(
            objective=keras_tuner.Objective("val_accuracy", "max"),
            max_trials=10**6,
            hyperparameters=space,
            seed=1,
            max_consecutive_failed_trials=10**6,
        )
        super().__init__(oracle=oracle, directory=str(folder.parent), project_name=folder.name)
        oracle.verbose = 0
        self._last = time.monotonic()

    def run_trial(self, trial: Trial, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """Train, or raise FailedTrialError if the network is over the budget."""
        spec = with_module_widths(self._base, trial.hyperparameters.values)
        self._row = {"arm": RAW, "number": int(trial.trial_id)}
        cost = network_cost(spec).total
        if not self._have.budget.holds(cost):
            self._result = None
            self._row |= {"status": "over budget", "macs": cost.macs, "params": cost.params}
            raise keras_tuner.errors.FailedTrialError("over budget")
        recipe = self._have.recipe
        self._result = train_candidate(spec, self._data, recipe, epochs=recipe.epochs)
        self._spec = spec
        return {"val_accuracy": self._result.accuracy}

    def on_trial_end(self, trial: Trial) -> None:
        """Write the row; stop when the time is used up."""
        super().on_trial_end(trial)
        now = time.monotonic()
        wall, self._last = now - self._last, now
        self._left -= wall
        if self._result is None:
            self._ledger.add(wall_seconds=round(wall, 3), **self._row)
        else:
            epochs = self._have.recipe.epochs
            self._ledger.add_training(self._spec, self._result, wall, epochs=epochs, **self._row)
        if self._left <= 0:
            self.oracle.max_trials = len(self.oracle.trials)


def summarize(ledger: Ledger, path: Path) -> None:
    """Print and write the summary."""
    rows = []
    searches = {arm: ledger.of(arm) for arm in (*ARMS, RAW)}
    goal = max(accuracies(searches["random"]), default=None)
    for arm, trials in searches.items():
        if not trials:
            continue
        done = [row for row in trials if row["status"] == "COMPLETED"]
        training = sum(float(row["training_seconds"]) for row in done)
        evaluation = sum(float(row["evaluation_seconds"]) for row in done)
        wall = sum(float(row["wall_seconds"]) for row in trials)
        row = {
            "arm": arm,
            "trials": len(trials),
            "trainings": len(done),
            "wasted_share": round(1 - len(done) / len(trials), 4),
            "best_accuracy": max(accuracies(trials), default=""),
            "wall_seconds": round(wall),
            "training_seconds": round(training),
        }
        if arm == RAW or ARMS[arm].milliseconds is None:  # the same budget as `random`
            row["trainings_to_best_of_random"] = trials_to(accuracies(trials), goal)
        if arm in ARMS:  # KerasTuner's own loop does not report the duration of a trial
            in_trials = sum(float(row["seconds"]) for row in done)
            compiling = in_trials - training - evaluation
            row["compiling_seconds_a_trial"] = round(compiling / len(done), 1)
            row["search_overhead"] = round((wall - in_trials) / training, 4)
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))


def accuracies(rows: Sequence[Row]) -> list[float]:
    """Return the accuracies of the completed trainings, in order."""
    return [float(row["accuracy"]) for row in rows if row["accuracy"]]


def trials_to(values: Sequence[float], goal: float | None) -> int | str:
    """Return how many trainings it took to reach an accuracy; "" if none reached it."""
    reached = [index for index, value in enumerate(values, 1) if goal is not None and value >= goal]
    return reached[0] if reached else ""


def main() -> None:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=("search", "summary", "all"), default="all")
    parser.add_argument("--arms", nargs="+", choices=(*ARMS, RAW), default=[*ARMS, RAW])
    parser.add_argument("--quick", action="store_true", help="use the sample and few trials")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("saved_models/benchmark-search"),
        help="folder of the searches",
    )
    arguments = parser.parse_args()
    results = arguments.folder if arguments.quick else RESULTS
    ledger = Ledger(results / "search_trials.csv")
    have = setting(arguments.quick)
    if arguments.part in ("search", "all"):
        for arm in (arm for arm in arguments.arms if arm != RAW):
            search_arm(arm, have, ledger, arguments.folder / arm, results / "specs")
        if RAW in arguments.arms:
            seconds = sum(float(row["wall_seconds"]) for row in ledger.of("tpe"))
            RawTuner(have, ledger, seconds, arguments.folder / RAW).search()
    if arguments.part in ("summary", "all"):
        summarize(ledger, results / "search.csv")
        if not arguments.quick:
            show(arguments.folder / "tpe")


if __name__ == "__main__":
    main()
