"""At equal accuracy, how many times fewer multiply-adds and how many times faster?

    python benchmarks/frontier.py

ImageNet's scale: the accuracies are published, all by torchvision and by its first recipe
(https://docs.pytorch.org/vision/stable/models.html: the weights IMAGENET1K_V1); multiply-adds are
counted by `model_cost`; latency is measured here, every network folded for inference and run by
TensorFlow and by OpenVINO in float32 in turns, batch 1 and 16, medians. Writes
benchmarks/results/frontier_imagenet.csv and prints GoogLeNet beside a plain network of its
accuracy: VGG's, between the two nearest. Run it on a quiet machine: twelve minutes on two cores.
"""

import csv
import itertools
import math
import os
import platform
import statistics
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

from keras_inception import model_cost
from keras_inception.export import folded
from keras_inception.export.saved_model import constant_function

RESULTS = Path(__file__).parent / "results" / "frontier_imagenet.csv"
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


def runs_of(model: keras.Model) -> dict[str, Run]:
    """The folded network in each runtime."""
    function = constant_function(folded(model))
    compiled = openvino.Core().compile_model(
        openvino.convert_model(function.get_concrete_function()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    return {
        "TensorFlow": lambda pixels: function(tf.constant(pixels)).numpy(),
        "OpenVINO": lambda pixels: compiled(pixels)[0],
    }


def measured() -> list[Row]:
    """All networks, one call of each in turn."""
    counts, runs = {}, {}
    for name in TOP_1:
        model = rivals.network(name)
        params = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        if params != rivals.TRAINABLE[name]:
            raise ValueError(f"Expected torchvision's {name}. Received: {params} parameters")
        counts[name] = (model_cost(model).macs, params)
        runs |= {(name, runtime): run for runtime, run in runs_of(model).items()}
        print(f"{name}: {counts[name][0]:,} multiply-adds", flush=True)
    random = np.random.default_rng(0)
    rows = []
    for batch in BATCHES:
        pixels = random.uniform(-1, 1, (batch, 224, 224, 3)).astype(np.float32)
        times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
        for turn in range(WARM_UP + ROUNDS):
            for key, run in runs.items():
                started = time.perf_counter()
                run(pixels)
                if turn >= WARM_UP:
                    times[key].append((time.perf_counter() - started) * 1e3 / batch)
            print(f"batch {batch}: round {turn + 1} of {WARM_UP + ROUNDS}", flush=True)
        rows += [
            Row(name, TOP_1[name], *counts[name], runtime, batch, statistics.median(taken))
            for (name, runtime), taken in times.items()
        ]
    return rows


def plain_at(accuracy: float, points: list[tuple[float, float]]) -> float:
    """The cost of a plain network of an accuracy: between neighbours, evenly in the logarithm."""
    (left, low), (right, high) = next(
        (a, b) for a, b in itertools.pairwise(points) if a[0] <= accuracy <= b[0]
    )
    share = (accuracy - left) / (right - left)
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def report(rows: list[Row]) -> None:
    """GoogLeNet beside VGG at its accuracy, and beside every other network."""
    for runtime, batch in sorted({(row.runtime, row.batch) for row in rows}):
        chosen = {row.network: row for row in rows if (row.runtime, row.batch) == (runtime, batch)}
        own = chosen["GoogLeNet"]
        plain = [chosen[name] for name in ("VGG-11", "VGG-13", "VGG-16")]
        macs = plain_at(own.top_1, [(row.top_1, row.macs) for row in plain])
        milliseconds = plain_at(own.top_1, [(row.top_1, row.ms_an_image) for row in plain])
        fewer, faster = macs / own.macs, milliseconds / own.ms_an_image
        print(
            f"{runtime}, batch {batch}: a VGG of GoogLeNet's accuracy has {fewer:.1f}x its "
            f"multiply-adds and takes {faster:.1f}x its time"
        )
        for row in sorted(chosen.values(), key=lambda row: row.top_1):
            print(
                f"  {row.network:<12} {row.top_1:.2f}%  {row.macs / own.macs:5.2f}x MACs  "
                f"{row.ms_an_image / own.ms_an_image:5.2f}x time ({row.ms_an_image:.1f} ms)"
            )


def main() -> None:
    """Measure, write, report."""
    rows = measured()
    device = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    about = (ROUNDS, device, tf.__version__, openvino.__version__, date.today().isoformat())
    with RESULTS.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow((*Row._fields, "rounds", "device", "tensorflow", "openvino", "date"))
        for row in rows:
            table.writerow((*row[:-1], f"{row.ms_an_image:.2f}", *about))
    report(rows)


if __name__ == "__main__":
    main()
