"""The tables of a search's page: a number to sort by and a text for each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuning.trials import SearchedTrial
from tuning.verdict import Verdict

Cell = tuple[float, str]
# Names of the columns, and rows.
Table = tuple[list[str], list[list[Cell]]]


def leaderboard(best: Sequence[SearchedTrial]) -> Table:
    """A row for each trial, the best first; a column without texts is left out."""
    return _table(
        {
            "place": _places(best),
            "trial": [(trial.number, str(trial.number)) for trial in best],
            "accuracy": [_share(trial.accuracy) for trial in best],
            "multiply-adds": [(trial.macs, f"{trial.macs:,}") for trial in best],
            "parameters": [(trial.params, f"{trial.params:,}") for trial in best],
            "epochs": [(trial.epochs or -1, str(trial.epochs or "")) for trial in best],
            "seconds": [
                (trial.metrics["seconds"], f"{trial.metrics['seconds']:.0f}") for trial in best
            ],
        }
    )


def finalists(verdict: Verdict | None) -> Table:
    """A row for each finalist, the best first; a column without texts is left out."""
    if verdict is None:
        return [], []
    found = verdict.finalists
    return _table(
        {
            "place": _places(found),
            "trial": [(one.number, str(one.number)) for one in found],
            "mean": [_share(one.mean) for one in found],
            "standard deviation": [
                (-1, "") if one.spread is None else _share(one.spread) for one in found
            ],
            "trainings": [(len(one.accuracies), str(len(one.accuracies))) for one in found],
            "in the trial": [_share(one.trial_accuracy) for one in found],
            "beaten beyond noise": [
                (1, "yes") if one.number in verdict.worse else (0, "") for one in found
            ],
        }
    )


def _places(ranked: Sequence[object]) -> list[Cell]:
    return [(place, str(place)) for place in range(1, len(ranked) + 1)]


def _share(value: float) -> Cell:
    return value, f"{value:.2%}"


def _table(columns: Mapping[str, list[Cell]]) -> Table:
    shown = {name: cells for name, cells in columns.items() if any(text for _, text in cells)}
    return [*shown], [list(row) for row in zip(*shown.values(), strict=True)]
