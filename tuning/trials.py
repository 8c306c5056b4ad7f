"""Read a search's folder: its trials, the search's progress, and which trials are the best."""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from keras_inception.bounded import naming, read_json, read_text
from keras_inception.cost.layers import network_cost
from keras_inception.files import SPEC_FILE
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from tuning.engine.control import TrialControl, point_of
from tuning.engine.pruning import STOPPED_EPOCH
from tuning.engine.records import COMPLETED, trial_state
from tuning.engine.trial_files import TRIAL_FILE, trial_files
from tuning.projection import current_values
from tuning.space import Space, Value, current_document

SEARCH_FILE = "search.json"
# What every completed trial reports.
_NUMBERS = ("val_accuracy", "val_loss", "seconds")
_RENAMED = {"against": "second_objective", "round_epochs": "halving_epochs"}


@dataclass(frozen=True, kw_only=True)
class SearchedTrial:
    """A trial of a search.

    Attributes:
        number: in the order of the proposals.
        status: KerasTuner's: "COMPLETED", "FAILED", "RUNNING", ...
        values: of the hyperparameters.
        metrics: "val_accuracy", "val_loss", "training_seconds", "seconds", ...; empty unless
            completed.
        spec: its network, as it was when the trial was proposed.
        macs, params: the cost of the spec.
        round: of successive halving, from 0.
        epochs: complete ones at its end; None: the recipe's.
        finalist: in the last stage, the number of the trial whose network it trains.
        message: why it failed.
        folder: holds its spec.json.
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
    finalist: int | None
    message: str | None
    folder: Path

    @property
    def accuracy(self) -> float:
        """Top-1 share of the held-out images."""
        return self.metrics["val_accuracy"]

    @property
    def was_stopped(self) -> bool:
        """Whether it ended early, since its accuracy fell behind."""
        return STOPPED_EPOCH in self.metrics


def read_search(folder: Path) -> dict[str, Any]:
    """The identity of the search in a folder.

    Raises:
        ValueError: no search.
    """
    try:
        return _migrated_search(read_json(folder / SEARCH_FILE, "search"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected the folder of a search, which holds {SEARCH_FILE}. Received: {str(folder)!r}"
            f" ({type(error).__name__}: {error})"
        ) from error


def _migrated_search(document: dict[str, Any]) -> dict[str, Any]:
    """A search.json of an earlier version, as this version writes it."""
    current = document | {"space": current_document(document["space"])}
    if "recipe" in document:
        recipe = Recipe.from_json(json.dumps(document["recipe"]))
        current["recipe"] = json.loads(recipe.to_json())
    if "search" in document:
        search = dict(document["search"])
        renamed = {_RENAMED.get(key, key): value for key, value in search.items()}
        current["search"] = {"pruning": "none"} | renamed
    if not isinstance(document["data"], dict):
        raise TypeError("`data` is not an object")
    _space(json.dumps(current["space"]))  # refuses another shape
    return current


def read_trials(folder: str | os.PathLike[str]) -> list[SearchedTrial]:
    """The trials of a search, while it runs or later, in the order of their numbers.

    Those of the last stage are left out: `read_finals` has them.

    Raises:
        ValueError: no search, or a trial's spec.json is not a spec.
    """
    return [trial for trial in _read(folder) if trial.finalist is None]


def read_finals(folder: str | os.PathLike[str]) -> list[SearchedTrial]:
    """The trainings of the finalists, in the order of their numbers."""
    return [trial for trial in _read(folder) if trial.finalist is not None]


def _read(folder: str | os.PathLike[str]) -> list[SearchedTrial]:
    folder = Path(folder)
    space = json.dumps(read_search(folder)["space"])
    trials = [_trial(state, space, file.parent) for file, state in _states(folder)]
    return sorted(trials, key=lambda trial: trial.number)


def _states(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """KerasTuner's JSON of each trial that can be read, with its file; a warning names others."""
    states = []
    for file in trial_files(folder):
        try:
            state = trial_state(file)
            missing = [name for name in _NUMBERS if name not in state["metrics"]["metrics"]]
            if state["status"] == COMPLETED and missing:
                raise ValueError(f"Expected a completed trial with {missing} in {str(file)!r}.")
        except (OSError, ValueError) as error:  # the search sets it aside when it is resumed
            warnings.warn(f"{file} is left out: {error}", stacklevel=3)
            continue
        states.append((file, state))
    return states


