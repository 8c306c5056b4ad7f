"""Plots of a run as PNG files. Uses its own figures, without global matplotlib state."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

# A matrix of more classes is drawn without names and numbers, which would be illegible.
_MOST_LABELLED = 30
# Longer names are truncated, so that the matrix keeps its size.
_LONGEST_NAME = 24


def training_curve(history: Mapping[str, Sequence[float]], path: Path) -> None:
    """Plot loss and accuracy by epoch, on training and held-out images.

    Args:
        history: "loss", "val_loss", "accuracy", "val_accuracy", one number per epoch. With
            auxiliary classifiers also "main_loss", which is comparable with "val_loss".
        path: of the PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, title in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("Loss", "Top-1 accuracy"), strict=True
    ):
        count = len(history[key])
        epochs, margin = range(1, count + 1), max(0.5, 0.04 * count)
        training = "main_loss" if key == "loss" and "main_loss" in history else key
        axes.plot(epochs, history[training], marker=".", label="training")
        axes.plot(epochs, history[f"val_{key}"], marker=".", label="held out")
        axes.set(title=title, xlabel="epoch", xlim=(1 - margin, count + margin))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120, format="png")


def confusion_matrix(confusion: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Plot counts by true class (row) and predicted class (column), shaded by share of the row."""
    from matplotlib.figure import Figure

    count = len(class_names)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = 2.5 + 0.5 * min(count, _MOST_LABELLED)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    if count <= _MOST_LABELLED:
        names = [
            name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
            for name in class_names
        ]
        # A "$" in a name is a dollar sign, not the start of a formula.
        axes.set_xticks(range(count), names, rotation=60, ha="right", parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
        for row in range(count):
            for column in range(count):
                if confusion[row, column]:
                    shade = "white" if shares[row, column] > 0.5 else "black"
                    text = str(confusion[row, column])
                    axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=8)
    with warnings.catch_warnings():
        # Characters that no installed font has are drawn as boxes; the names are in labels.txt.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        figure.savefig(path, dpi=120, format="png")
