"""Pictures of a search as PNG files. Draws on its own figures: no global matplotlib state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_inception.files import aside
from tuning.trials import SearchedTrial, best_first, completed_of, pareto_front, stage_rows

# The best networks whose stages are compared.
BEST = 10


def draw_pictures(trials: Sequence[SearchedTrial], weights: dict[str, float], folder: Path) -> None:
    """Write pareto.png, progress.png, importance.png and stages.png of a search's trials.

    Args:
        trials: one of them completed at least.
        weights: of `report.importance`; {} draws none.
        folder: where to.
    """
    completed = completed_of(trials)
    front = pareto_front(trials)
    with _Picture(folder / "pareto.png") as axes:
        axes.scatter([t.macs / 1e6 for t in completed], [t.accuracy for t in completed], s=16)
        axes.plot([t.macs / 1e6 for t in front], [t.accuracy for t in front], "r.-", label="front")
        axes.set(xlabel="million multiply-adds", ylabel="validation accuracy")
        axes.legend()
    with _Picture(folder / "progress.png") as axes:
        accuracies = [trial.accuracy for trial in completed]
        axes.plot([t.number for t in completed], accuracies, ".", label="trial")
        best = np.maximum.accumulate(accuracies)
        axes.step([t.number for t in completed], best, where="post", label="best so far")
        axes.set(xlabel="trial", ylabel="validation accuracy")
        axes.legend()
    if weights:
        with _Picture(folder / "importance.png") as axes:
            names = list(weights)[::-1]
            axes.barh(names, [weights[name] for name in names])
            axes.set(xlabel="share of the explained variance")
    rows = stage_rows(best_first(trials)[:BEST])
    with _Picture(folder / "stages.png", len(rows)) as grid:
        for axes, (name, by_stage) in zip(np.atleast_1d(grid), rows.items(), strict=True):
            axes.boxplot(list(by_stage.values()), tick_labels=list(by_stage))
            axes.plot(range(1, len(by_stage) + 1), [np.mean(v) for v in by_stage.values()], "r.-")
            axes.set(title=name, xlabel="stage")


class _Picture:
    """A figure's axes, saved as PNG at the end."""

    def __init__(self, path: Path, columns: int = 1) -> None:
        self._path = path
        self._figure = Figure(figsize=(max(7, 3 * columns), 4), layout="constrained")
        self._axes: Any = self._figure.subplots(1, columns)

    def __enter__(self) -> Any:
        return self._axes

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            with aside(self._path) as path:
                self._figure.savefig(path, dpi=120, format="png")
