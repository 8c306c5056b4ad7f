"""Real images for an export's check and for the calibration of int8."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from keras_inception.data.sample import load_sample
from keras_inception.data.splits import Split
from keras_inception.images.decode import fit_image, read_image
from keras_inception.images.listing import image_files

_MOST_CHECKED = 500
_MOST_CALIBRATION = 200


@dataclass(frozen=True)
class Images:
    """Real images of the network's size, uint8 N x h x w x C.

    Attributes:
        calibration: for the ranges of int8.
        check: on which each format is compared with the model.
        truth: the right classes of `check`, where they are known.
    """

    calibration: np.ndarray
    check: np.ndarray
    truth: np.ndarray | None = None


def sample_images(shape: tuple[int, int, int], labels: Sequence[str] | None) -> Images:
    """Of the embedded sample: training images to calibrate, held-out ones to check.

    Args:
        shape: (height, width, channels) of the network.
        labels: its classes; where they are the sample's, the truth is known.
    """
    data = load_sample()
    train, test = cast(Split, data.train), cast(Split, data.test)  # the sample is in memory
    calibration, check = (
        np.stack([_fitted(image, shape) for image in images])
        for images in (train.images[:_MOST_CALIBRATION], test.images[:_MOST_CHECKED])
    )
    known = labels is not None and [*labels] == [*data.class_names]
    return Images(calibration, check, test.labels[:_MOST_CHECKED] if known else None)


def folder_images(
    folder: Path, shape: tuple[int, int, int], labels: Sequence[str] | None
) -> Images:
    """Of a folder of the user's, in an order that mixes its parts.

    Args:
        folder: images in it and below; where the innermost folders bear the names of classes,
            the truth is known.
        shape: (height, width, channels) of the network.
        labels: its classes.

    Raises:
        ValueError: no image in the folder, or one that cannot be read.
    """
    files = sorted(image_files([folder]), key=lambda file: zlib.crc32(str(file).encode()))
    if not files:
        raise ValueError(f"Expected a folder of images. Received: {str(folder)!r}, without any")
    check, calibration = files[:_MOST_CHECKED], files[-_MOST_CALIBRATION:]
    names = [file.parent.name for file in check]
    truth = None
    if labels is not None and set(names) <= set(labels):
        truth = np.array([[*labels].index(name) for name in names])
    height, width, channels = shape

    def read(paths: list[Path]) -> np.ndarray:
        return np.stack(
            [read_image(path, height=height, width=width, channels=channels) for path in paths]
        )

    return Images(read(calibration), read(check), truth)


def _fitted(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A grey h x w x 1 image in the network's size and number of channels."""
    height, width, channels = shape
    return np.repeat(fit_image(image, height=height, width=width), channels, axis=2)
