"""The error of latency models on networks that they were not fitted to, by runtime and precision.

    python benchmarks/latency_fit.py            # on an idle machine; half an hour
    python benchmarks/latency_fit.py --quick    # twelve networks for one runtime, writes nothing

For each runtime and precision, 32 random networks of the space that `tune --budget-ms` searches by
default for 28 x 28 grey images are exported, timed and fitted, once with a batch of 1 and once of
64, on one thread. Each fit appends a row to results/latency_fit.csv and is not repeated: `error` is
the mean relative error on the 8 networks left out of the fit.
"""

import argparse
import datetime
import time
from importlib.metadata import version
from pathlib import Path

from frontier_trained import append, rows_of
from machine import device

from keras_inception import Budget
from tuning import Space, Wanted, base_network, base_with_room, measure_latency_model

RESULTS = Path(__file__).parent / "results" / "latency_fit.csv"
KINDS = (
    *(("saved_model", "float32"), ("saved_model", "bfloat16")),
    *(("onnx", "float32"), ("onnx", "int8")),
    *(("openvino", "float32"), ("openvino", "bfloat16"), ("openvino", "int8")),
    *(("litert", "float32"), ("litert", "int8")),
)
BATCHES = (1, 64)
NETWORKS = 32
COLUMNS = (
    *("runtime", "precision", "batch", "threads", "networks", "error", "seconds"),
    *("device", "version", "date"),
)
PACKAGES = {
    "saved_model": "tensorflow-cpu",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "litert": "ai-edge-litert",
}


def searched() -> Space:
    """Return the space of `tune --budget-ms` for 28 x 28 grey images of 10 classes."""
    budget = Budget(macs=3_000_000)
    base, divisor = base_with_room(base_network((28, 28, 1), 10), budget)
    return Space(base=base, budget=budget, width_divisor=divisor)


def measured(wanted: Wanted, count: int) -> dict[str, object]:
    """Fit a model and return its row."""
    started = time.monotonic()
    model = measure_latency_model(searched(), wanted, count=count)
    package = PACKAGES[str(wanted.runtime)]
    return {
        "runtime": wanted.runtime,
        "precision": wanted.precision,
        "batch": wanted.batch_size,
        "threads": wanted.threads,
        "networks": count,
        "error": f"{model.error:.4f}",
        "seconds": round(time.monotonic() - started),
        "device": device(),
        "version": f"{package} {version(package)}",
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="twelve networks for one runtime")
    quick = parser.parse_args().quick
    done = {(row["runtime"], row["precision"], row["batch"]) for row in rows_of(RESULTS)}
    for runtime, precision in KINDS[2:3] if quick else KINDS:
        for batch in BATCHES[:1] if quick else BATCHES:
            if not quick and (runtime, precision, str(batch)) in done:
                continue
            wanted = Wanted(runtime=runtime, precision=precision, batch_size=batch, threads=1)
            row = measured(wanted, 12 if quick else NETWORKS)
            print(row, flush=True)
            if not quick:
                append(RESULTS, COLUMNS, tuple(row[name] for name in COLUMNS))


if __name__ == "__main__":
    main()
