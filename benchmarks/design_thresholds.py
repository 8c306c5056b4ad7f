"""The effect of the design threshold: bundled sample, equal multiply-adds, one recipe.

    python benchmarks/design_thresholds.py saved_models/small-sample-... [--out FOLDER]

Measures the network of a finished run and proposes one network per threshold within the run's
multiply-adds. Trains each with the run's recipe and writes results/design_thresholds.csv. A network
that is already in FOLDER is not trained again. Takes about a minute and a half per network on two
idle cores.
"""

from __future__ import annotations

import argparse
import csv
import json
from datetime import date
from pathlib import Path

import keras
import tensorflow as tf
from machine import device

from keras_inception import (
    Budget,
    DesignOptions,
    NetworkSpec,
    Recipe,
    design_network,
    network_cost,
    open_data,
    train,
)

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "design_thresholds.csv"
THRESHOLDS = (0.5, 0.6, 0.707)


def main() -> None:
    """Train the missing networks, then write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run on the sample")
    parser.add_argument("--out", type=Path, default=ROOT / "saved_models" / "thresholds")
    arguments = parser.parse_args()
    start = NetworkSpec.from_json((arguments.run / "spec.json").read_text(encoding="utf-8"))
    recipe = Recipe.from_json((arguments.run / "recipe.json").read_text(encoding="utf-8"))
    model = keras.models.load_model(arguments.run / "model.keras", compile=False)
    data = open_data("sample")
    budget = Budget(macs=network_cost(start).total.macs)
    rows = [row("the start", start, arguments.run)]
    for threshold in THRESHOLDS:
        options = DesignOptions(threshold=threshold)
        spec = design_network(start, model, data.test, budget, options).spec
        folder = arguments.out / f"threshold-{threshold}"
        if not (folder / "metrics.json").exists():
            train(spec, data, recipe, folder)
        if NetworkSpec.from_json((folder / "spec.json").read_text(encoding="utf-8")) != spec:
            raise ValueError(
                f"Expected {folder} to contain the proposed network. Delete it to train again."
            )
        rows.append(row(str(threshold), spec, folder))
    write(rows)


def row(network: str, spec: NetworkSpec, folder: Path) -> dict[str, str | int]:
    """Return one row of the CSV from the folder of a run."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    accuracy = metrics["top_1"]
    filters = dict.fromkeys((1, 3, 5), 0)
    for module in spec.modules:
        filters[1] += module.filters_1x1
        for branch in module.spatial:
            filters[branch.kernel_size] += branch.filters
    return {
        "network": network,
        **{f"{size}x{size}": count for size, count in filters.items()},
        "macs": metrics["macs"],
        "params": metrics["params"],
        "top_1": f"{accuracy:.4f}",
        "standard_error": f"{(accuracy * (1 - accuracy) / metrics['images']) ** 0.5:.4f}",
        "machine": device(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "date": date.today().isoformat(),
    }


def write(rows: list[dict[str, str | int]]) -> None:
    """Write the CSV."""
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
