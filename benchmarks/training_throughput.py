"""Training throughput at 224 x 224 in images per second, compared with torchvision's googlenet.

    OMP_NUM_THREADS=2 python benchmarks/training_throughput.py

Batches of 16 random images, SGD with momentum, without auxiliary classifiers. `bn` runs in float32
and mixed_bfloat16 with this package's training step; torchvision's network runs in float32,
channels last, on the same cores. The three take turns; the table has the median of the steps of
each. torchvision's network has 5% fewer multiply-adds (3x3 in place of 5x5). Needs torch and
torchvision. Writes benchmarks/results/training_throughput.csv.
"""

import csv
import statistics
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
BATCH_SIZE, ROUNDS, STEPS_A_ROUND = 16, 10, 3
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


def torchvision_step() -> Callable[[], object]:
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
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    """Measure in turns and write the table."""
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    steps = {
        "keras-inception bn, float32": own_step("float32"),
        "keras-inception bn, mixed_bfloat16": own_step("mixed_bfloat16"),
        "torchvision googlenet, float32, channels last": torchvision_step(),
    }
    for step in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            for _ in range(STEPS_A_ROUND):
                started = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - started)
    about = (
        device(),
        keras.__version__,
        tf.__version__,
        torch.__version__,
        date.today(),
    )
    with RESULTS.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ("network", "images_per_second", "device", "keras", "tensorflow", "torch", "date")
        )
        for name, times in seconds.items():
            rows.writerow((name, round(BATCH_SIZE / statistics.median(times), 2), *about))


if __name__ == "__main__":
    main()
