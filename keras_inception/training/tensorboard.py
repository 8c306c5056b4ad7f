"""What a run writes for TensorBoard: curves, images, a profile. Needs the package `tensorboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_inception.data.splits import ImageData
from keras_inception.data.stream import training_batches
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe

PROFILED_STEPS = (10, 20)
_IMAGES = 16


def tensorboard_callbacks(
    folder: Path, spec: NetworkSpec, data: ImageData, recipe: Recipe, *, profile: bool = False
) -> list[keras.callbacks.Callback]:
    """Callbacks that write curves, training images and the first kernels to folder/tensorboard.

    Args:
        folder: of the run.
        spec, data, recipe: give the images as the network sees them.
        profile: also trace the steps `PROFILED_STEPS`.

    """
    logs = folder / "tensorboard"
    return [
        keras.callbacks.TensorBoard(
            str(logs), write_graph=False, profile_batch=PROFILED_STEPS if profile else 0
        ),
        _Images(logs / "images", spec, data, recipe),
    ]


class _Images(keras.callbacks.Callback):
    """Augmented training images once, and the kernels of the first convolution each epoch."""

    def __init__(self, logs: Path, spec: NetworkSpec, data: ImageData, recipe: Recipe) -> None:
        super().__init__()
        self._logs = logs
        self._spec = spec
        self._data = data
        self._recipe = recipe

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._writer = tf.summary.create_file_writer(str(self._logs))
        images, _ = next(iter(training_batches(self._data.train, self._spec, self._recipe)))
        self._write("training images", np.asarray(images[:_IMAGES]), 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        first = next(layer for layer in self.model.layers if isinstance(layer, keras.layers.Conv2D))
        kernels = keras.ops.convert_to_numpy(first.kernel)  # h x w x C x filters
        self._write("kernels of the first convolution", np.moveaxis(kernels, 3, 0), epoch + 1)

    def _write(self, name: str, images: np.ndarray, step: int) -> None:
        """Write N x h x w x C images; the channels of others than grey and RGB ones are averaged.

        Each image is stretched to [0, 1], since pixel conventions have ranges of their own.
        """
        if keras.config.image_data_format() == "channels_first" and step == 0:
            images = np.moveaxis(images, 1, 3)
        if images.shape[3] not in (1, 3):
            images = images.mean(axis=3, keepdims=True)
        least = images.min(axis=(1, 2, 3), keepdims=True)
        span: Any = images.max(axis=(1, 2, 3), keepdims=True) - least
        stretched = (images - least) / np.maximum(span, 1e-12)
        with self._writer.as_default():
            tf.summary.image(name, stretched, step=step, max_outputs=_IMAGES)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._writer.close()
