"""How near int8 GoogLeNet is to the processor's arithmetic limit.

    python benchmarks/int8_limit.py

Rate of multiply-adds of torchvision's network quantized for OpenVINO, beside the same network with
the 1x1 convolutions that share an input merged, and beside stacks of one dense 3x3 convolution,
which is the best case of the kernels: every layer large, nothing else to do. A network cannot
exceed that rate. Weights are random; the forms alternate call by call. Writes
benchmarks/results/int8_limit.csv. Run it on an idle machine.
"""

import csv
import os
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import keras
import nncf
import numpy as np
import openvino
import tensorflow as tf
from machine import device
from sibling_merge import merged

from keras_inception import VARIANTS, GoogLeNet, constant_function, fold_batch_norm, network_cost

RESULTS = Path(__file__).parent / "results" / "int8_limit.csv"
COLUMNS = ("network", "batch", "ms_an_image", "gmac_a_second", "rounds")
ROUNDS, WARM_UP = 25, 3
LAYERS = 6


def network() -> keras.Model:
    """Return torchvision's network, folded, with random weights that keep the size of activations.

    Those of its initialization shrink from layer to layer, to ranges that int8 cannot have.
    """
    model = GoogLeNet(weights=None, variant="torchvision")
    start = keras.initializers.HeNormal(seed=0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(start(layer.kernel.shape))
    return fold_batch_norm(model)


def stack(filters: int, size: int) -> tuple[keras.Model, int]:
    """Return 3x3 convolutions of size x size x filters, and their multiply-adds."""
    pixels = tensor = keras.Input((size, size, filters))
    for _ in range(LAYERS):
        tensor = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(tensor)
    return keras.Model(pixels, tensor), LAYERS * 9 * filters**2 * size**2


def compiled(model: keras.Model, images: np.ndarray) -> Callable[[np.ndarray], object]:
    """Return the network in int8, ranges from `images`."""
    shape = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    function = tf.function(constant_function(model), autograph=False, input_signature=[shape])
    exact = openvino.convert_model(function.get_concrete_function())
    data = nncf.Dataset([image[None] for image in images])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": os.cpu_count()}
    return openvino.compile_model(nncf.quantize(exact, data), "CPU", settings)


def main() -> None:
    """Measure, print and write the table."""
    folded = network()
    macs = network_cost(VARIANTS["torchvision"]).total.macs
    forms = {
        "torchvision": (folded, macs),
        "torchvision, siblings merged": (merged(folded), macs),
        "3x3, 256 filters at 28 x 28": stack(256, 28),
        "3x3, 512 filters at 14 x 14": stack(512, 14),
    }
    random = np.random.default_rng(0)
    runs, images = {}, {}
    for name, (model, _) in forms.items():
        images[name] = random.uniform(-1, 1, (16, *model.input_shape[1:])).astype(np.float32)
        runs[name] = compiled(model, images[name])
    facts = {
        "device": device(),
        "versions": f"openvino {version('openvino')} nncf {version('nncf')}",
        "date": str(date.today()),
    }
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [*COLUMNS, *facts], lineterminator="\n")
        table.writeheader()
        for batch in (1, 16):
            times: dict[str, list[float]] = {name: [] for name in forms}
            for turn in range(WARM_UP + ROUNDS):
                for name, run in runs.items():
                    started = time.perf_counter()
                    run(images[name][:batch])
                    if turn >= WARM_UP:
                        times[name].append((time.perf_counter() - started) / batch)
            for name, taken in times.items():
                seconds = statistics.median(taken)
                row = {
                    "network": name,
                    "batch": batch,
                    "ms_an_image": f"{seconds * 1e3:.2f}",
                    "gmac_a_second": round(forms[name][1] / seconds / 1e9),
                    "rounds": ROUNDS,
                }
                table.writerow(row | facts)
                print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
