"""Training throughput at 224 x 224 in images per second, compared with torchvision's googlenet.

    OMP_NUM_THREADS=2 python benchmarks/training_throughput.py

Batches of 16 random images, SGD with momentum, without auxiliary classifiers, two threads. `bn`
runs in float32 and mixed_bfloat16 with this package's training step; torchvision's network runs
eagerly, channels last, in float32 and under bfloat16 autocast, on the same cores. The four take
turns step by step, so that background load affects all of them alike. torchvision's network has 5%
fewer multiply-adds (3x3 in place of 5x5). Needs torch and torchvision.

Writes benchmarks/results/training_throughput.csv: of the steps of each, the median and the least
wall-clock time and the median processor time of all threads. On a machine that runs other programs
only the processor time can be compared; `load` is the mean number of running processes.
`GLIBC_TUNABLES=glibc.malloc.hugetlb=1` before the command gives all four large pages.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch  # importing it after TensorFlow causes a segmentation fault
import torchvision

# isort: split
import keras
import numpy as np
import tensorflow as tf
from machine import device

from keras_inception import VARIANTS, Recipe, make_trainer

RESULTS = Path(__file__).parent / "results" / "training_throughput.csv"
BATCH_SIZE, WARM_UP = 16, 2
THREADS = 2

IMAGES = np.random.default_rng(0).uniform(-1, 1, (BATCH_SIZE, 224, 224, 3)).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 1000, BATCH_SIZE).astype("int32")


def own_step(precision: str) -> Callable[[], object]:
    """Return this package's training step."""
    recipe = Recipe(
        name=precision, epochs=1, batch_size=BATCH_SIZE, optimizer="sgd", precision=precision
    )
    spec = replace(VARIANTS["bn"], aux=())
    trainer = make_trainer(spec, recipe, total_steps=1000)
    batch = (tf.constant(IMAGES), tf.constant(LABELS))
    return lambda: trainer.step(batch)


def torchvision_step(*, bfloat16: bool) -> Callable[[], object]:
    """Return a training step of torchvision's network, eager, channels last."""
    torch.set_num_threads(THREADS)
    model = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2)).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.from_numpy(LABELS).long()

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measured(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[np.ndarray]]:
    """Take turns; return wall-clock and processor seconds of each step of each."""
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = np.array([time.perf_counter(), time.process_time()])
            step()
            seconds[name].append(np.array([time.perf_counter(), time.process_time()]) - started)
    return seconds


def commit() -> str:
    """Return the commit of this checkout, or nothing outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """Measure in turns and write the table."""
    parser = argparse.ArgumentParser(description="See the head of the file.")
    parser.add_argument("--rounds", type=int, default=30, help="Steps of each. Default 30.")
    rounds = parser.parse_args().rounds
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    seconds = measured(
        {
            "keras-inception bn, float32": own_step("float32"),
            "keras-inception bn, mixed_bfloat16": own_step("mixed_bfloat16"),
            "torchvision googlenet, float32": torchvision_step(bfloat16=False),
            "torchvision googlenet, bfloat16 autocast": torchvision_step(bfloat16=True),
        },
        rounds,
    )
    large_pages = "hugetlb=1" in os.environ.get("GLIBC_TUNABLES", "")
    about = {
        "large_pages": "yes" if large_pages else "no",
        "load": round(os.getloadavg()[1], 1),
        "device": device(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "torch": torch.__version__,
        "commit": commit(),
        "date": date.today(),
    }
    rows = []
    for name, values in seconds.items():
        wall, processor = zip(*values, strict=True)
        rows.append(
            {
                "network": name,
                "images_per_second": round(BATCH_SIZE / statistics.median(wall), 2),
                "least_step_seconds": round(min(wall), 3),
                "processor_seconds": round(statistics.median(processor), 3),
                **about,
            }
        )
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
