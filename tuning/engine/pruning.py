"""Stops trials whose learning curve falls behind those of others, by Optuna's pruners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import optuna

# The metric of a trial that was stopped: its complete epochs.
STOPPED_EPOCH = "stopped_epoch"
Pruning = Literal["none", "median", "halving"]


def is_behind(pruning: Pruning, curve: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether a trial is to be stopped after its last epoch.

    Args:
        pruning: "median": Optuna's `MedianPruner` at its defaults: a trial is stopped whose best
            accuracy so far is below the median of others at this epoch, once five have ended;
            "halving": its `SuccessiveHalvingPruner`; "none": never.
        curve: accuracies after each epoch so far.
        others: those of trials that have ended.
    """
    if pruning == "none":
        return False
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", pruner=_pruner(pruning))
    for other in others:
        trial = study.ask()
        for epoch, accuracy in enumerate(other, start=1):
            trial.report(accuracy, epoch)
            trial.should_prune()  # successive halving notes the rungs that a trial has reached
        study.tell(trial, other[-1])
    trial = study.ask()
    behind = False
    for epoch, accuracy in enumerate(curve, start=1):
        trial.report(accuracy, epoch)
        behind = bool(trial.should_prune())
    return behind


def _pruner(pruning: Pruning) -> optuna.pruners.BasePruner:
    if pruning == "median":
        return optuna.pruners.MedianPruner()
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
