"""At equal accuracy, trained here: networks of many families on Fashion-MNIST in full, one recipe.

    TFDS_DATA_DIR=... python benchmarks/frontier_trained.py train     # hours; goes on where it was
    python benchmarks/frontier_trained.py latency                     # on a quiet machine
    python benchmarks/frontier_trained.py report                      # the picture and the tables

`train` may run more than once at a time, each on a core of its own (`taskset -c 0 ... train 1/2`).

Families, each fitted to every budget of multiply-adds: the paper's table scaled by hand, with
reduced and with naive modules; this package's small networks (fewer and wider modules); plain
convolutional networks, ResNets and MobileNetV2s; and the specs that lie in benchmarks/results/specs
(`search_*.json` by `search.py`, `design.json` by the correlation statistics).
Each training is one row of results/frontier_trained.csv, written when it ends; several seeds of
each network. Keras's own `fit` trains all of them, since not all are specs.

The report: results/frontier_families.csv (accuracy and costs of every network),
results/frontier_ratios.csv and docs/images/frontier.png. A ratio compares the searched network's
family with another at the highest accuracy that both reach, each interpolated between its networks
evenly in the logarithm of the cost; its interval is that of 90% of the draws in which the seeds of
each network are drawn anew.
"""

import csv
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import small_networks
import tensorflow as tf
from machine import device
from matplotlib.figure import Figure

from keras_inception import (
    VARIANTS,
    Budget,
    NetworkSpec,
    Recipe,
    build_network,
    fit_to_budget,
    model_cost,
)
from keras_inception.data import evaluation_batches, open_data, training_batches
from keras_inception.export import folded
from keras_inception.export.saved_model import constant_function
from keras_inception.keras_fit import compile_model

RESULTS = Path(__file__).parent / "results"
TRAINED, LATENCY = RESULTS / "frontier_trained.csv", RESULTS / "frontier_latency.csv"
FAMILIES, RATIOS = RESULTS / "frontier_families.csv", RESULTS / "frontier_ratios.csv"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "frontier.png"
BUDGETS = (1_500_000, 3_000_000, 6_000_000)
# Families that need more multiply-adds to reach the others get a larger size too.
LARGE, LARGE_FAMILIES = 12_000_000, ("table by hand", "plain, deep")
SEEDS = 3
# The pair that answers what the search is worth has more seeds.
MORE_SEEDS = {"table by hand 3M": 5, "search_tpe 3M": 5}
RIVALS = {"ResNet": ("resnet", 1), "MobileNetV2": ("mobilenet", 2)}
RECIPE = Recipe(
    name="frontier", epochs=4, batch_size=128, base_learning_rate=0.008, label_smoothing=0.1
)
COLUMNS = ("family", "network", "macs", "params", "seed", "epochs", "accuracy", "seconds")
LATENCY_ROUNDS, WARM_UP = 60, 10
OWN = "search_tpe"
DRAWS = 2000
Build = Callable[[], keras.Model]


class Network(NamedTuple):
    """One size of a family."""

    family: str
    name: str
    build: Build


def specs() -> dict[str, NetworkSpec]:
    """The families that are specs, by name; each is fitted to every budget."""
    found = {
        "table by hand": small_networks.table_28(),
        "naive": small_networks.naive_28(),
        "few wide modules": VARIANTS["small"],
        "plain, shallow": small_networks.plain_28(1),
        "plain, deep": small_networks.plain_28(2),
    }
    for path in sorted((RESULTS / "specs").glob("*.json")):
        found[path.stem] = NetworkSpec.from_json(path.read_text(encoding="utf-8"))
    return found


def networks() -> Iterator[Network]:
    """Every network of the comparison, the cheap ones first."""
    for macs in (*BUDGETS, LARGE):
        label = f"{macs / 1e6:g}M"
        for family, spec in specs().items():
            if macs == LARGE and family not in LARGE_FAMILIES:
                continue
            try:
                fitted = fit_to_budget(spec, Budget(macs=macs), step=4, scale_stem=True)
            except ValueError:  # its smallest form costs more
                continue
            yield Network(family, f"{family} {label}", lambda s=fitted: build_network(s))
        for family, (kind, depth) in RIVALS.items() if macs != LARGE else ():
            yield Network(
                family,
                f"{family} {label}",
                lambda k=kind, d=depth, m=macs: small_networks.fitted_rival(k, d, m),
            )


