"""Searched networks and other families on colour images of 64 x 64 pixels, at equal cost.

    apt-get download mate-backgrounds lomiri-wallpapers-16.04     # Debian 12
    for package in *.deb; do dpkg -x $package photographs; done
    export TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
    python benchmarks/photograph_crops.py images photographs crops
    python benchmarks/photograph_crops.py run crops      # about an hour; can be resumed
    python benchmarks/photograph_crops.py report

The images are made of the 25 photographs of the two packages: each is scaled to a shorter side of
1,024 pixels and cut into squares of 64 without overlap, 9,408 in all. The task is to say of which
photograph a square is a part. A fifth of each photograph's squares are the test images.

Each family has 8 million multiply-adds: networks and plain networks, both found by the same
search (`search_goal.py`: trials of the first quarter of a full training, then finalists); Table 1
scaled by hand; ResNet and MobileNetV2. Naive modules do not fit: with every width at 4 they cost
14 million. All have their stages on grids of 32, 16 and 8. Each network is trained fully with three
seeds by Keras's `fit`; each part, a search or a training, appends a row to
results/photograph_crops.csv when it ends, and is not repeated. The networks found are
results/specs/crops_*.json. `report` prints each family's mean, and the difference of `search` from
it with its 95% interval (Welch).
"""

import argparse
import datetime
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from frontier_trained import append, macs_and_params, rows_of, spec_of, trained_accuracy
from machine import device
from PIL import Image
from search import RECIPE, RESULTS
from search_goal import FULL, SEARCH, difference, timed_search
from small_networks import Form, fitted_rival, plain_28, table_28

from keras_inception import (
    Budget,
    ConvSpec,
    ImageData,
    NetworkSpec,
    build_network,
    fit_to_budget,
    open_data,
)
from tuning import SearchPlan, Space, base_network, base_with_room

TABLE = RESULTS / "photograph_crops.csv"
FOLDERS = ("backgrounds/mate/nature", "backgrounds")
NO_PHOTOGRAPHS = ("analogpattern", "umang")
SHORTER_SIDE, SIZE, CLASSES = 1024, 64, 25
SHAPE = (SIZE, SIZE, 3)
MACS = 8_000_000
BUDGET = Budget(macs=MACS)
FORM = Form(input_shape=SHAPE, classes=CLASSES, stem_stride=2)
TRIAL_RECIPE = replace(RECIPE, name="crops", epochs=8)
# Of the families' trainings by `fit`, which has no averages.
FULL_RECIPE = replace(TRIAL_RECIPE, average="none", label_smoothing=0.1)
SEEDS = range(100, 103)
TRIALS, FINALISTS, TRIAL_EPOCHS = 10, 3, 2
SEARCHED = ("search", "search_plain")
COLUMNS = (
    *("family", "part", "seed", "macs", "params", "trainings", "core_seconds", "accuracy"),
    *("device", "date"),
)


