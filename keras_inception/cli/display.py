"""The display of a training run: a bar, a line for each epoch, and what a wait is for."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from keras_inception.cli import silence
from keras_inception.cli.common import console, errors
from keras_inception.cli.waits import each_second, line_is_due
from keras_inception.training.progress import TRAINING


class TrainingDisplay:
    """A bar over all steps of a run with the time left; without a terminal, lines."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None)
        self._words = "starting"
        self._began = self._reported = time.monotonic()
        self._resumed_at = self._step = self._steps = 0
        self._open = ExitStack()

    def __enter__(self) -> TrainingDisplay:
        self._open.enter_context(self._progress)
        self._open.enter_context(each_second(self._show))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        self._open.close()

    def say(self, line: str) -> None:
        """Print a line on standard error; on a terminal above the bar, which is on the other."""
        if console.is_terminal and errors.is_terminal:
            console.print(line)
        else:
            errors.print(line)

    def report(self, words: str) -> None:
        """Say what the command does now."""
        self._words, self._reported = words, time.monotonic()
        self._progress.update(self._task, description=words)

    @property
    def callback(self) -> Any:
        """A Keras callback that feeds the display."""
        import keras

        display = self

        class Feed(keras.callbacks.Callback):
            def on_train_begin(self, logs: Any = None) -> None:
                steps = self.params["epochs"] * self.params["steps"]
                display._begin(int(self.model.optimizer.iterations), steps)

            def on_train_end(self, logs: Any = None) -> None:
                display._end()

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                display._advance(f"loss {float(logs['loss']):.3f}")

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                display._print(
                    f"epoch {epoch + 1:>3}/{self.params['epochs']}  "
                    f"loss {logs.get('main_loss', logs['loss']):.3f}  "
                    f"accuracy {logs['accuracy']:.3f}  "
                    f"held out: loss {logs['val_loss']:.3f}  "
                    f"accuracy {logs['val_accuracy']:.3f}"
                )

        return Feed()

    def _begin(self, step: int, steps: int) -> None:
        self._began, self._resumed_at, self._step, self._steps = time.monotonic(), step, step, steps
        self._progress.update(self._task, total=steps, completed=step)

    def _end(self) -> None:
        """No steps are left, also where the training stopped early."""
        self._steps = self._step
        self._progress.update(self._task, total=self._step)

    def _advance(self, words: str) -> None:
        self._step += 1
        self._progress.update(self._task, advance=1, description=words)

    def _print(self, line: str) -> None:
        silence.end()
        console.print(line)

    def _show(self) -> None:
        if console.is_terminal:
            self._show_wait()
        elif line_is_due():
            self._print(self._line())

    def _show_wait(self) -> None:
        """The seconds of a wait; while training, the bar has the step's loss and the time left."""
        if self._words != TRAINING:
            seconds = time.monotonic() - self._reported
            self._progress.update(self._task, description=f"{self._words}, {seconds:.0f} s")

    def _line(self) -> str:
        now, words = time.monotonic(), self._words
        if words != TRAINING:
            words += f", {now - self._reported:.0f} s"
        if self._step == self._steps:  # before the first step, or after the last
            return words
        line = f"{words}: step {self._step}/{self._steps} after {now - self._began:.0f} s"
        done, remaining = self._step - self._resumed_at, self._steps - self._step
        if done and remaining:
            line += f", about {(now - self._began) / done * remaining:.0f} s left"
        return line