def train(share: str = "1/1", *names: str) -> None:
    """Train what has no row yet, one seed of all networks before the next seed.

    Args:
        share: "1/2" and "2/2" for two processes that share the work.
        names: of networks; none: all.
    """
    own, shares = map(int, share.split("/"))
    data, shape = open_data("tfds:fashion_mnist"), VARIANTS["small"]
    done = {(row["network"], row["seed"]) for row in rows_of(TRAINED)}
    steps = len(data.train) // RECIPE.batch_size
    about = (device(), tf.__version__)
    chosen = [network for network in networks() if not names or network.name in names]
    seeds = range(max(SEEDS, *MORE_SEEDS.values()))
    wanted = [(s, n) for s in seeds for n in chosen if s < MORE_SEEDS.get(n.name, SEEDS)]
    for seed, network in wanted[own - 1 :: shares]:
        if (network.name, str(seed)) in done:
            continue
        keras.utils.set_random_seed(seed)
        model, started = network.build(), time.monotonic()
        seeded = replace(RECIPE, seed=seed)
        compile_model(model, seeded, total_steps=steps * RECIPE.epochs)
        model.fit(
            training_batches(data.train, shape, seeded),
            epochs=RECIPE.epochs,
            steps_per_epoch=steps,
            verbose=0,
        )
        held_out = evaluation_batches(data.test, shape, 500)
        _, accuracy = model.evaluate(held_out, verbose=0)
        cost = (model_cost(model).macs, sum(math.prod(w.shape) for w in model.trainable_weights))
        seconds = f"{time.monotonic() - started:.0f}"
        row = (network.family, network.name, *cost, seed, RECIPE.epochs, f"{accuracy:.4f}", seconds)
        append(TRAINED, (*COLUMNS, "device", "tensorflow", "date"), (*row, *about, date.today()))
        print(
            f"seed {seed}, {network.name}: {accuracy:.2%}, {cost[0]:,} MACs, {seconds} s",
            flush=True,
        )