def make_images(photographs: Path, folder: Path) -> None:
    """Cut the photographs into squares: a folder of PNG files for each."""
    for name in FOLDERS:
        for path in sorted((photographs / "usr/share" / name).glob("*.jpg")):
            if path.name.startswith(NO_PHOTOGRAPHS):
                continue
            own = folder / path.stem
            own.mkdir(parents=True)
            picture = Image.open(path).convert("RGB")
            scale = SHORTER_SIDE / min(picture.size)
            width, height = (round(side * scale) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
            for top in range(0, height - SIZE + 1, SIZE):
                for left in range(0, width - SIZE + 1, SIZE):
                    square = picture.crop((left, top, left + SIZE, top + SIZE))
                    square.save(own / f"{top:04}_{left:04}.png")


def plain() -> NetworkSpec:
    """Return the form of the plain networks."""
    stem = (ConvSpec(name="conv1", filters=32, kernel_size=3, stride=2),)
    return replace(plain_28(2), stem=stem, input_shape=SHAPE, classes=CLASSES)


def searched(family: str, data: ImageData, folder: Path) -> tuple[NetworkSpec, dict[str, Any]]:
    """Search a family's network."""
    form = base_network(SHAPE, CLASSES, plain() if family == "search_plain" else None)
    base, divisor = base_with_room(form, BUDGET)
    plan = SearchPlan(
        space=Space(base=base, budget=BUDGET, width_divisor=divisor),
        recipe=TRIAL_RECIPE,
        halving_epochs=(TRIAL_EPOCHS,),
        max_trials=TRIALS,
        finalists=FINALISTS,
        seeds=1,
    )
    return timed_search(plan, data, folder)


def by_spec(form: Callable[[], NetworkSpec]) -> keras.Model:
    """Build a form's network within the budget."""
    spec = replace(form(), input_shape=SHAPE, classes=CLASSES)
    return build_network(fit_to_budget(spec, BUDGET, width_divisor=4, scale_stem=True))


FAMILIES: dict[str, Callable[[], keras.Model]] = {
    "search": lambda: build_network(spec_of("crops_search")),
    "search_plain": lambda: build_network(spec_of("crops_search_plain")),
    "ResNet": lambda: fitted_rival("resnet", 1, MACS, FORM),
    "table by hand": lambda: by_spec(table_28),
    "MobileNetV2": lambda: fitted_rival("mobilenet", 2, MACS, FORM),
}


def trained(family: str, seed: int, data: ImageData) -> dict[str, Any]:
    """Train a family's network and return the columns of its row."""
    keras.utils.set_random_seed(seed)
    model, started = FAMILIES[family](), time.process_time()
    shape = base_network(SHAPE, CLASSES)
    accuracy = trained_accuracy(model, data, shape, replace(FULL_RECIPE, seed=seed))
    macs, params = macs_and_params(model)
    return {
        "macs": macs,
        "params": params,
        "trainings": 1,
        "core_seconds": round(time.process_time() - started),
        "accuracy": round(accuracy, 4),
    }


def run(crops: Path, folder: Path, families: list[str]) -> None:
    """Run the parts of the families that have no row."""
    data = open_data(f"dir:{crops}")
    parts = [(family, "") for family in SEARCHED if family in families]
    parts += [(family, str(seed)) for seed in SEEDS for family in families]
    for family, seed in parts:
        if any((row["family"], row["seed"]) == (family, seed) for row in rows_of(TABLE)):
            continue
        if seed:
            row = trained(family, int(seed), data)
        else:
            spec, row = searched(family, data, folder / family)
            file = RESULTS / "specs" / f"crops_{family}.json"
            file.write_text(spec.to_json(), encoding="utf-8")
        row |= {"family": family, "part": FULL if seed else SEARCH, "seed": seed}
        row |= {"device": device(), "date": datetime.date.today()}
        append(TABLE, COLUMNS, tuple(row.get(name, "") for name in COLUMNS))
        print(f"{family} {seed}: {row['accuracy']:.2%}, {row['core_seconds']} s", flush=True)


def report() -> None:
    """Print each family's mean, and how much better `search` is."""
    accuracies: dict[str, list[float]] = {}
    for row in rows_of(TABLE):
        if row["part"] == FULL:
            accuracies.setdefault(row["family"], []).append(float(row["accuracy"]))
    for family, values in accuracies.items():
        line = f"{family}: {statistics.fmean(values):.2%} in {len(values)} trainings"
        if family != "search" and values[1:]:
            gained, low, high = difference(accuracies["search"], values)
            line += f"; search {gained:+.2%} ({low:+.2%} to {high:+.2%})"
        print(line)


def main() -> None:
    """Run the requested part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    images = parts.add_parser("images")
    images.add_argument("photographs", type=Path)
    images.add_argument("crops", type=Path)
    running = parts.add_parser("run")
    running.add_argument("crops", type=Path)
    searches = Path("saved_models/benchmark-crops")
    running.add_argument("--folder", type=Path, default=searches, help="of the searches")
    running.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parts.add_parser("report")
    given = parser.parse_args()
    if given.part == "images":
        make_images(given.photographs, given.crops)
    elif given.part == "run":
        run(given.crops, given.folder, given.families)
    else:
        report()


if __name__ == "__main__":
    main()
