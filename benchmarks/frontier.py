"""Multiply-adds and latency of GoogLeNet and other networks at equal accuracy on ImageNet.

    python benchmarks/frontier.py            # on an idle machine: ten minutes on two cores
    python benchmarks/frontier.py report     # only rewrite the tables and the plot

Accuracies are those that torchvision publishes for its IMAGENET1K_V1 weights, which share one
recipe (https://docs.pytorch.org/vision/stable/models.html). `model_cost` counts multiply-adds.
Latency is measured here: every network is folded for inference and runs in TensorFlow and in
OpenVINO in float32, at batch 1 and 16. Each network alternates with GoogLeNet call by call, so
`times_googlenet` is a ratio of medians measured at the same time. After folding, a VGG with batch
normalization is the same network as the one without; each pair is timed once.

Writes results/frontier_imagenet.csv, results/frontier_headline.csv (GoogLeNet compared with a VGG
of its accuracy, interpolated between the two nearest) and docs/images/frontier_imagenet.png.
"""

import csv
import gc
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import openvino
import rivals
import tensorflow as tf
from machine import device
from matplotlib.figure import Figure
from pictures import cost_axis

from keras_inception import constant_function, fold_batch_norm, model_cost

RESULTS = Path(__file__).parent / "results" / "frontier_imagenet.csv"
HEADLINE = RESULTS.with_name("frontier_headline.csv")
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "frontier_imagenet.png"
# Top-1 of torchvision's IMAGENET1K_V1 weights, percent.
TOP_1 = {
    "AlexNet": 56.522,
    "VGG-11": 69.020,
    "VGG-11 BN": 70.370,
    "VGG-13": 69.928,
    "VGG-13 BN": 71.586,
    "VGG-16": 71.592,
    "VGG-16 BN": 73.360,
    "ResNet-18": 69.758,
    "MobileNetV2": 71.878,
    "GoogLeNet": 69.778,
}
OWN = "GoogLeNet"
BATCHES = (1, 16)
ROUNDS, WARM_UP = 9, 2
Run = Callable[[np.ndarray], Any]


class Row(NamedTuple):
    """One network in one runtime at one batch size."""

    network: str
    top_1: float
    macs: int
    params: int
    runtime: str
    batch: int
    ms_an_image: float
    times_googlenet: float


def folded_name(name: str) -> str:
    """Return the name of the network after its batch normalization is folded."""
    return name.removesuffix(" BN")