def append(path: Path, columns: tuple[str, ...], row: tuple[object, ...]) -> None:
    """One more row, flushed; the columns first in a new file."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, row] if new else [row])


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a table, none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def latency() -> None:
    """Milliseconds of a batch of 1 and of 64, all networks in turn, folded, by TensorFlow."""
    names = {row["network"] for row in rows_of(TRAINED)}
    chosen = [network for network in networks() if network.name in names]
    functions = {n.name: constant_function(folded(n.build())) for n in chosen}
    about = (device(), tf.__version__, date.today())
    LATENCY.unlink(missing_ok=True)
    for batch in (1, 64):
        pixels = tf.constant(
            np.random.default_rng(0).uniform(-1, 1, (batch, 28, 28, 1)), tf.float32
        )
        times: dict[str, list[float]] = {name: [] for name in functions}
        for turn in range(WARM_UP + LATENCY_ROUNDS):
            for name, function in functions.items():
                started = time.perf_counter()
                function(pixels).numpy()
                if turn >= WARM_UP:
                    times[name].append((time.perf_counter() - started) * 1e3)
        for name, taken in times.items():
            columns = ("network", "batch", "milliseconds", "device", "tensorflow", "date")
            append(LATENCY, columns, (name, batch, f"{statistics.median(taken):.3f}", *about))


class Point(NamedTuple):
    """A network: its accuracies seed by seed, and what it costs."""

    family: str
    network: str
    accuracies: tuple[float, ...]
    macs: float
    params: int
    milliseconds: dict[int, float]

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return statistics.mean(self.accuracies)

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds; 0 of one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


COSTS: dict[str, Callable[[Point], float]] = {
    "multiply-adds": lambda point: point.macs,
    "milliseconds, batch 1": lambda point: point.milliseconds[1],
    "milliseconds, batch 64": lambda point: point.milliseconds[64],
}


def points() -> list[Point]:
    """A point for each network that was trained and timed."""
    trained: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(TRAINED):
        trained.setdefault(row["network"], []).append(row)
    times: dict[str, dict[int, float]] = {}
    for row in rows_of(LATENCY):
        times.setdefault(row["network"], {})[int(row["batch"])] = float(row["milliseconds"])
    return [
        Point(
            rows[0]["family"],
            name,
            tuple(float(row["accuracy"]) for row in rows),
            float(rows[0]["macs"]),
            int(rows[0]["params"]),
            times[name],
        )
        for name, rows in trained.items()
        if name in times
    ]


def frontier(costs: Sequence[float], accuracies: Sequence[float]) -> list[tuple[float, float]]:
    """(accuracy, cost) of what no cheaper one equals, cheapest first."""
    found: list[tuple[float, float]] = []
    for cost, accuracy in sorted(zip(costs, accuracies, strict=True)):
        if not found or accuracy > found[-1][0]:
            found.append((accuracy, cost))
    return found


def ratio(own: list[tuple[float, float]], other: list[tuple[float, float]]) -> float:
    """How many times less the own family costs at the highest accuracy that both reach."""
    accuracy = min(own[-1][0], other[-1][0])
    logs = [
        np.interp(accuracy, [a for a, _ in family], [math.log(cost) for _, cost in family])
        for family in (own, other)
    ]
    return math.exp(logs[1] - logs[0])


def interval(
    own: list[Point], other: list[Point], cost: Callable[[Point], float]
) -> tuple[float, float, float]:
    """The ratio, and its 5% and 95% over draws of the seeds with replacement."""
    random = np.random.default_rng(0)

    def drawn(family: list[Point], resample: bool) -> list[tuple[float, float]]:
        means = [
            random.choice(point.accuracies, len(point.accuracies)).mean()
            if resample
            else point.accuracy
            for point in family
        ]
        return frontier([cost(point) for point in family], means)

    draws = [ratio(drawn(own, True), drawn(other, True)) for _ in range(DRAWS)]
    low, high = np.quantile(draws, (0.05, 0.95))
    return ratio(drawn(own, False), drawn(other, False)), float(low), float(high)


def report() -> None:
    """The tables and the picture."""
    found = points()
    families = {
        name: [point for point in found if point.family == name]
        for name in dict.fromkeys(point.family for point in found)
    }
    write_families(found)
    write_ratios(families)
    draw(families)


def write_families(found: list[Point]) -> None:
    """A row for each network."""
    FAMILIES.unlink(missing_ok=True)
    columns = ("network", "macs", "params", "seeds", "accuracy", "deviation", "ms_1", "ms_64")
    for point in sorted(found, key=lambda point: (point.family, point.macs)):
        times = tuple(f"{point.milliseconds[batch]:.3f}" for batch in (1, 64))
        mean = (len(point.accuracies), f"{point.accuracy:.4f}", f"{point.deviation:.4f}")
        append(FAMILIES, columns, (point.network, int(point.macs), point.params, *mean, *times))


def write_ratios(families: dict[str, list[Point]]) -> None:
    """How many times less the searched family costs than each other, and than all plain ones."""
    RATIOS.unlink(missing_ok=True)
    others = {name: family for name, family in families.items() if name != OWN}
    others["any plain one"] = [p for name, f in others.items() if "plain" in name for p in f]
    for name, family in others.items():
        for label, cost in COSTS.items():
            middle, low, high = interval(families[OWN], family, cost)
            row = (name, label, f"{middle:.2f}", f"{low:.2f}", f"{high:.2f}")
            append(RATIOS, ("than", "in", "times_less", "from", "to"), row)


def draw(families: dict[str, list[Point]]) -> None:
    """Accuracy against each cost; a family as a line."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    axes = figure.subplots(1, len(COSTS), sharey=True)
    for axis, (label, cost) in zip(axes, COSTS.items(), strict=True):
        for index, (name, family) in enumerate(families.items()):
            ordered = sorted(family, key=cost)
            axis.errorbar(
                [cost(point) for point in ordered],
                [point.accuracy for point in ordered],
                [point.deviation for point in ordered],
                fmt="o-",
                color=f"C{index}",
                linewidth=3 if name == OWN else 1,
                label=name,
            )
        axis.set(xscale="log", xlabel=label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy on Fashion-MNIST's test set")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(PICTURE, dpi=80)


if __name__ == "__main__":
    {"train": train, "latency": latency, "report": report}[sys.argv[1]](*sys.argv[2:])
