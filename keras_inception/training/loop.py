"""The loop around the training step: epochs, Keras's callbacks, snapshots, being told to stop.

What is known after a step is in `Progress`, which a snapshot holds beside the trainer's state.
TensorFlow only.
"""

from __future__ import annotations

import csv
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_inception.data.splits import ImageData
from keras_inception.data.stream import padded_evaluation_batches, training_batches
from keras_inception.files import MODEL_FILE, aside
from keras_inception.spec.network import NetworkSpec
from keras_inception.training.snapshot import Snapshot, Snapshots
from keras_inception.training.step import Trainer

# Beside the model, the weights as they are without the average, if the recipe averages.
UNAVERAGED_FILE = "unaveraged.keras"
HISTORY_FILE = "history.csv"
# What TensorFlow raises in the workers that are left.
_LOST_WORKER = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


class TrainingInterruptedError(RuntimeError):
    """The run stopped before its end; the same command goes on from its last snapshot.

    `by_hand`: by Ctrl-C.
    """

    def __init__(self, message: str, *, by_hand: bool = False) -> None:
        super().__init__(message)
        self.by_hand = by_hand


class TrainingDivergedError(FloatingPointError):
    """The loss or a weight is no finite number any more; what is kept is from before."""


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: training steps taken.
        epoch: complete epochs.
        sums: of each metric over the steps of the epoch that is not complete.
        history: of each metric, a number an epoch.
        seconds: spent on training, in all processes of the run.
        finished: the last epoch is over, or a callback ended the run.
    """

    step: int = 0
    epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    finished: bool = False


class TrainingLoop:
    """Trains to the end of the recipe, from where `progress` stands.

    Args:
        trainer: the network and its step.
        spec: of the network.
        data: images and labels.
        folder: where each epoch leaves its model and the history; None in a process that does
            not write.
        snapshots: of the run.
        identity: goes into each snapshot: what must be the same when it is taken up again.
        callbacks: Keras callbacks. What they remember is not in the snapshots.
    """

    def __init__(
        self,
        trainer: Trainer,
        spec: NetworkSpec,
        data: ImageData,
        *,
        folder: Path | None,
        snapshots: Snapshots,
        identity: dict[str, Any],
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        self.progress = Progress()
        self._trainer = trainer
        self._spec = spec
        self._data = data
        self._folder = folder
        self._snapshots = snapshots
        self._identity = identity
        self._steps_per_epoch = trainer.recipe.steps_per_epoch(len(data.train))
        self._callbacks = keras.callbacks.CallbackList(
            list(callbacks),
            model=trainer.model,
            add_history=True,
            epochs=trainer.recipe.epochs,
            steps=self._steps_per_epoch,
            verbose=0,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go on where the snapshot stands."""
        self._trainer.restore(snapshot.arrays)
        self.progress = Progress(**snapshot.document["progress"])

    def run(self, signals: StopSignals) -> None:
        """Train to the end, or until a signal comes.

        Raises:
            TrainingInterruptedError: SIGTERM or SIGINT came, and a snapshot of this step is
                written; or another worker was lost.
            TrainingDivergedError: a loss or a weight is not finite.
            OSError: something cannot be written.
        """
        if self.progress.finished:
            return
        model = self._trainer.model
        model.stop_training = False
        self._callbacks.on_train_begin()
        model.history.epoch = list(range(self.progress.epoch))
        model.history.history = {name: [*past] for name, past in self.progress.history.items()}
        self._resumed_at = time.monotonic() - self.progress.seconds
        batches = iter(self._trainer.distribute(self._training_batches(self.progress.step)))
        if signals.received is not None and not self._trainer.has_other_workers:
            raise self._stopped(signals)  # or after a first step, in which all workers agree
        try:
            while not self.progress.finished:
                self._epoch(batches, signals)
        except _LOST_WORKER as error:
            if not self._trainer.has_other_workers:
                raise
            raise TrainingInterruptedError(
                f"Another worker was lost after step {self.progress.step}. Start all of them again."
            ) from error
        self._callbacks.on_train_end()

    def _epoch(self, batches: Any, signals: StopSignals) -> None:
        progress, model = self.progress, self._trainer.model
        self._callbacks.on_epoch_begin(progress.epoch)
        first = progress.epoch * self._steps_per_epoch
        logs: dict[str, float] = {}
        while progress.step < first + self._steps_per_epoch:
            batch = progress.step - first
            self._callbacks.on_train_batch_begin(batch)
            metrics, stop = self._trainer.step(next(batches), stop=signals.received is not None)
            progress.step += 1
            if not np.isfinite(metrics["loss"]):
                raise self._diverged(f"a loss of {metrics['loss']}")
            for name, value in metrics.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
            logs = {name: total / (batch + 1) for name, total in progress.sums.items()}
            self._callbacks.on_train_batch_end(batch, logs)
            last = batch + 1 == self._steps_per_epoch
            if stop or (not last and self._snapshots.is_due(progress.step)):
                self._save_snapshot()
            if stop:
                raise self._stopped(signals)
        logs |= {f"val_{name}": value for name, value in self._leave_model().items()}
        self._callbacks.on_epoch_end(progress.epoch, logs)
        for name, value in logs.items():
            progress.history.setdefault(name, []).append(float(value))
        progress.sums = {}
        progress.epoch += 1
        progress.finished = model.stop_training or progress.epoch == self._trainer.recipe.epochs
        if self._folder is not None:
            write_history(self._folder, progress.history)
        self._save_snapshot()

    def _leave_model(self) -> dict[str, float]:
        """Evaluate the averaged weights and keep the models of this epoch."""
        trainer = self._trainer
        self._require_finite(trainer.state())
        with trainer.averaged(self._training_batches(0)):
            evaluation = trainer.evaluate(
                trainer.distribute(self._evaluation_batches), self._callbacks.on_test_batch_end
            )
            self._save_model(MODEL_FILE)
        if trainer.average:
            self._save_model(UNAVERAGED_FILE)
        return evaluation

    def _save_model(self, name: str) -> None:
        if self._folder is not None:
            with aside(self._folder / name) as path:
                self._trainer.deployed(self._spec).save(path)

    def _save_snapshot(self) -> None:
        if self._folder is None:
            return
        state = self._trainer.state()
        self._require_finite(state)
        self.progress.seconds = time.monotonic() - self._resumed_at
        document = {"identity": self._identity, "progress": asdict(self.progress)}
        self._snapshots.save(self.progress.step, Snapshot(document, state))

    def _require_finite(self, state: dict[str, np.ndarray]) -> None:
        if not all(np.isfinite(values).all() for values in state.values()):
            raise self._diverged("a weight that is not finite")

    def _stopped(self, signals: StopSignals) -> TrainingInterruptedError:
        return TrainingInterruptedError(
            f"Stopped after step {self.progress.step}, as asked.",
            by_hand=signals.received == signal.SIGINT,
        )

    def _diverged(self, what: str) -> TrainingDivergedError:
        return TrainingDivergedError(
            f"Expected finite losses and weights. Received: {what} at step {self.progress.step}, "
            f"in epoch {self.progress.epoch + 1}. Lower base_learning_rate or set clip_norm."
        )

    def _training_batches(self, start_step: int) -> Any:
        def shard(index: int, count: int) -> Any:
            return training_batches(
                self._data.train,
                self._spec,
                self._trainer.recipe,
                start_step=start_step,
                shard_index=index,
                shard_count=count,
            )

        return shard

    def _evaluation_batches(self, index: int, count: int) -> Any:
        return padded_evaluation_batches(
            self._data.test, self._spec, self._trainer.recipe.batch_size, index, count
        )


def write_history(folder: Path, history: dict[str, list[float]]) -> None:
    """Leave the metrics as `history.csv`: a column each, a row for each epoch."""
    epochs = zip(*history.values(), strict=True)
    rows = [(epoch, *metrics) for epoch, metrics in enumerate(epochs, start=1)]
    with aside(folder / HISTORY_FILE) as path, path.open("w", newline="") as file:
        csv.writer(file).writerows([("epoch", *history), *rows])


class StopSignals:
    """Within it, the first SIGTERM (pre-emption) or SIGINT (Ctrl-C) is only noted.

    An exception raised by a signal gets lost, or aborts the process, where TensorFlow builds and
    traces: it calls Python from C++. A second signal does what it did before. In a thread other
    than the main one, nothing changes.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__()
