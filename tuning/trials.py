"""A search's folder read back: its trials, how they stand, and which are the best."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_inception.cost.layers import network_cost
from keras_inception.spec.network import NetworkSpec
from tuning.engine.oracle import EPOCHS_VALUE, ROUND_VALUE
from tuning.space import Space, Value

SEARCH_FILE = "search.json"
COMPLETED = "COMPLETED"  # KerasTuner's status


@dataclass(frozen=True, kw_only=True)
class SearchedTrial:
    """A trial of a search.

    Attributes:
        number: in the order of the proposals.
        status: KerasTuner's: "COMPLETED", "FAILED", "RUNNING", ...
        values: of the hyperparameters.
        metrics: "val_accuracy", "val_loss", "training_seconds", "seconds", ...; empty unless
            completed.
        spec: its network.
        macs, params: what it costs, counted from the spec.
        round: of successive halving, from 0.
        epochs: that it was trained for; None: the recipe's.
        message: why it failed.
    """

    number: int
    status: str
    values: dict[str, Value]
    metrics: dict[str, float]
    spec: NetworkSpec
    macs: int
    params: int
    round: int
    epochs: int | None
    message: str | None

    @property
    def accuracy(self) -> float:
        """Top-1 share of the held-out images."""
        return self.metrics["val_accuracy"]


def read_search(folder: Path) -> dict[str, Any]:
    """The identity of the search in a folder.

    Raises:
        ValueError: no search.
    """
    try:
        return json.loads((folder / SEARCH_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected the folder of a search, which holds {SEARCH_FILE}. Received: {str(folder)!r}"
        ) from error


def read_trials(folder: Path) -> list[SearchedTrial]:
    """All trials of a search, while it runs or later, in the order of their numbers."""
    space = Space.from_json(json.dumps(read_search(folder)["space"]))
    return sorted((_trial(state, space) for state in _states(folder)), key=lambda t: t.number)


def _states(folder: Path) -> Iterator[dict[str, Any]]:
    """KerasTuner's own JSON of each trial."""
    for file in folder.glob("trial_*/trial.json"):
        try:
            yield json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue  # set aside when the search is taken up again


def _metrics(state: dict[str, Any]) -> dict[str, float]:
    """The numbers of a completed trial; of others none."""
    histories = state["metrics"]["metrics"] if state["status"] == COMPLETED else {}
    return {name: history["observations"][0]["value"][0] for name, history in histories.items()}


def _trial(state: dict[str, Any], space: Space) -> SearchedTrial:
    values = state["hyperparameters"]["values"]
    spec = space.spec(values)
    cost = network_cost(spec).total
    return SearchedTrial(
        number=int(state["trial_id"]),
        status=state["status"],
        values={name: value for name, value in values.items() if not name.startswith("tuner/")},
        metrics=_metrics(state),
        spec=spec,
        macs=cost.macs,
        params=cost.params,
        round=values.get(ROUND_VALUE, 0),
        epochs=values.get(EPOCHS_VALUE),
        message=state["message"],
    )


def completed_of(trials: Sequence[SearchedTrial]) -> list[SearchedTrial]:
    """The completed trials, in their order."""
    return [trial for trial in trials if trial.status == COMPLETED]


def best_first(trials: Sequence[SearchedTrial]) -> list[SearchedTrial]:
    """The completed trials: those trained for more epochs before the others, then by accuracy."""
    return sorted(completed_of(trials), key=lambda trial: (-(trial.epochs or 0), -trial.accuracy))


def pareto_front(trials: Sequence[SearchedTrial]) -> list[SearchedTrial]:
    """Completed trials that no other beats in both accuracy and multiply-adds, cheapest first."""
    front: list[SearchedTrial] = []
    for trial in sorted(completed_of(trials), key=lambda trial: (trial.macs, -trial.accuracy)):
        if not front or trial.accuracy > front[-1].accuracy:
            front.append(trial)
    return front


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a search stands.

    Attributes:
        done, failed, running: numbers of trials.
        best: the best accuracy so far; None: none yet.
        seconds_left: by the mean of the trials so far; None: not known.
    """

    done: int
    failed: int
    running: int
    best: float | None
    seconds_left: float | None


def standing(folder: Path, *, max_trials: int, workers: int) -> Standing:
    """How the search in a folder stands, from its files alone: cheap enough to ask each second."""
    states = list(_states(folder))
    completed = [_metrics(state) for state in states if state["status"] == COMPLETED]
    failed = sum(state["status"] == "FAILED" for state in states)
    left = max(0, max_trials - len(completed) - failed)
    seconds = [metrics["seconds"] for metrics in completed]
    return Standing(
        done=len(completed),
        failed=failed,
        running=sum(state["status"] == "RUNNING" for state in states),
        best=max((metrics["val_accuracy"] for metrics in completed), default=None),
        seconds_left=left * sum(seconds) / len(seconds) / workers if seconds else None,
    )


def stage_shares(spec: NetworkSpec) -> dict[str, dict[str, float]]:
    """By stage, how its modules spend their widths, summed over the modules.

    Returns:
        For each stage: "3x3 : 5x5" (if it has both), "spatial" (share of the spatial branches in
        the outputs), "reduce 3x3" and so on (reduction filters for each input channel).
    """
    channels = spec.module_inputs()
    found: dict[str, dict[str, float]] = {}
    for stage in spec.stages:
        spatial: dict[str, int] = {}
        reduces: dict[str, int] = {}
        branches = [b for module in stage.modules for b in module.branches(channels[module.name])]
        for conv in (conv for branch in branches for conv in branch.convolutions):
            if conv.suffix.endswith("_reduce"):
                name = conv.suffix.removesuffix("_reduce")
                reduces[name] = reduces.get(name, 0) + conv.filters
            elif conv.kernel_size > 1:
                spatial[conv.suffix] = spatial.get(conv.suffix, 0) + conv.filters
        outputs = sum(branch.output_filters for branch in branches)
        inputs = sum(channels[module.name] for module in stage.modules)
        row = {"spatial": sum(spatial.values()) / outputs}
        if {"3x3", "5x5"} <= set(spatial):
            row["3x3 : 5x5"] = spatial["3x3"] / spatial["5x5"]
        row |= {f"reduce {name}": count / inputs for name, count in reduces.items()}
        found[stage.name] = row
    return found


def stage_rows(trials: Sequence[SearchedTrial]) -> dict[str, dict[str, list[float]]]:
    """By quantity ("3x3 : 5x5", "spatial", "reduce 3x3", ...) and stage, one number a network."""
    rows: dict[str, dict[str, list[float]]] = {}
    for trial in trials:
        for stage, shares in stage_shares(trial.spec).items():
            for name, value in shares.items():
                rows.setdefault(name, {}).setdefault(stage, []).append(value)
    return rows