def _metrics(state: dict[str, Any]) -> dict[str, float]:
    """The numbers of a completed trial; {} of others."""
    histories = state["metrics"]["metrics"] if state["status"] == COMPLETED else {}
    return {name: history["observations"][0]["value"][0] for name, history in histories.items()}


def _trial(state: dict[str, Any], space: str, folder: Path) -> SearchedTrial:
    values = state["hyperparameters"]["values"]
    control = TrialControl.of(values)
    try:
        spec = _stored_spec(folder)  # whose errors name its own file
        with naming(folder / TRIAL_FILE):
            point = current_values(point_of(values))
            spec = spec or _space(space).spec(point)
    except (LookupError, TypeError, ArithmeticError, AttributeError) as error:
        raise ValueError(
            f"Expected a point of the search's space in {str(folder / TRIAL_FILE)!r}. Received: "
            f"{type(error).__name__}: {error}"
        ) from error
    cost = network_cost(spec).total
    return SearchedTrial(
        number=int(state["trial_id"]),
        status=state["status"],
        values=point,
        metrics=_metrics(state),
        spec=spec,
        macs=cost.macs,
        params=cost.params,
        round=control.round or 0,
        epochs=control.epochs,
        finalist=None if control.finalist is None else int(control.finalist),
        message=state["message"],
        folder=folder,
    )


@functools.lru_cache(maxsize=1)
def _space(text: str) -> Space:
    return Space.from_json(text)


def _stored_spec(folder: Path) -> NetworkSpec | None:
    """The network that a trial's folder holds; None: a search of a version that kept none."""
    file = folder / SPEC_FILE
    if not file.exists():
        return None
    with naming(file):
        return NetworkSpec.from_json(read_text(file))


def completed_of(trials: Sequence[SearchedTrial]) -> list[SearchedTrial]:
    """The completed trials, in their order."""
    return [trial for trial in trials if trial.status == COMPLETED]


def best_first(trials: Sequence[SearchedTrial]) -> list[SearchedTrial]:
    """The completed trials: those trained for more epochs first, stopped ones last; by accuracy."""
    return sorted(
        completed_of(trials),
        key=lambda trial: (trial.was_stopped, -(trial.epochs or 0), -trial.accuracy),
    )


def pareto_front(
    trials: Sequence[SearchedTrial], cost: Callable[[SearchedTrial], float] = attrgetter("macs")
) -> list[SearchedTrial]:
    """Return the trials that no other beats in accuracy and a cost, cheapest first."""

    def place(trial: SearchedTrial) -> tuple[float, float]:
        return cost(trial), -trial.accuracy

    front: list[SearchedTrial] = []
    for trial in sorted(completed_of(trials), key=place):
        if not front or trial.accuracy > front[-1].accuracy:
            front.append(trial)
    return front


@dataclass(frozen=True, kw_only=True)
class SearchProgress:
    """The progress of a search.

    Attributes:
        completed, failed, running: numbers of trials.
        best: the best accuracy so far; None: none yet.
        seconds_left: by the mean of the completed trials; None: not known.
    """

    completed: int
    failed: int
    running: int
    best: float | None
    seconds_left: float | None


def search_progress(folder: Path, *, max_trials: int, workers: int) -> SearchProgress:
    """Read the progress of a search from its files, cheaply enough for once a second."""
    states = [state for _, state in _states(folder)]
    completed = [_metrics(state) for state in states if state["status"] == COMPLETED]
    failed = sum(state["status"] == "FAILED" for state in states)
    left = max(0, max_trials - len(completed) - failed)
    seconds = [metrics["seconds"] for metrics in completed]
    return SearchProgress(
        completed=len(completed),
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
