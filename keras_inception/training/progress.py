"""Where a run stands: its numbers, and how it can end early."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from keras_inception.files import aside, csv_text

HISTORY_FILE = "history.csv"
# What a run reports before its steps; everything else that it reports is a wait.
TRAINING = "training"


class TrainingInterruptedError(RuntimeError):
    """The run stopped before its end; the same command resumes it from its last snapshot.

    `by_hand`: by Ctrl-C.
    """

    def __init__(self, message: str, *, by_hand: bool = False) -> None:
        super().__init__(message)
        self.by_hand = by_hand


class TrainingDivergedError(FloatingPointError):
    """The loss or a weight is no finite number any more; what is kept is from before."""


@dataclass
class Progress:
    """Where a run stands; a snapshot holds it beside the trainer's state.

    Attributes:
        step: training steps taken.
        epoch: complete epochs.
        sums: of each metric over the steps of the epoch that is not complete.
        history: of each metric, a number an epoch.
        seconds: spent on training, in all processes of the run.
        finished: the last epoch has finished, or the run ended early: by `patience` or a callback.
    """

    step: int = 0
    epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    finished: bool = False

    @property
    def best_epoch(self) -> int:
        """The first epoch of the highest held-out accuracy, counted from 1; 0 before the first."""
        accuracies = self.history.get("val_accuracy", [])
        return accuracies.index(max(accuracies)) + 1 if accuracies else 0

    def add(self, metrics: dict[str, float]) -> None:
        """Take in the metrics of a step."""
        self.step += 1
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Take in the metrics of an epoch."""
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(float(value))
        self.sums = {}
        self.epoch += 1


def write_history(folder: Path, history: dict[str, list[float]]) -> None:
    """Write the metrics as `history.csv`: a column each, a row for each epoch."""
    epochs = zip(*history.values(), strict=True)
    rows = [(epoch, *metrics) for epoch, metrics in enumerate(epochs, start=1)]
    with aside(folder / HISTORY_FILE) as path, path.open("w", newline="") as file:
        csv.writer(file).writerows([("epoch", *map(csv_text, history)), *rows])
