"""The accuracy of the variants for small images on the bundled sample.

    python benchmarks/small_variants.py

Trains `nano`, `tiny`, `small` and `medium` with the recipe `quick` (10 epochs of 6,000 images,
1,500 held out, one seed) and writes benchmarks/results/small_variants.csv. Expected: accuracy grows
with the multiply-adds, by differences near the standard error of 0.9 points.
"""

import csv
import tempfile
from datetime import date
from pathlib import Path

import keras
from machine import device

from keras_inception import RECIPES, VARIANTS, network_cost, open_data, train

RESULTS = Path(__file__).parent / "results" / "small_variants.csv"
NAMES = ("nano", "tiny", "small", "medium")


def main() -> None:
    """Train each variant and write one row for each."""
    data = open_data("sample")
    with RESULTS.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("variant", "macs", "top_1", "standard_error", "device", "keras", "date"))
        for name in NAMES:
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder) / "run"
                result = train(VARIANTS[name], data, RECIPES["quick"], run, verbose=2)
            top_1 = result.metrics["top_1"]
            error = (top_1 * (1 - top_1) / len(data.test)) ** 0.5
            about = (device(), keras.__version__, date.today())
            macs = network_cost(VARIANTS[name]).total.macs
            rows.writerow((name, macs, f"{top_1:.4f}", f"{error:.4f}", *about))
            file.flush()


if __name__ == "__main__":
    main()
