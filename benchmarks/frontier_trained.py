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
"""

import csv
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import small_networks
import tensorflow as tf

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
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "frontier.png"
BUDGETS = (1_500_000, 3_000_000, 6_000_000, 12_000_000)
SEEDS = (0, 1, 2)
RIVALS = {"ResNet": ("resnet", 1), "MobileNetV2": ("mobilenet", 2)}
RECIPE = Recipe(
    name="frontier", epochs=6, batch_size=128, base_learning_rate=0.008, label_smoothing=0.1
)
COLUMNS = ("family", "network", "macs", "params", "seed", "epochs", "accuracy", "seconds")
LATENCY_ROUNDS, WARM_UP = 60, 10
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
    for macs in BUDGETS:
        label = f"{macs / 1e6:g}M"
        for family, spec in specs().items():
            try:
                fitted = fit_to_budget(spec, Budget(macs=macs), step=4, scale_stem=True)
            except ValueError:  # its smallest form costs more
                continue
            yield Network(family, f"{family} {label}", lambda s=fitted: build_network(s))
        for family, (kind, depth) in RIVALS.items():
            yield Network(
                family,
                f"{family} {label}",
                lambda k=kind, d=depth, m=macs: small_networks.fitted_rival(k, d, m),
            )


def train(share: str = "1/1", recipe: Recipe = RECIPE, seeds: tuple[int, ...] = SEEDS) -> None:
    """Train what has no row yet, one seed of all networks before the next seed.

    Args:
        share: "1/2" and "2/2" for two processes that share the work.
    """
    own, shares = map(int, share.split("/"))
    data, shape = open_data("tfds:fashion_mnist"), VARIANTS["small"]
    done = {(row["network"], row["seed"]) for row in rows_of(TRAINED)}
    steps = len(data.train) // recipe.batch_size
    about = (f"{platform.machine()}, {os.cpu_count()} cores", tf.__version__)
    wanted = [(seed, network) for seed in seeds for network in networks()]
    for seed, network in wanted[own - 1 :: shares]:
        if (network.name, str(seed)) in done:
            continue
        keras.utils.set_random_seed(seed)
        model, started = network.build(), time.monotonic()
        seeded = replace(recipe, seed=seed)
        compile_model(model, seeded, total_steps=steps * recipe.epochs)
        model.fit(
            training_batches(data.train, shape, seeded),
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            verbose=0,
        )
        held_out = evaluation_batches(data.test, shape, 500)
        _, accuracy = model.evaluate(held_out, verbose=0)
        cost = (model_cost(model).macs, sum(math.prod(w.shape) for w in model.trainable_weights))
        seconds = f"{time.monotonic() - started:.0f}"
        row = (network.family, network.name, *cost, seed, recipe.epochs, f"{accuracy:.4f}", seconds)
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
    about = (f"{platform.machine()}, {os.cpu_count()} cores", tf.__version__, date.today())
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
    """A network's mean accuracy and its spread over the seeds, and what it costs."""

    family: str
    network: str
    accuracy: float
    deviation: float
    seeds: int
    macs: float
    milliseconds: dict[int, float]


def points() -> list[Point]:
    """A point for each network."""
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
            statistics.mean(float(row["accuracy"]) for row in rows),
            statistics.stdev(float(row["accuracy"]) for row in rows) if len(rows) > 1 else 0.0,
            len(rows),
            float(rows[0]["macs"]),
            times.get(name, {}),
        )
        for name, rows in trained.items()
    ]


def report() -> None:
    """The picture: accuracy against multiply-adds and latency; the best of a family as a line."""
    import matplotlib.pyplot as plt

    found = points()
    figure, axes = plt.subplots(1, 3, figsize=(15, 5), sharey=True)
    costs: list[tuple[str, Callable[[Point], float | None]]] = [
        ("multiply-adds", lambda point: point.macs),
        ("milliseconds, batch 1", lambda point: point.milliseconds.get(1)),
        ("milliseconds, batch 64", lambda point: point.milliseconds.get(64)),
    ]
    for index, family in enumerate(dict.fromkeys(point.family for point in found)):
        own = [point for point in found if point.family == family]
        for axis, (label, cost) in zip(axes, costs, strict=True):
            known = sorted((cost(p), p.accuracy, p.deviation) for p in own if cost(p) is not None)
            if known:
                xs, ys, errors = zip(*known, strict=True)
                axis.errorbar(xs, ys, errors, fmt="o", color=f"C{index}", markersize=4, alpha=0.5)
                best = [k for i, k in enumerate(known) if k[1] >= max(y[1] for y in known[: i + 1])]
                axis.plot(
                    [b[0] for b in best], [b[1] for b in best], color=f"C{index}", label=family
                )
            axis.set(xscale="log", xlabel=label)
    axes[0].set_ylabel("accuracy on Fashion-MNIST's test set")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=100)


if __name__ == "__main__":
    {"train": train, "latency": latency, "report": report}[sys.argv[1]](*sys.argv[2:])
