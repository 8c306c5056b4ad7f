"""Train one candidate of a search: cheaply, resumably, and timed."""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_inception.data.folder import held_out_rows
from keras_inception.data.splits import AnySplit, ImageData, Split
from keras_inception.keras_compat import without_tensorflow
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.spec.validation import is_finite
from keras_inception.training.loop import TrainingLoop
from keras_inception.training.losses import with_class_weights
from keras_inception.training.signals import StopSignals
from keras_inception.training.snapshot import Snapshot, Snapshots
from keras_inception.training.strategy import Strategy, make_trainer
from keras_inception.wording import counted

STATE_FOLDER = "state"


@dataclass(frozen=True)
class TrialResult:
    """The result of a training.

    Attributes:
        accuracy, loss: top-1 share and cross-entropy in nats, on the held-out images.
        training_seconds: of the steps, without the compilation in the first one.
        evaluation_seconds: of the evaluations after each epoch.
        seconds: of everything, building and compiling too.
        curve: accuracies after each epoch.
        stopped: whether it ended before its last epoch, as `after_epoch` asked.
    """

    accuracy: float
    loss: float
    training_seconds: float
    evaluation_seconds: float
    seconds: float
    curve: tuple[float, ...] = ()
    stopped: bool = False


def is_curve(value: Any) -> bool:
    """Whether a value of a file is a list of accuracies, at least one."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(is_finite(item) and 0 <= item <= 1 for item in value)
    )


def hold_out(data: ImageData, share: float, seed: int = 0) -> ImageData:
    """Hold out a share of each class of the training images: a search must not use the test images.

    Raises:
        ValueError: a share that leaves nothing to train or nothing to validate with.
    """
    count = len(data.train)
    valid = 0 < round(share * count) < count
    rows = held_out_rows(data.train.labels, share, seed) if valid else np.zeros(count, bool)
    if not rows.any():
        raise ValueError(
            f"Expected a share of {counted(count, 'image')} that leaves some on both sides. "
            f"Received: share={share!r}"
        )
    return replace(
        data,
        train=_rows(data.train, np.flatnonzero(~rows)),
        test=_rows(data.train, np.flatnonzero(rows)),
        final_test=None,
        note=f"{rows.sum()} of {counted(count, 'training image')} held out",
    )


def subset(data: ImageData, fraction: float, seed: int = 0) -> ImageData:
    """Return a random fraction of the training images with all held-out images."""
    count = len(data.train)
    kept = round(fraction * count)
    if not 0 < kept <= count:
        raise ValueError(
            f"Expected a fraction above 0, up to 1. Received: data_fraction={fraction!r}"
        )
    order = np.random.default_rng(seed).permutation(count)
    return replace(data, train=_rows(data.train, np.sort(order[:kept])))


def _rows(split: AnySplit, rows: np.ndarray) -> AnySplit:
    if isinstance(split, Split):
        return Split(split.images[rows], split.labels[rows])
    return replace(split, files=tuple(split.files[row] for row in rows), labels=split.labels[rows])


def at_resolution(spec: NetworkSpec, resolution: int | None) -> NetworkSpec:
    """The network on images of this height and width; None: unchanged."""
    return spec if resolution is None else spec.with_size(resolution)


def train_candidate(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    *,
    epochs: int,
    folder: str | os.PathLike[str] | None = None,
    start_from: str | os.PathLike[str] | None = None,
    strategy: Strategy = None,
    after_step: Callable[[], None] = lambda: None,
    after_epoch: Callable[[list[float]], bool] = lambda curve: False,
) -> TrialResult:
    """Train up to an epoch of the recipe and evaluate.

    Args:
        spec, data, recipe: as for `keras_inception.training.run.train`. The schedule is the whole
            recipe's, however few `epochs` are trained.
        epochs: complete ones at the end.
        folder: where to save the weights, the optimizer and the averages; None: nowhere.
        start_from: the `folder` of a training to continue; if it does not exist (on another
            machine) or is damaged, training starts from the beginning.
        strategy: of `make_strategy`; None: one device.
        after_step: called after every step, and after every batch of the evaluation.
        after_epoch: called after every epoch but the last with the accuracies so far; True stops
            the training.

    Raises:
        TrainingDivergedError: a loss or a weight is not finite.
        TrainingInterruptedError: SIGTERM or SIGINT came.
    """
    started = time.monotonic()
    _reset_keras(recipe.seed)
    total_steps = recipe.total_steps(len(data.train))
    trainer = make_trainer(
        spec, with_class_weights(recipe, data), strategy, total_steps=total_steps
    )
    clock = _Clock(epochs, after_step, after_epoch)
    snapshots = Snapshots(Path(folder or "") / STATE_FOLDER, every_minutes=None)
    loop = TrainingLoop(
        trainer, data, folder=None, snapshots=snapshots, identity={}, callbacks=[clock]
    )
    if start_from is not None:
        _restore(loop, Path(start_from))
    clock.curve = [*loop.progress.history.get("val_accuracy", [])]
    with StopSignals() as signals:
        loop.run(signals)
    progress = loop.progress
    if folder is not None:
        document = {"progress": {**vars(progress), "finished": progress.epoch == recipe.epochs}}
        snapshots.save(progress.step, Snapshot(document, trainer.state()))
    return TrialResult(
        accuracy=progress.history["val_accuracy"][-1],
        loss=progress.history["val_loss"][-1],
        training_seconds=clock.training_seconds,
        evaluation_seconds=clock.evaluation_seconds,
        seconds=time.monotonic() - started,
        curve=tuple(clock.curve),
        stopped=progress.epoch < epochs,
    )


def _restore(loop: TrainingLoop, folder: Path) -> None:
    """Continue from what another training saved; a damaged file is reported and not used."""
    try:
        snapshot = Snapshots(folder / STATE_FOLDER).newest(set_aside=False)
    except ValueError as error:
        warnings.warn(f"{error} This training starts from the beginning.", stacklevel=3)
        return
    if snapshot is not None:
        loop.restore(snapshot)


def _reset_keras(seed: int) -> None:
    """Free the networks before this one, and draw what a process of its own would draw."""
    keras.backend.clear_session()
    gc.collect()
    with without_tensorflow():
        keras.utils.set_random_seed(seed)


class _Clock(keras.callbacks.Callback):
    """Stops the training after some epochs, and times its parts."""

    def __init__(
        self,
        epochs: int,
        after_step: Callable[[], None],
        after_epoch: Callable[[list[float]], bool],
    ) -> None:
        super().__init__()
        self.curve: list[float] = []
        self._after_epoch = after_epoch
        self._epochs = epochs
        self._after_step = after_step
        self._steps: list[float] = []
        self._ended = 0.0
        self.evaluation_seconds = 0.0

    @property
    def training_seconds(self) -> float:
        """Seconds of all steps; the first, which is compiled, counts as a median one."""
        later = self._steps[1:] or self._steps
        return float(sum(later) + np.median(later)) if later else 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._ended = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # From end to end: the next steps may have begun.
        began, self._ended = self._ended, time.monotonic()
        self._steps.append(self._ended - began)
        self._after_step()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._after_step()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.evaluation_seconds += time.monotonic() - self._ended
        self.curve.append(float((logs or {})["val_accuracy"]))
        if epoch + 1 >= self._epochs or self._after_epoch(self.curve):
            self.model.stop_training = True
