"""The plots: their content, and the PNG files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from keras_inception.evaluation import plots

HISTORY = {
    "loss": [2.0, 1.0, 0.5],
    "val_loss": [2.5, 1.5, 1.25],
    "accuracy": [0.25, 0.5, 0.75],
    "val_accuracy": [0.2, 0.4, 0.6],
}
DARKEST_BLUE = (8, 48, 107)  # the upper end of matplotlib's "Blues"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the saved figures."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
    return image.convert("RGB")


def test_training_curve(tmp_path, drawn):
    plots.training_curve(HISTORY, tmp_path / "curve.png")
    assert opened(tmp_path / "curve.png").size == (1080, 432)
    loss, accuracy = drawn[0].axes
    for axes, key in ((loss, "loss"), (accuracy, "accuracy")):
        training, held_out = axes.lines
        assert training.get_xdata().tolist() == held_out.get_xdata().tolist() == [1, 2, 3]
        assert training.get_ydata().tolist() == HISTORY[key]
        assert held_out.get_ydata().tolist() == HISTORY[f"val_{key}"]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [
            "training",
            "held out",
        ]


def test_the_curve_shows_the_main_loss_with_the_held_out_loss(tmp_path, drawn):
    plots.training_curve(HISTORY | {"main_loss": [1.5, 0.75, 0.25]}, tmp_path / "curve.png")
    loss, accuracy = drawn[0].axes
    assert loss.lines[0].get_ydata().tolist() == [1.5, 0.75, 0.25]
    assert accuracy.lines[0].get_ydata().tolist() == HISTORY["accuracy"]


@pytest.mark.parametrize("prefix", ["", "val_"])
def test_training_curve_of_one_epoch_shows_its_points(tmp_path, prefix):
    nothing = {key: [float("nan")] for key in HISTORY}
    plots.training_curve(nothing, tmp_path / "none.png")
    plots.training_curve(nothing | {f"{prefix}loss": [1.0]}, tmp_path / "one.png")

    def blue_or_orange(path: Path) -> int:
        pixels = np.asarray(opened(path)).astype(int)
        return int((np.ptp(pixels, axis=2) > 100).sum())

    # Both have the same legends; a point covers about 25 pixels.
    assert blue_or_orange(tmp_path / "one.png") > blue_or_orange(tmp_path / "none.png") + 10


def test_confusion_matrix_names_and_counts(tmp_path, drawn):
    """3 of 4 cats are correct, one is predicted as a dog; there is no bird."""
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    plots.confusion_matrix(confusion, ("cat", "dog", "bird"), tmp_path / "matrix.png")
    axes = drawn[0].axes[0]
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "3", (1, 0): "1", (1, 1): "2"}  # (column, row)
    assert axes.get_xlabel() == "predicted"
    assert axes.get_ylabel() == "true"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["cat", "dog", "bird"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog", "bird"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])


def test_confusion_matrix_of_many_classes_shows_shares(tmp_path, drawn):
    """All of row 0 is predicted as the last class: dark in the upper right corner."""
    confusion = np.zeros((40, 40), int)
    confusion[0, 39] = 5
    plots.confusion_matrix(confusion, [str(n) for n in range(40)], tmp_path / "matrix.png")
    assert not drawn[0].axes[0].texts
    image = opened(tmp_path / "matrix.png")
    assert image.width == image.height == 2100  # 120 dots per inch x (2.5 + 0.5 x 30)
    rows, columns = np.where((np.asarray(image) == DARKEST_BLUE).all(axis=2))
    assert columns.min() > 0.8 * image.width
    assert rows.max() < 0.2 * image.height
    assert np.ptp(rows) + 1 == pytest.approx(np.ptp(columns) + 1, abs=2)  # one square cell


def test_any_class_name_is_drawn_unchanged(tmp_path, drawn):
    names = ("$^{ and $", r"a\$b^{", "x" * 60, "T-shirt/top", "größer", "a_b", "猫")
    plots.confusion_matrix(np.eye(7, dtype=int), names, tmp_path / "matrix.png")
    assert min(opened(tmp_path / "matrix.png").size) > 400
    bounds = drawn[0].axes[0].get_window_extent()
    assert bounds.width > 100  # a long name does not squeeze the matrix
