"""The bundled sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_inception.data.splits import ImageData, Split

# 6,000 training and 1,500 test images of Fashion-MNIST, made by scripts/make_sample.py.
SAMPLE_PATH = Path(__file__).parents[1] / "assets" / "fashion_mnist_sample.npz"


def load_sample() -> ImageData:
    """Load the bundled sample: 7,500 Fashion-MNIST images, 28 x 28 x 1, ten classes."""
    with np.load(SAMPLE_PATH) as arrays:
        return ImageData(
            name="fashion_mnist_sample",
            train=Split(arrays["train_images"], arrays["train_labels"]),
            test=Split(arrays["test_images"], arrays["test_labels"]),
            class_names=tuple(arrays["class_names"].tolist()),
            source="sample",
        )