def runs_of(model: keras.Model) -> dict[str, Run]:
    """Return the folded network as a function in each runtime."""
    function = constant_function(fold_batch_norm(model))
    compiled = openvino.Core().compile_model(
        openvino.convert_model(function.get_concrete_function()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    return {
        "TensorFlow": lambda pixels: function(tf.constant(pixels)).numpy(),
        "OpenVINO": lambda pixels: compiled(pixels)[0],
    }


def counted(name: str) -> tuple[keras.Model, tuple[int, int]]:
    """Build a network; return it with its multiply-adds and parameters.

    Raises:
        ValueError: if the parameters differ from those that torchvision publishes.
    """
    model = rivals.network(name)
    params = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    if params != rivals.TRAINABLE[name]:
        expected = rivals.TRAINABLE[name]
        raise ValueError(f"Expected {expected} parameters in {name}. Received: {params}")
    return model, (model_cost(model).macs, params)


def measured() -> list[Row]:
    """Measure all networks, each alternating with GoogLeNet."""
    own_model, own_counts = counted(OWN)
    own = runs_of(own_model)
    times: dict[tuple[str, str, int], tuple[float, float]] = {}
    counts = {OWN: own_counts}
    for name in TOP_1:
        if name == OWN:
            continue
        model, counts[name] = counted(name)
        print(f"{name}: {counts[name][0]:,} multiply-adds", flush=True)
        if folded_name(name) == name:
            for (runtime, batch), pair in in_turns(runs_of(model), own).items():
                times[name, runtime, batch] = pair
                print(f"  {runtime}, batch {batch}: {pair[0] / pair[1]:.2f}x", flush=True)
        del model
        keras.backend.clear_session()
        gc.collect()
    rows = [
        Row(name, TOP_1[name], *counts[name], runtime, batch, rival, rival / googlenet)
        for name in counts
        for (timed, runtime, batch), (rival, googlenet) in times.items()
        if timed == folded_name(name)
    ]
    for runtime, batch in dict.fromkeys((runtime, batch) for _, runtime, batch in times):
        each = [pair[1] for key, pair in times.items() if key[1:] == (runtime, batch)]
        rows.append(Row(OWN, TOP_1[OWN], *own_counts, runtime, batch, statistics.median(each), 1.0))
    return rows


def in_turns(
    rival: dict[str, Run], own: dict[str, Run]
) -> dict[tuple[str, int], tuple[float, float]]:
    """Return median milliseconds per image of a rival and of GoogLeNet, by runtime and batch."""
    random = np.random.default_rng(0)
    medians = {}
    for batch, (runtime, run) in itertools.product(BATCHES, rival.items()):
        pixels = random.uniform(-1, 1, (batch, 224, 224, 3)).astype(np.float32)
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(WARM_UP + ROUNDS):
            for taken, call in zip(times, (run, own[runtime]), strict=True):
                started = time.perf_counter()
                call(pixels)
                if turn >= WARM_UP:
                    taken.append((time.perf_counter() - started) * 1e3 / batch)
        medians[runtime, batch] = (statistics.median(times[0]), statistics.median(times[1]))
    return medians


def plain_at(accuracy: float, points: list[tuple[float, float]]) -> float:
    """Return a plain network's cost at an accuracy, log-interpolated between its neighbours."""
    (left, low), (right, high) = next(
        (a, b) for a, b in itertools.pairwise(points) if a[0] <= accuracy <= b[0]
    )
    share = (accuracy - left) / (right - left)
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def report(rows: list[Row]) -> None:
    """Write the comparison with a VGG of equal accuracy, and plot all networks."""
    with HEADLINE.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("runtime", "batch", "times_fewer_macs", "times_faster"))
        for runtime, batch in dict.fromkeys((row.runtime, row.batch) for row in rows):
            same = {r.network: r for r in rows if (r.runtime, r.batch) == (runtime, batch)}
            own = same[OWN]
            plain = [same[name] for name in ("VGG-11", "VGG-13", "VGG-16")]
            macs = plain_at(own.top_1, [(row.top_1, row.macs) for row in plain])
            time_ratio = plain_at(own.top_1, [(row.top_1, row.times_googlenet) for row in plain])
            table.writerow((runtime, batch, f"{macs / own.macs:.2f}", f"{time_ratio:.2f}"))
    draw(rows)


def draw(rows: list[Row]) -> None:
    """Plot accuracy against multiply-adds, and against TensorFlow latency at both batch sizes."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    axes = figure.subplots(1, 1 + len(BATCHES), sharey=True)
    times = [[r for r in rows if (r.runtime, r.batch) == ("TensorFlow", b)] for b in BATCHES]
    panels = [("multiply-adds", times[0], [float(row.macs) for row in times[0]])]
    panels += [
        (f"ms per image, batch {batch}", found, [row.ms_an_image for row in found])
        for batch, found in zip(BATCHES, times, strict=True)
    ]
    for axis, (label, found, costs) in zip(axes, panels, strict=True):
        for marker, row, cost in zip("oP*<v^sDXh", found, costs, strict=True):
            size = 11 if row.network == OWN else 8
            axis.plot(cost, row.top_1, marker, markersize=size, alpha=0.8, label=row.network)
        cost_axis(axis, label)
    axes[0].set_ylabel("top-1 on ImageNet, %, as published by torchvision")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(PICTURE, dpi=80)


def read_rows() -> list[Row]:
    """Read the measured rows."""
    with RESULTS.open(newline="") as file:
        return [
            Row(
                network=row["network"],
                top_1=float(row["top_1"]),
                macs=int(row["macs"]),
                params=int(row["params"]),
                runtime=row["runtime"],
                batch=int(row["batch"]),
                ms_an_image=float(row["ms_an_image"]),
                times_googlenet=float(row["times_googlenet"]),
            )
            for row in csv.DictReader(file)
        ]


def write(rows: list[Row]) -> None:
    """Write the CSV."""
    about = (ROUNDS, device(), tf.__version__, openvino.__version__, date.today().isoformat())
    with RESULTS.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow((*Row._fields, "rounds", "device", "tensorflow", "openvino", "date"))
        for row in rows:
            times = (f"{row.ms_an_image:.2f}", f"{row.times_googlenet:.3f}")
            table.writerow((*row[:-2], *times, *about))


if __name__ == "__main__":
    if sys.argv[1:] != ["report"]:
        write(measured())
    report(read_rows())
