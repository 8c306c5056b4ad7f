"""All of Fashion-MNIST with the recipe `modern`: the training curve and duration of a run.

    TFDS_DATA_DIR=... keras-inception train --variant medium --data tfds:fashion_mnist \
        --recipe modern --out RUN
    python benchmarks/fashion_mnist.py RUN

Writes benchmarks/results/fashion_mnist.csv, one row per epoch, from the run's metrics.json, and
copies its training curve to docs/images. The last held-out accuracy is that of the exported model.
"""

import csv
import json
import shutil
import sys
from datetime import date
from pathlib import Path

from machine import device

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "fashion_mnist.csv"
CURVE = ROOT / "docs" / "images" / "fashion_mnist.png"
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


def main(run: Path) -> None:
    """Write the table and copy the plot."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    history = metrics["history"]
    about = (metrics["macs"], metrics["params"], metrics["seconds"], device(), date.today())
    with RESULTS.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("epoch", *METRICS, "macs", "params", "seconds", "device", "date"))
        for epoch, values in enumerate(zip(*(history[name] for name in METRICS), strict=True), 1):
            rows.writerow((epoch, *(f"{value:.4f}" for value in values), *about))
    shutil.copyfile(run / "training_curve.png", CURVE)
    print(f"held-out accuracy {metrics['top_1']:.2%} after {metrics['seconds']:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
