"""What the gradient of max pooling costs under JAX: Keras's layer and this package's, in turns.

    KERAS_BACKEND=jax python benchmarks/max_pool.py

The loss and all gradients of a network with batch normalization, on one random batch. The network
from its configuration (`keras.Model.from_config`) has Keras's own layers, the same weights and the
same outputs. Writes benchmarks/results/max_pool.csv. Run it on an idle machine.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
from machine import jax_device

from keras_inception import VARIANTS, build_network

RESULTS = Path(__file__).parent / "results" / "max_pool.csv"
COLUMNS = (
    *("network", "batch", "precision", "keras_ms", "package_ms", "times_faster"),
    *("keras_compilation_s", "package_compilation_s", "difference", "rounds"),
    *("device", "jax", "date"),
)


def gradients(model: keras.Model, images: Any, labels: Any) -> Callable[[], Any]:
    """Return a function that computes all gradients, and waits for them."""
    others = [variable.value for variable in model.non_trainable_variables]

    def loss(weights: list[Any]) -> Any:
        scores, _ = model.stateless_call(weights, others, images, training=True)
        chosen = jax.numpy.take_along_axis(jax.numpy.log(scores), labels[:, None], axis=1)
        return -chosen.mean()

    computed = jax.jit(jax.grad(loss))
    weights = [variable.value for variable in model.trainable_variables]
    return lambda: jax.block_until_ready(computed(weights))


def compared(network: str, batch: int, precision: str, rounds: int) -> tuple[Any, ...]:
    """Return medians in milliseconds, their ratio, seconds of compilation, largest difference."""
    keras.utils.set_random_seed(0)
    spec = replace(VARIANTS[network], dropout_rate=0.0)  # the two would draw different masks
    keras.config.set_dtype_policy(precision)
    own = build_network(spec)
    theirs = keras.Model.from_config(own.get_config())
    theirs.set_weights(own.get_weights())
    random = np.random.default_rng(0)
    images = jax.numpy.asarray(random.uniform(-1, 1, (batch, *spec.input_shape)), "float32")
    labels = jax.numpy.asarray(random.integers(0, spec.classes, batch))
    calls = [gradients(model, images, labels) for model in (theirs, own)]
    compilation, found = [], []
    for call in calls:
        started = time.perf_counter()
        found.append(call())
        compilation.append(round(time.perf_counter() - started, 1))
    differences = [a - b for a, b in zip(*found, strict=True)]
    norms = [sum(float((a**2).sum()) for a in part) ** 0.5 for part in (found[0], differences)]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            taken.append((time.perf_counter() - started) * 1e3)
    before, after = map(statistics.median, times)
    ratio = round(before / after, 2)
    return (round(before, 1), round(after, 1), ratio, *compilation, f"{norms[1] / norms[0]:.1e}")


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the CSV file")
    options = parser.parse_args()
    about = (options.rounds, jax_device(), version("jax"), date.today().isoformat())
    with options.out.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for network, batch in (("medium", 128), ("bn", 16)):
            for precision in ("float32", "mixed_bfloat16"):
                row = (network, batch, precision)
                row += (*compared(*row, options.rounds), *about)
                rows.writerow(row)
                file.flush()
                print(*row, sep="  ", flush=True)


if __name__ == "__main__":
    main()
