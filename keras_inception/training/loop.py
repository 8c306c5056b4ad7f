"""The loop around the training step: epochs, Keras's callbacks, snapshots, requests to stop."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_inception.data.splits import ImageData
from keras_inception.data.stream import padded_evaluation_batches
from keras_inception.files import BEST_FILE, MODEL_FILE, aside
from keras_inception.keras_compat import without_tensorflow
from keras_inception.new_folders import begun
from keras_inception.training.progress import (
    TRAINING,
    Progress,
    TrainingDivergedError,
    TrainingInterruptedError,
    write_history,
)
from keras_inception.training.signals import StopSignals
from keras_inception.training.snapshot import Snapshot, Snapshots
from keras_inception.training.step import Trainer

# Beside the model, the weights as they are without the average, if the recipe averages.
UNAVERAGED_FILE = "unaveraged.keras"


class _StopError(Exception):
    """This process is asked to stop while it evaluates."""


class TrainingLoop:
    """Trains to the end of the recipe, from where `progress` stands.

    Where the trainer starts steps ahead (`Trainer.steps_ahead`), the metrics of a step come, and
    callbacks are called, while the next ones run; before anything is written the loop waits for
    all of them. Several processes stop after the same step: each adds its request to a step, and
    all act on the sum as many steps later as they start ahead.

    Args:
        trainer: the network and its step.
        data: images and labels.
        folder: where each epoch leaves its model and the history; None in a process that does
            not write.
        snapshots: of the run.
        identity: goes into each snapshot: what must be the same when it is resumed.
        callbacks: Keras callbacks. What they remember is not in the snapshots; their `model` has
            logits as outputs.
        verbose: as in Keras's `fit`: 1 shows its progress bar, 2 a line an epoch.
        report: called with what a wait of seconds is for, when it begins.
    """

    def __init__(
        self,
        trainer: Trainer,
        data: ImageData,
        *,
        folder: Path | None,
        snapshots: Snapshots,
        identity: dict[str, Any],
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: int = 0,
        report: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.progress = Progress()
        self.trainer = trainer
        self._recipe = trainer.recipe
        self._data = data
        self._stream = trainer.stream(data.train)
        self._folder = folder
        self._snapshots = snapshots
        self._identity = identity
        self._report = report
        self._steps_per_epoch = trainer.recipe.steps_per_epoch(len(data.train))
        self._alone = trainer.process[1] == 1
        self._callbacks = keras.callbacks.CallbackList(
            list(callbacks),
            model=trainer.model,
            add_history=True,
            add_progbar=verbose != 0,
            epochs=trainer.recipe.epochs,
            steps=self._steps_per_epoch,
            verbose=verbose,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from the snapshot."""
        self.trainer.restore(snapshot.arrays)
        progress = snapshot.document.get("progress")
        if progress is None:
            raise ValueError("Expected a snapshot of a training. Received: one without `progress`.")
        self.progress = Progress(**progress)

    def run(self, signals: StopSignals) -> None:
        """Train to the end, or until a signal comes.

        Raises:
            TrainingInterruptedError: SIGINT, SIGTERM or SIGHUP came, and a snapshot of this step is
                written; or another worker was lost.
            TrainingDivergedError: a loss or a weight is not finite.
            OSError: something cannot be written.
        """
        if self.progress.finished:
            return
        model = self.trainer.model
        model.stop_training = False
        self._callbacks.on_train_begin()
        model.history.epoch = list(range(self.progress.epoch))
        model.history.history = {name: [*past] for name, past in self.progress.history.items()}
        self._resumed_at = time.monotonic() - self.progress.seconds
        self._saved_step = self.progress.step
        self._compiled = False
        self._started: deque[Any] = deque()  # steps that run
        self._stop_after: int | None = None  # the step after which all processes stop
        try:
            with closing(self._batches()) as batches:
                while not self.progress.finished:
                    self._epoch(batches, signals)
        except self.trainer.lost_process_errors as error:
            if self._alone:
                raise
            raise TrainingInterruptedError(
                f"Another worker was lost after step {self.progress.step}. Start all of them again."
            ) from error
        self._callbacks.on_train_end()

    def _epoch(self, batches: Iterator[Any], signals: StopSignals) -> None:
        progress, model = self.progress, self.trainer.model
        self._callbacks.on_epoch_begin(progress.epoch)
        first = progress.epoch * self._steps_per_epoch
        last = first + self._steps_per_epoch
        for step in range(progress.step + 1, last + 1):
            self._stop_if_asked(step - 1, signals)
            self._start_step(next(batches), step - first - 1, signals)
            due = self._snapshots.is_due(step)
            self._finish_steps(0 if due or step == last else self.trainer.steps_ahead)
            if due and step < last:
                self._save_snapshot()
        try:
            evaluation = self._evaluate(signals)
        except _StopError:  # the evaluation is repeated when the run is resumed
            self._stop_if_asked(last, signals)
        logs = self._means() | {f"val_{name}": value for name, value in evaluation.items()}
        self._callbacks.on_epoch_end(progress.epoch, logs)
        progress.end_epoch(logs)
        progress.finished = (
            model.stop_training
            or progress.epoch == self._recipe.epochs
            or 0 < self._recipe.patience <= progress.epoch - progress.best_epoch
        )
        self._keep_best()
        if self._folder is not None:
            write_history(self._folder, progress.history)
        self._save_snapshot()

    def _start_step(self, batch: Any, number: int, signals: StopSignals) -> None:
        if not self._compiled:
            self._report("compiling the training step")
        self._callbacks.on_train_batch_begin(number)
        stop = signals.received is not None
        self._started.append(self.trainer.start_step(batch, stop=stop))
        if not self._compiled:
            self._finish_steps(0)
            self._compiled = True
            if self._folder is not None:
                begun(self._folder)
            self._report(TRAINING)

    def _finish_steps(self, remaining: int) -> None:
        """Wait for the metrics of all steps but the last `remaining`."""
        while len(self._started) > remaining:
            metrics, stop = self.trainer.finish_step(self._started.popleft())
            self.progress.add(metrics)
            if not np.isfinite(metrics["loss"]):
                raise self._diverged(f"a loss of {metrics['loss']}")
            if stop and self._stop_after is None:
                self._stop_after = self.progress.step + self.trainer.steps_ahead
            number = (self.progress.step - 1) % self._steps_per_epoch
            self._callbacks.on_train_batch_end(number, self._means())

    def _stop_if_asked(self, step: int, signals: StopSignals) -> None:
        """Stop after a step that was started: this process at once, several together."""
        asked = self._stop_after is not None and step >= self._stop_after
        if not asked and not (self._alone and signals.received is not None):
            return
        self._finish_steps(0)
        if self.progress.step > self._saved_step:
            self._save_snapshot()
        raise TrainingInterruptedError(
            f"Stopped after step {self.progress.step}, as asked.", by_hand=signals.by_hand
        )

    def _means(self) -> dict[str, float]:
        """Of each metric, over the steps of this epoch."""
        steps = self.progress.step - self.progress.epoch * self._steps_per_epoch
        return {name: total / steps for name, total in self.progress.sums.items()}

    def _evaluate(self, signals: StopSignals) -> dict[str, float]:
        """Evaluate the averaged weights and keep the models of this epoch."""
        trainer = self.trainer

        def after_batch(number: int) -> None:
            self._callbacks.on_test_batch_end(number)
            if self._alone and signals.received is not None:
                raise _StopError

        self._require_finite(trainer.state())
        self._report("evaluating")
        with trainer.averaged(self._training_shards(0)):
            evaluation = trainer.evaluate(self._evaluation_shard, after_batch)
            self._save_model(MODEL_FILE)
        if trainer.average:
            self._save_model(UNAVERAGED_FILE)
        self._report(TRAINING)
        return evaluation

    def _save_model(self, name: str) -> None:
        if self._folder is not None:
            with aside(self._folder / name) as path, without_tensorflow():
                self.trainer.deployed().save(path)

    def _keep_best(self) -> None:
        if self._folder is not None and self.progress.best_epoch == self.progress.epoch:
            with aside(self._folder / BEST_FILE) as path:
                shutil.copyfile(self._folder / MODEL_FILE, path)

    def _save_snapshot(self) -> None:
        if self._folder is None:
            return
        state = self.trainer.state()
        self._require_finite(state)
        self.progress.seconds = time.monotonic() - self._resumed_at
        document = {
            "identity": self._identity,
            "progress": asdict(self.progress),
            "saved_at": time.time(),
        }
        self._snapshots.save(self.progress.step, Snapshot(document, state))
        self._saved_step = self.progress.step

    def _require_finite(self, state: dict[str, np.ndarray]) -> None:
        if not all(np.isfinite(values).all() for values in state.values()):
            raise self._diverged("a weight that is not finite")

    def _diverged(self, what: str) -> TrainingDivergedError:
        return TrainingDivergedError(
            f"Expected finite losses and weights. Received: {what} at step {self.progress.step}, "
            f"in epoch {self.progress.epoch + 1}. Lower base_learning_rate or set clip_norm."
        )

    def _batches(self) -> Generator[Any, None, None]:
        return self.trainer.batches(self._training_shards(self.progress.step))

    def _training_shards(self, start_step: int) -> Callable[[int, int], Any]:
        return partial(self._stream, start_step)

    def _evaluation_shard(self, index: int, count: int) -> Any:
        return padded_evaluation_batches(
            self._data.test, self.trainer.spec, self._recipe.batch_size, index, count
        )
