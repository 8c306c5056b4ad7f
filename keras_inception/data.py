"""Images and labels as tf.data streams. No model.

A training stream is a pure function of (split, recipe): image i of the run is the same whenever
it is asked for, order, augmentation and all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_inception.preprocessing import preprocess_input
from keras_inception.recipe import Recipe
from keras_inception.spec import NetworkSpec

# 6,000 training and 1,500 test images of Fashion-MNIST, made by scripts/make_sample.py.
SAMPLE_PATH = Path(__file__).parent / "assets" / "fashion_mnist_sample.npz"


@dataclass(frozen=True)
class Split:
    """Images (N x h x w x C, uint8, RGB or grey) and labels (N, integers from 0)."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(
                "Expected images of shape N x h x w x C and dtype uint8. Received: "
                f"shape={self.images.shape}, dtype={self.images.dtype}"
            )
        if not len(self.images):
            raise ValueError(f"Expected at least one image. Received: shape={self.images.shape}")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype.kind not in "iu":
            raise ValueError(
                f"Expected one integer label for each of {len(self.images)} images. Received: "
                f"shape={self.labels.shape}, dtype={self.labels.dtype}"
            )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImageData:
    """A classification data set: `train` to learn from, `test` held out."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        labels = np.concatenate([self.train.labels, self.test.labels])
        if labels.min() < 0 or labels.max() >= len(self.class_names):
            raise ValueError(
                f"Expected labels from 0 to {len(self.class_names) - 1}, one less than the number "
                f"of class names. Received: labels from {labels.min()} to {labels.max()}"
            )
        channels = [split.images.shape[3] for split in (self.train, self.test)]
        if channels[0] != channels[1]:
            raise ValueError(
                "Expected training and test images of equally many channels. Received: "
                f"{channels[0]} and {channels[1]}"
            )
        repeated = sorted({name for name in self.class_names if self.class_names.count(name) > 1})
        if repeated:
            raise ValueError(f"Expected different names. Received more than once: {repeated}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every training image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def load_sample() -> ImageData:
    """The embedded sample: 7,500 real Fashion-MNIST images, 28 x 28 x 1, ten classes."""
    with np.load(SAMPLE_PATH) as arrays:
        return ImageData(
            name="fashion_mnist_sample",
            train=Split(arrays["train_images"], arrays["train_labels"]),
            test=Split(arrays["test_images"], arrays["test_labels"]),
            class_names=tuple(arrays["class_names"].tolist()),
        )


def training_batches(split: Split, spec: NetworkSpec, recipe: Recipe) -> tf.data.Dataset:
    """An endless stream of (images, labels) for training.

    Args:
        split: the training images.
        spec: gives the input size and the pixel convention.
        recipe: gives the batch size, the augmentation and the seed.

    Returns:
        float32 images, batch_size x h x w x C (or batch_size x C x h x w, by the global data
        format) in the convention of the spec, and int32 labels.
        Each pass over the split has an order of its own; batches run on across passes.
    """
    count = len(split)
    images, labels = tf.constant(split.images), tf.constant(split.labels.astype(np.int32))

    def example(index: Any) -> tuple[Any, Any]:
        epoch = index // count
        position = tf.random.experimental.index_shuffle(
            index % count, seed=[recipe.seed, epoch], max_index=count - 1
        )
        image = _augment(tf.gather(images, position), recipe, seed=[recipe.seed, index])
        return _network_input(image, spec), tf.gather(labels, position)

    return (
        tf.data.Dataset.counter(dtype=tf.int64)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(recipe.batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(split: Split, spec: NetworkSpec, batch_size: int) -> tf.data.Dataset:
    """Every image of the split once, in order; the last batch may be short."""
    examples = tf.data.Dataset.from_tensor_slices((split.images, split.labels.astype(np.int32)))
    return (
        examples.batch(batch_size)
        .map(lambda image, label: (_network_input(image, spec), label))
        .prefetch(tf.data.AUTOTUNE)
    )


def network_pixels(images: Any, spec: NetworkSpec) -> Any:
    """Images in the size of the network, their pixels still in [0, 255].

    Args:
        images: h x w x C or N x h x w x C, channels last.
        spec: gives the size; where it gives none, the images keep theirs.

    Returns:
        float32 tensor; channels first if that is the global data format.
    """
    images = tf.cast(images, tf.float32)
    size = [
        own if wanted is None else wanted
        for own, wanted in zip(images.shape[-3:-1], spec.input_shape[:2], strict=True)
    ]
    if images.shape[-3:-1] != size:
        images = tf.image.resize(images, size, antialias=True)
    if keras.config.image_data_format() == "channels_first":
        images = tf.einsum("...hwc->...chw", images)
    return images


def _augment(image: Any, recipe: Recipe, seed: Any) -> Any:
    """Mirror and shift one h x w x C image, by random numbers that depend on `seed` alone."""
    if recipe.flip:
        image = tf.image.stateless_random_flip_left_right(image, seed)
    if recipe.shift:
        shape = image.shape
        edge = [recipe.shift] * 2
        # "SYMMETRIC" repeats the edge, so that no black border tells the shift.
        padded = tf.pad(image, [edge, edge, [0, 0]], mode="SYMMETRIC")
        image = tf.image.stateless_random_crop(padded, shape, seed)
    return image


def _network_input(images: Any, spec: NetworkSpec) -> Any:
    return preprocess_input(network_pixels(images, spec), convention=spec.pixels)
