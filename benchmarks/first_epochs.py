"""Seconds of the first epochs of `small` on the bundled sample; training_throughput.py runs this.

As a module it has the callback for `keras-inception train --callback first_epochs:FirstEpochs`. As
a program it trains the same network from its configuration by plain Keras: its own layers, its own
optimizer, `compile` and `fit`, without augmentation and averages. Both end the process after the
second epoch, and print JSON: seconds of wall clock and of processor from the start of the process
to the end of the first step, and of the second epoch.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import keras
import numpy as np

from keras_inception import RECIPES, VARIANTS, build_network, open_data

STARTED = "BENCHMARK_STARTED"  # time.time() of the parent when it starts the process


class FirstEpochs(keras.callbacks.Callback):
    """Prints what was measured after the second epoch, and ends the process."""

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


def main() -> None:
    """Train by plain Keras, with batch size and rate of the recipe that `train` takes."""
    data, recipe = open_data("sample"), RECIPES["modern"]
    model = keras.Model.from_config(build_network(VARIANTS["small"]).get_config())
    optimizer = keras.optimizers.AdamW(recipe.base_learning_rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    (images, labels), tested = (
        (split.images.astype(np.float32) / 127.5 - 1, np.asarray(split.labels))
        for split in (data.train, data.test)
    )
    options: dict[str, Any] = {"batch_size": recipe.batch_size, "epochs": 3, "verbose": 0}
    model.fit(images, labels, validation_data=tested, callbacks=[FirstEpochs()], **options)


if __name__ == "__main__":
    main()
