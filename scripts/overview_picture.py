"""Draw the picture of the README: what a network answers and sees, and accuracy against cost.

    python scripts/overview_picture.py saved_models/RUN

RUN is the folder of `keras-inception train` on the bundled sample. Writes overview.png and
ankle_boot.png (an image that the network has not been trained on) to docs/images. The right half
comes from benchmarks/results/frontier_families.csv.
"""

import csv
import sys
from io import BytesIO
from pathlib import Path

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from PIL import Image

import keras_inception

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
FAMILIES = {
    "search_time": ("Inception, searched", "tab:orange", "o", (7, 5)),
    "search_plain": ("plain,\nsearched", "tab:blue", "s", (8, -16)),
    "table by hand": ("the paper's table,\nscaled by hand", "dimgray", "^", (7, 5)),
}
BRANCHES = {"1x1": "1x1", "3x3": "3x3", "5x5": "5x5", "pool_proj": "pool"}
SHOWN = "Ankle boot"


def main(run: str) -> None:
    """Draw both halves and save the picture and the image."""
    data = keras_inception.open_data("sample")
    row = int(np.flatnonzero(data.test.labels == data.class_names.index(SHOWN))[0])
    image = data.test.images[row]
    Image.fromarray(image[..., 0]).save(IMAGES / "ankle_boot.png", optimize=True)
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.4, 1), wspace=0.04)
    left.suptitle("Image in, labels out, and what each branch of a module reacts to")
    _answer(left, Path(run), image)
    right.suptitle("Test accuracy on Fashion-MNIST against cost")
    _frontier(right.subplots())
    drawn = BytesIO()
    figure.savefig(drawn, dpi=125)
    Image.open(drawn).convert("RGB").quantize(256).save(IMAGES / "overview.png", optimize=True)


def _answer(figure: Figure, run: Path, image: np.ndarray) -> None:
    """The image, its labels with their scores, and what each branch of two modules reacts to."""
    model = keras.models.load_model(run / "model.keras", compile=False)
    labels = keras_inception.load(run)(image, top=4).labels
    grid = figure.subplots(2, 5, width_ratios=(1.3, 1, 1, 1, 1))
    first, second = grid[:, 0]
    first.imshow(image[..., 0], cmap="gray")
    first.set_title("28 x 28 pixels", fontsize=10)
    first.axis("off")
    names, scores = zip(*labels[::-1], strict=True)
    second.barh(range(len(names)), scores, color="tab:orange")
    second.set(xlim=(0, 1), ylim=(-1, len(names)), yticks=[], xticks=[])
    second.spines[["top", "right", "bottom"]].set_visible(False)
    for height, (name, score) in enumerate(zip(names, scores, strict=True)):
        second.text(0.04, height, f"{name} {score:.1%}", va="center", fontsize=9)
    for axes_row, module in zip(grid, ("3a", "4b"), strict=True):
        _branches(axes_row[1:], model, image, module)


def _branches(axes_row: np.ndarray, model: keras.Model, image: np.ndarray, module: str) -> None:
    """The mean activation of each branch, over the image."""
    names = [f"{module}_{branch}" for branch in BRANCHES]
    found = keras_inception.activations(model, image[None], names)
    for axes, name, kernel in zip(axes_row, names, BRANCHES.values(), strict=True):
        axes.imshow(image[..., 0], cmap="gray", extent=(0, 28, 28, 0))
        strength = found[name][0].mean(axis=-1)
        axes.imshow(
            strength,
            cmap="autumn",
            alpha=0.85 * (strength - strength.min()) / np.ptp(strength),
            extent=(0, 28, 28, 0),
            interpolation="bilinear",
        )
        axes.set_title(f"{module}, {kernel}", fontsize=10)
        axes.axis("off")


def _frontier(axes: Axes) -> None:
    """Accuracy on Fashion-MNIST against multiply-adds, with the deviation over the seeds."""
    with (ROOT / "benchmarks" / "results" / "frontier_families.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["data"] == "fashion_mnist"]
    for family, (label, colour, marker, offset) in FAMILIES.items():
        chosen = [row for row in rows if row["network"].rpartition(" ")[0] == family]
        chosen.sort(key=lambda row: int(row["macs"]))
        axes.errorbar(
            [int(row["macs"]) / 1e6 for row in chosen],
            [float(row["accuracy"]) for row in chosen],
            yerr=[float(row["deviation"]) for row in chosen],
            color=colour,
            marker=marker,
            capsize=3,
        )
        end = (int(chosen[-1]["macs"]) / 1e6, float(chosen[-1]["accuracy"]))
        axes.annotate(label, end, offset, textcoords="offset points", color=colour, fontsize=9)
    axes.set(xscale="log", xlabel="million multiply-adds", xlim=(1.3, 21), ylim=(0.865, 0.913))
    axes.xaxis.set_major_locator(FixedLocator([1.5, 3, 6, 12]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main(sys.argv[1])
