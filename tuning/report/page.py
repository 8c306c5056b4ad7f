"""The report of a search: one HTML page that works offline, pictures, CSV, TensorBoard's HParams.

The page's pictures are Plotly's, where a point shows its network; `pictures` has them as PNG.
"""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.io import to_html
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from keras_inception.files import aside, write_text
from tuning.proxy_quality import Trust
from tuning.report.pictures import BEST, draw_pictures
from tuning.run import best_spec
from tuning.space import Dimension, Space
from tuning.trials import (
    SearchedTrial,
    best_first,
    completed_of,
    pareto_front,
    read_search,
    read_trials,
    stage_rows,
)

REPORT_FILE = "report.html"
LEADERBOARD_FILE = "leaderboard.csv"
_FEWEST_FOR_IMPORTANCE = 8


def write_report(folder: Path) -> Path:
    """Write the report of a search beside its trials, while it runs or later.

    Writes report.html, leaderboard.csv, best_spec.json, pareto.png, importance.png, stages.png and
    progress.png.

    Returns:
        The page.

    Raises:
        ValueError: no search in the folder, or no completed trial.
    """
    search, trials = read_search(folder), read_trials(folder)
    best = best_first(trials)
    if not best:
        raise ValueError(
            f"Expected a completed trial. Received: {str(folder)!r} with {len(trials)} trials, "
            f"none of them completed.{_last_reason(trials)}"
        )
    if (spec := best_spec(folder)) is not None:
        write_text(folder / "best_spec.json", spec.to_json())
    _write_leaderboard(best, folder / LEADERBOARD_FILE)
    space = Space.from_json(json.dumps(search["space"]))
    weights = importance(trials, space.dimensions)
    draw_pictures(trials, weights, folder)
    page = _page(search, trials, weights, Trust.load(folder))
    write_text(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def importance(
    trials: Sequence[SearchedTrial], dimensions: Sequence[Dimension]
) -> dict[str, float]:
    """How much of the accuracy's variance a random forest loses when a hyperparameter is shuffled.

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
        rows.writerow([*columns, "params", "seconds", *names])
        for place, trial in enumerate(best, start=1):
            metrics = trial.metrics
            own = [trial.number, trial.round, trial.epochs, trial.accuracy, metrics["val_loss"]]
            cost = [trial.macs, trial.params, metrics["seconds"]]
            rows.writerow([place, *own, *cost, *(trial.values.get(name) for name in names)])


def _page(
    search: dict[str, Any],
    trials: Sequence[SearchedTrial],
    weights: dict[str, float],
    trust: Trust | None,
) -> str:
    best = best_first(trials)
    failed = [trial for trial in trials if trial.status == "FAILED"]
    figures = [_progress_figure(trials), _pareto_figure(trials)]
    if weights:
        figures.append(_importance_figure(weights))
    figures += _stage_figures(best[:BEST])
    parts = [
        to_html(figure, full_html=False, include_plotlyjs=index == 0)
        for index, figure in enumerate(figures)
    ]
    title = f"Search of {search['space']['base']['name']} on {search['data']['name']}"
    return _TEMPLATE.format(
        title=html.escape(title),
        summary=html.escape(
            f"{len(best)} trials completed, {len(failed)} failed. Best validation accuracy "
            f"{best[0].accuracy:.2%} at {best[0].macs:,} multiply-adds, {best[0].params:,} "
            "parameters."
        ),
        trust=html.escape(_trust_line(trust)),
        figures="\n".join(parts),
        leaderboard=_table(best),
        failures=_failures(failed),
        spec=html.escape(best[0].spec.to_json()),
    )


def _trust_line(trust: Trust | None) -> str:
    if trust is None:
        return (
            "Noise and rank correlation were not measured: differences between neighbours in the "
            "leaderboard may be chance."
        )
    return (
        f"One network over {len(trust.seeds)} seeds: standard deviation {trust.noise:.2%}; over "
        f"networks {trust.spread:.2%}. Rank correlation of cheap and full trainings "
        f"{trust.rank_correlation:.2f} ({len(trust.cheap)} networks)."
    )


def _hover(trial: SearchedTrial) -> str:
    """A point's network: its widths, module by module."""
    lines = [f"trial {trial.number}: {trial.accuracy:.2%}"]
    lines.append(f"{trial.macs:,} multiply-adds, {trial.params:,} parameters")
    for module in trial.spec.modules:
        columns = ", ".join(f"{name} {width}" for name, width in module.widths().items())
        lines.append(f"<b>{module.name}</b> {columns}")
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


def _pareto_figure(trials: Sequence[SearchedTrial]) -> go.Figure:
    completed = completed_of(trials)
    front = pareto_front(trials)
    figure = go.Figure([_points(completed, [trial.macs for trial in completed], "trial")])
    figure.add_scatter(
        x=[trial.macs for trial in front],
        y=[trial.accuracy for trial in front],
        mode="lines",
        name="front",
    )
    return _titled(figure, "Accuracy against multiply-adds", "multiply-adds", "validation accuracy")


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
        title = f"{name} by stage, in the best {len(best)} networks"
        figures.append(_titled(figure, title, "", name))
    return figures


def _titled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    return figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, height=420)


def _table(best: Sequence[SearchedTrial]) -> str:
    rows = [
        f"<tr><td>{place}</td><td>{trial.number}</td><td>{trial.accuracy:.2%}</td>"
        f"<td>{trial.macs:,}</td><td>{trial.params:,}</td>"
        f"<td>{'' if trial.epochs is None else trial.epochs}</td>"
        f"<td>{trial.metrics['seconds']:.0f}</td></tr>"
        for place, trial in enumerate(best, start=1)
    ]
    return "\n".join(rows)


def _failures(failed: Sequence[SearchedTrial]) -> str:
    if not failed:
        return "<p>None.</p>"
    items = [
        f"<details><summary>trial {trial.number}: "
        f"{html.escape((trial.message or 'no message').strip().splitlines()[-1])}</summary>"
        f"<pre>{html.escape(trial.message or '')}</pre></details>"
        for trial in failed
    ]
    return "\n".join(items)


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }}
pre {{ overflow: auto; background: #f6f6f6; padding: 1rem; }}
#shown {{ white-space: pre-line; background: #f6f6f6; padding: 1rem; min-height: 3rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
<p>{trust}</p>
<p id="shown">Click a point to keep its network here.</p>
{figures}
<h2>Leaderboard</h2>
<table id="leaderboard">
<tr><th></th><th>trial</th><th>accuracy</th><th>multiply-adds</th><th>parameters</th>
<th>epochs</th><th>seconds</th></tr>
{leaderboard}
</table>
<h2>Failed trials</h2>
{failures}
<h2>The best network</h2>
<pre id="best-spec">{spec}</pre>
<script>
for (const plot of document.querySelectorAll(".plotly-graph-div")) {{
  plot.on("plotly_click", event => {{
    const text = event.points[0].text;
    if (text) {{
      document.getElementById("shown").innerHTML = text;
    }}
  }});
}}
</script>
</body>
</html>
"""
