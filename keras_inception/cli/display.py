"""The display of a training run: a bar, and a line for each epoch."""

from __future__ import annotations

from typing import Any

from keras_inception.cli.common import console


class TrainingDisplay:
    """A bar over all steps of a run with the time left, and a line for each epoch."""

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
            disable=not console.is_terminal,  # in a log, the lines of the epochs are enough
        )

    def __enter__(self) -> TrainingDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @property
    def callback(self) -> Any:
        """A Keras callback that feeds the display."""
        import keras

        progress = self._progress

        class Feed(keras.callbacks.Callback):
            def on_train_begin(self, logs: Any = None) -> None:
                self.task = progress.add_task(
                    "training",
                    total=self.params["epochs"] * self.params["steps"],
                    completed=int(self.model.optimizer.iterations),
                )

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                loss = float(logs["loss"])
                progress.update(self.task, advance=1, description=f"loss {loss:.3f}")

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                # So Keras's own `fit` names them with auxiliary classifiers.
                main = "main_" if "main_accuracy" in logs else ""
                progress.console.print(
                    f"epoch {epoch + 1:>3}/{self.params['epochs']}  "
                    f"loss {logs.get('main_loss', logs['loss']):.3f}  "
                    f"accuracy {logs[main + 'accuracy']:.3f}  "
                    f"held out: loss {logs['val_' + main + 'loss']:.3f}  "
                    f"accuracy {logs['val_' + main + 'accuracy']:.3f}"
                )

            def on_train_end(self, logs: Any = None) -> None:
                progress.update(self.task, description="evaluating and exporting")

        return Feed()
