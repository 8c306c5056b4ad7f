"""Training throughput beside torchvision's googlenet, and the first epochs of `small`.

    OMP_NUM_THREADS=2 python benchmarks/training_throughput.py

1. Images per second at 224 x 224: batches of 16 random images, SGD with momentum, without auxiliary
   classifiers, two threads. `bn` runs in float32 and mixed_bfloat16 with this package's training
   step; torchvision's network runs eagerly, channels last, in float32 and under bfloat16 autocast,
   on the same cores. The four take turns step by step, so that background load affects all of them
   alike. torchvision's network has 5% fewer multiply-adds (3x3 in place of 5x5). Needs torch and
   torchvision. Writes benchmarks/results/training_throughput.csv.
2. `small` with the recipe `modern` on the bundled sample, by `keras-inception train` and by plain
   Keras (first_epochs.py): seconds from the start of the process to the end of the first step, and
   of the second epoch with its evaluation, run by run in turns. Writes
   benchmarks/results/training_small.csv.

On a machine that runs other programs only the processor time can be compared (median, all threads);
`load` is the mean number of running processes. `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` before the
command gives all of them large pages.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torchvision_steps import googlenet_steps  # imports torch, which must be before TensorFlow

# isort: split
import keras
import numpy as np
import tensorflow as tf
from first_epochs import STARTED
from machine import device

from keras_inception import VARIANTS, Recipe, make_trainer

RESULTS = Path(__file__).parent / "results"
BATCH_SIZE, WARM_UP = 16, 2
THREADS = 2
TORCHVISION = "torchvision googlenet, float32"
TRAIN = (
    *("train", "--variant", "small", "--epochs", "3", "--data", "sample", "--recipe", "modern"),
    *("--callback", "first_epochs:FirstEpochs", "--out", "run"),
)

Row = dict[str, Any]


def own_step(precision: str) -> Callable[[], object]:
    """Return this package's training step."""
    recipe = Recipe(
        name=precision, epochs=1, batch_size=BATCH_SIZE, optimizer="sgd", precision=precision
    )
    trainer = make_trainer(replace(VARIANTS["bn"], aux=()), recipe, total_steps=1000)
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, (BATCH_SIZE, 224, 224, 3)).astype("float32")
    batch = (tf.constant(images), tf.constant(random.integers(0, 1000, BATCH_SIZE, np.int32)))
    return lambda: trainer.step(batch)


def torchvision_step(*, bfloat16: bool) -> Callable[[], object]:
    """Return a training step of torchvision's network."""
    steps = googlenet_steps(BATCH_SIZE, bfloat16=bfloat16)
    return lambda: steps(1)


def throughput(rounds: int) -> list[Row]:
    """Take steps of each network in turns."""
    steps = {
        "keras-inception bn, float32": own_step("float32"),
        "keras-inception bn, mixed_bfloat16": own_step("mixed_bfloat16"),
        TORCHVISION: torchvision_step(bfloat16=False),
        "torchvision googlenet, bfloat16 autocast": torchvision_step(bfloat16=True),
    }
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = np.array([time.perf_counter(), time.process_time()])
            step()
            seconds[name].append(np.array([time.perf_counter(), time.process_time()]) - started)
    medians = {name: np.median(values, axis=0).tolist() for name, values in seconds.items()}
    return [
        {
            "network": name,
            "images_per_second": round(BATCH_SIZE / wall, 2),
            "times_torchvision_float32": round(medians[TORCHVISION][0] / wall, 2),
            "processor_seconds_a_step": round(processor, 3),
        }
        for name, (wall, processor) in medians.items()
    ]


def first_epochs(runs: int) -> list[Row]:
    """Train by the package and by plain Keras in turns."""
    folder = Path(__file__).parent
    commands = {
        "keras-inception train": ["-m", "keras_inception", *TRAIN],
        "plain Keras": [str(folder / "first_epochs.py")],
    }
    found: dict[str, list[list[float]]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            found[name].append(first_epochs_of(command))
    rows = []
    for name, measured in found.items():
        columns = [statistics.median(values) for values in zip(*measured, strict=True)]
        names = ("first_step_seconds", "processor", "epoch_seconds", "processor_of_the_epoch")
        rounded = (round(value, 2) for value in columns)
        rows.append({"training": name, **dict(zip(names, rounded, strict=True))})
    return rows


def first_epochs_of(command: list[str]) -> list[float]:
    """Train until the end of the second epoch; see first_epochs.py."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        output = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path, STARTED: str(time.time())},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    seconds: list[float] = json.loads(output.splitlines()[-1])
    return seconds


def write(name: str, rows: list[Row]) -> None:
    """Write a table with the machine and the versions, and print it."""
    pages = ", large pages" if "hugetlb=1" in os.environ.get("GLIBC_TUNABLES", "") else ""
    about = {
        "load": round(os.getloadavg()[1], 1),
        "device": device() + pages,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "torch": torch.__version__,
        "date": date.today(),
    }
    with (RESULTS / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | about for row in rows)
    print(*rows, sep="\n")


def main() -> None:
    """Measure in turns and write the tables."""
    parser = argparse.ArgumentParser(description="See the head of the file.")
    parser.add_argument("--rounds", type=int, default=30, help="Steps of each network; 0: none.")
    parser.add_argument("--runs", type=int, default=3, help="Runs of `small` each. Default 3.")
    options = parser.parse_args()
    write("training_small.csv", first_epochs(options.runs))
    if options.rounds:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        write("training_throughput.csv", throughput(options.rounds))


if __name__ == "__main__":
    main()
