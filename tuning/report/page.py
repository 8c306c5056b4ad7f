"""The report of a search: an HTML page that works offline, pictures, and a CSV leaderboard.

The page has Plotly's figures, where a point shows its network; `pictures` has them as PNG.
"""

from __future__ import annotations

import csv
import html
import json
import os
import shlex
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.io import to_html
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from keras_inception.cost.budget import NetworkBound
from keras_inception.cost.layers import network_cost
from keras_inception.data.record import data_option, recorded_source
from keras_inception.files import REPORT_FILE, SPEC_FILE, aside, csv_text
from keras_inception.reports.page import write_page
from keras_inception.wording import counted
from tuning.dimension import Dimension
from tuning.fidelity import FidelityChoice, load_choice
from tuning.latency import LatencyBudget
from tuning.report.pictures import BEST, draw_pictures
from tuning.report.tables import finalists, leaderboard
from tuning.run import write_best_spec
from tuning.space import Space
from tuning.trials import (
    SearchedTrial,
    best_first,
    completed_of,
    pareto_front,
    read_search,
    read_trials,
    stage_rows,
)
from tuning.verdict import read_verdict

LEADERBOARD_FILE = "leaderboard.csv"
_FEWEST_FOR_IMPORTANCE = 8
_SAME_COST = 1.05  # costs that differ less, by this ratio, are the same


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write the report of a search beside its trials, while it runs or later.

    Writes report.html, leaderboard.csv, best_spec.json, pareto.png, importance.png, stages.png and
    progress.png.

    Returns:
        The page.

    Raises:
        ValueError: no search in the folder, or no completed trial.
    """
    folder = Path(folder)
    search, trials = read_search(folder), read_trials(folder)
    best = best_first(trials)
    if not best:
        raise ValueError(
            f"Expected a completed trial. Received: {str(folder)!r} with "
            f"{counted(len(trials), 'trial')}, none of them completed.{_last_reason(trials)}"
        )
    write_best_spec(folder)
    _write_leaderboard(best, folder / LEADERBOARD_FILE)
    space = Space.from_json(json.dumps(search["space"]))
    weights = importance(trials, space.dimensions)
    draw_pictures(trials, weights, folder)
    title = f"Search of {space.base.name} on {_data_name(folder, search)}"
    _write_page(folder, title, trials, weights, space.budget)
    return folder / REPORT_FILE


def importance(
    trials: Sequence[SearchedTrial], dimensions: Sequence[Dimension]
) -> dict[str, float]:
    """Permutation importance of each hyperparameter in a random forest that predicts accuracy.

    Returns:
        By name, largest first, in shares of the sum; {} with too few trials of the first round.
    """
    first = [trial for trial in completed_of(trials) if trial.round == 0]
    if len(first) < _FEWEST_FOR_IMPORTANCE or not dimensions:
        return {}
    table = np.array([[_as_number(trial, item) for item in dimensions] for trial in first])
    scores = np.array([trial.accuracy for trial in first])
    forest = RandomForestRegressor(n_estimators=200, random_state=0).fit(table, scores)
    result = permutation_importance(forest, table, scores, n_repeats=20, random_state=0)
    weights = np.maximum(result.importances_mean, 0)
    total = weights.sum() or 1.0
    pairs = zip([item.name for item in dimensions], (weights / total).tolist(), strict=True)
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


def _as_number(trial: SearchedTrial, item: Dimension) -> float:
    value = trial.values.get(item.name, item.neutral)
    return float(item.choices.index(str(value))) if item.choices else float(value)


def _last_reason(trials: Sequence[SearchedTrial]) -> str:
    reasons = [trial.message for trial in trials if trial.message]
    return f" The last one failed: {reasons[-1]}" if reasons else " Wait for the first one."


def _write_leaderboard(best: Sequence[SearchedTrial], path: Path) -> None:
    names = list(best[0].values)
    with aside(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        columns = ("place", "trial", "round", "epochs", "val_accuracy", "val_loss", "macs")
        rows.writerow([*columns, "params", "seconds", *map(csv_text, names)])
        for place, trial in enumerate(best, start=1):
            metrics = trial.metrics
            own = [trial.number, trial.round, trial.epochs, trial.accuracy, metrics["val_loss"]]
            cost = [trial.macs, trial.params, metrics["seconds"]]
            rows.writerow([place, *own, *cost, *(_cell(trial.values.get(name)) for name in names)])


def _cell(value: Any) -> Any:
    return csv_text(value) if isinstance(value, str) else value


def _data_name(folder: Path, search: dict[str, Any]) -> str:
    """From data.json, or from search.json of an earlier version."""
    return recorded_source(folder) or search["data"].get("name", "unnamed data")


def _write_page(
    folder: Path,
    title: str,
    trials: Sequence[SearchedTrial],
    weights: dict[str, float],
    budget: NetworkBound,
) -> None:
    best = best_first(trials)
    found = read_verdict(folder)
    failed = [trial for trial in trials if trial.status == "FAILED"]
    clickable = [_progress_figure(trials), *_pareto_figures(trials, budget)]
    others = [_importance_figure(weights)] if weights else []
    others += _stage_figures(best[:BEST])
    columns, rows = leaderboard(best)
    finalist_columns, finalist_rows = finalists(found)
    source = recorded_source(folder)
    write_page(
        folder / REPORT_FILE,
        "search.html",
        title=title,
        summary=(
            f"{counted(len(best), 'trial')} completed, {len(failed)} failed. Best validation "
            f"accuracy {best[0].accuracy:.2%} at {best[0].macs:,} multiply-adds, "
            f"{best[0].params:,} parameters."
        ),
        proxy=_proxy_line(load_choice(folder), len(trials)),
        verdict=None if found is None else str(found),
        finalist_columns=finalist_columns,
        finalists=finalist_rows,
        figures=_drawn([*clickable, *others]),
        clickable=len(clickable),
        columns=columns,
        leaderboard=[
            (row, _training_command(trial, source)) for row, trial in zip(rows, best, strict=True)
        ],
        failed=failed,
        spec=(found.finalists[0].spec if found else best[0].spec).to_json(),
    )


def _training_command(trial: SearchedTrial, source: str | None) -> str | None:
    """What trains a network fully; None in a search that did not store it."""
    if not (trial.folder / SPEC_FILE).is_file():
        return None
    spec = shlex.quote(str(trial.folder / SPEC_FILE))
    data = "" if source is None else f" {data_option(source)}"
    return f"keras-inception train --spec {spec}{data}"


def _drawn(figures: Sequence[go.Figure]) -> list[str]:
    """The figures as HTML; the first one brings Plotly's library."""
    return [
        to_html(
            figure,
            full_html=False,
            include_plotlyjs=index == 0,
            config={"responsive": True, "displayModeBar": False},
        )
        for index, figure in enumerate(figures)
    ]


