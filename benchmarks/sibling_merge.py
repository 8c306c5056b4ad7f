"""Whether the three 1x1 convolutions of a module that read one tensor are faster as one.

    python benchmarks/sibling_merge.py

A module's 1x1 branch and its two reductions have the same input. A single convolution with all
their filters reads the input once and then splits its output: fewer, larger products, but one more
copy. Both networks are `bn` folded for inference, as a TensorFlow function with constant weights as
in the exported SavedModel, in float32 and bfloat16, at batch 1 and 16. The two alternate call by
call. Writes benchmarks/results/sibling_merge.csv. Run it on an idle machine.
"""

import csv
import statistics
import time
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from machine import device

from keras_inception import GoogLeNet, constant_function, fold_batch_norm

RESULTS = Path(__file__).parent / "results" / "sibling_merge.csv"
COLUMNS = (
    *("precision", "batch", "apart_ms_an_image", "merged_ms_an_image", "times_faster"),
    *("largest_difference", "rounds", "device", "tensorflow", "date"),
)
ROUNDS, WARM_UP = 40, 5


def merged(model: keras.Model) -> keras.Model:
    """Return the network with the 1x1 convolutions of each tensor merged into one."""
    siblings: dict[int, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1):
            siblings.setdefault(id(layer.input), []).append(layer)
    pixels = keras.Input(model.input_shape[1:])
    tensors = {id(model.input): pixels}
    for layer in model.layers[1:]:
        if id(layer.output) in tensors:
            continue  # a sibling that is already merged
        inputs = keras.tree.map_structure(lambda tensor: tensors[id(tensor)], layer.input)
        group = siblings.get(id(layer.input), []) if isinstance(layer, keras.layers.Conv2D) else []
        if layer not in group or len(group) == 1:
            tensors[id(layer.output)] = layer(inputs)
            continue
        filters = [sibling.filters for sibling in group]
        convolution = keras.layers.Conv2D(sum(filters), 1, dtype=layer.dtype_policy)
        outputs = convolution(inputs)
        weights = zip(*(sibling.get_weights() for sibling in group), strict=True)
        convolution.set_weights([np.concatenate(parts, axis=-1) for parts in weights])
        parts = keras.ops.split(outputs, list(accumulate(filters))[:-1], axis=-1)
        tensors.update((id(s.output), part) for s, part in zip(group, parts, strict=True))
    return keras.Model(pixels, tensors[id(model.output)])


def compared(precision: Any, batch: int) -> tuple[float, float, float]:
    """Return median milliseconds per image, apart and merged, and the largest score difference."""
    network = fold_batch_norm(GoogLeNet(weights=None, variant="bn"), precision)
    functions = (constant_function(network), constant_function(merged(network)))
    pixels = tf.constant(np.random.default_rng(0).uniform(-1, 1, (batch, 224, 224, 3)), tf.float32)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(WARM_UP + ROUNDS):
        for function, taken in zip(functions, times, strict=True):
            started = time.perf_counter()
            function(pixels).numpy()
            if turn >= WARM_UP:
                taken.append((time.perf_counter() - started) * 1e3 / batch)
    scores = [function(pixels).numpy() for function in functions]
    apart, together = (statistics.median(taken) for taken in times)
    return apart, together, float(np.abs(scores[0] - scores[1]).max())


def main() -> None:
    """Measure, print and write the table."""
    about = (ROUNDS, device(), tf.__version__, date.today().isoformat())
    with RESULTS.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for precision in ("float32", "bfloat16"):
            for batch in (1, 16):
                apart, together, difference = compared(precision, batch)
                ratio = apart / together
                row = (f"{apart:.2f}", f"{together:.2f}", f"{ratio:.3f}", f"{difference:.1e}")
                rows.writerow((precision, batch, *row, *about))
                print(f"{precision}, batch {batch}: {apart:.2f} ms apart, {together:.2f} ms merged")


if __name__ == "__main__":
    main()
