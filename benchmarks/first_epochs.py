"""Keras callbacks for `keras-inception train --callback`, which training_throughput.py runs.

They end the process after the second epoch, and print JSON: seconds of wall clock and of processor
from the start of the process to the end of the first step, and of the second epoch.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import keras

from keras_inception.network.batch_norm import BatchNormalization
from keras_inception.training.step import Trainer
from keras_inception.training.tensorflow_engine import TensorFlowTrainer

STARTED = "BENCHMARK_STARTED"  # time.time() of the parent when it starts the process


class FirstEpochs(keras.callbacks.Callback):
    """With this package's batch normalization and optimizer kernels."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the end of the first step."""
        if not hasattr(self, "first_step"):
            self.first_step = (time.time() - float(os.environ[STARTED]), time.process_time())

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the start of the epoch."""
        self.began = (time.perf_counter(), time.process_time())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Print what was measured after the second epoch, and end the process."""
        if epoch == 1:
            now = (time.perf_counter(), time.process_time())
            pairs = zip(now, self.began, strict=True)
            seconds = [*self.first_step, *(end - begin for end, begin in pairs)]
            print(json.dumps(seconds), flush=True)
            os._exit(0)


class StockFirstEpochs(FirstEpochs):
    """With Keras's own batch normalization and optimizer."""

    def __init__(self) -> None:
        super().__init__()
        setattr(BatchNormalization, "_has_fused_kernel", lambda *_: False)  # noqa: B010
        setattr(TensorFlowTrainer, "_update", Trainer._update)  # noqa: B010