def _proxy_line(choice: FidelityChoice | None, trials: int) -> str:
    if choice is None:
        return (
            "How well the trials rank networks was not measured before the search: differences "
            "between neighbors in the leaderboard may be chance."
        )
    return choice.describe(trials)


def _hover(trial: SearchedTrial) -> str:
    """A point's network: its widths, module by module."""
    lines = [f"trial {trial.number}: {trial.accuracy:.2%}"]
    lines.append(f"{trial.macs:,} multiply-adds, {trial.params:,} parameters")
    for module in trial.spec.modules:
        columns = ", ".join(f"{name} {width}" for name, width in module.widths().items())
        lines.append(f"<b>{html.escape(module.name)}</b> {columns}")
    return "<br>".join(lines)


def _points(trials: Sequence[SearchedTrial], x: list[float], name: str) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=[trial.accuracy for trial in trials],
        mode="markers",
        name=name,
        text=[_hover(trial) for trial in trials],
        customdata=[trial.number for trial in trials],
        hoverinfo="text",
    )


def _progress_figure(trials: Sequence[SearchedTrial]) -> go.Figure:
    completed = completed_of(trials)
    numbers = [float(trial.number) for trial in completed]
    best = np.maximum.accumulate([trial.accuracy for trial in completed]).tolist()
    figure = go.Figure([_points(completed, numbers, "trial")])
    figure.add_scatter(x=numbers, y=best, mode="lines", line_shape="hv", name="best so far")
    return _titled(figure, "Progress", "trial", "validation accuracy")


def _costs(budget: NetworkBound) -> dict[str, Callable[[SearchedTrial], float]]:
    """The axes of the charts: what a trial costs."""
    costs: dict[str, Callable[[SearchedTrial], float]] = {
        "multiply-adds": attrgetter("macs"),
        "parameters": attrgetter("params"),
    }
    if isinstance(budget, LatencyBudget):
        model = budget.model
        costs["predicted ms an image"] = lambda trial: model.milliseconds(network_cost(trial.spec))
    return costs


def _pareto_figures(trials: Sequence[SearchedTrial], budget: NetworkBound) -> list[go.Figure]:
    """Accuracy against the costs that differ between networks; a fixed budget is no axis."""
    completed = completed_of(trials)
    figures = []
    for name, cost in _costs(budget).items():
        values = [float(cost(trial)) for trial in completed]
        if max(values) <= _SAME_COST * min(values):
            continue
        front = pareto_front(completed, cost)
        figure = go.Figure([_points(completed, values, "trial")])
        figure.add_scatter(
            x=[cost(trial) for trial in front],
            y=[trial.accuracy for trial in front],
            mode="lines",
            line_shape="hv",
            name="best for its cost",
        )
        title = f"Accuracy against {name}"
        figures.append(_titled(figure, title, name, "validation accuracy"))
    return figures


def _importance_figure(weights: dict[str, float]) -> go.Figure:
    names = list(weights)[::-1]
    figure = go.Figure([go.Bar(x=[weights[name] for name in names], y=names, orientation="h")])
    return _titled(figure, "Importance of the hyperparameters", "share", "")


def _stage_figures(best: Sequence[SearchedTrial]) -> list[go.Figure]:
    figures = []
    for name, by_stage in stage_rows(best).items():
        figure = go.Figure(
            [
                go.Box(y=values, name=f"stage {stage}", boxpoints="all", showlegend=False)
                for stage, values in by_stage.items()
            ]
        )
        # Short, since a phone has the width of some 30 letters.
        title = f"{name} by stage" + (f", best {len(best)}" if len(best) > 1 else "")
        figures.append(_titled(figure, title, "", name))
    return figures


def _titled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    return figure.update_layout(
        title={"text": title, "font_size": 15},
        xaxis_title=x,
        yaxis_title=y,
        height=420,
        margin={"l": 60, "r": 20, "t": 70, "b": 50},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )
