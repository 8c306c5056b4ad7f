"""Real images for an export's check and for the calibration of int8."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_inception.data.record import recorded_source
from keras_inception.data.sources import SAMPLE, open_data
from keras_inception.data.splits import AnySplit, ImageData, Split
from keras_inception.images.decode import read_image
from keras_inception.images.listing import LeftOut, image_files

_MOST_CHECKED = 500
_MOST_CALIBRATION = 200


@dataclass(frozen=True)
class Images:
    """Real images of the network's size, uint8 N x h x w x C.

    Attributes:
        calibration: for the ranges of int8.
        check: on which each format is compared with the model.
        truth: the right classes of `check`, where they are known.
        left_out: files of the folder that are not images, as far as they were read.
    """

    calibration: np.ndarray
    check: np.ndarray
    truth: np.ndarray | None = None
    left_out: tuple[LeftOut, ...] = ()


def data_images(
    data: ImageData, shape: tuple[int, int, int], labels: Sequence[str] | None
) -> Images:
    """Of a data set: training images to calibrate, held-out ones to check.

    Args:
        data: of which images at equal distances are taken, since files are sorted by class.
        shape: (height, width, channels) of the network.
        labels: its classes; where they are those of the data, the truth is known.
    """
    calibration, _ = _spread(data.train, _MOST_CALIBRATION, shape)
    check, truth = _spread(data.test, _MOST_CHECKED, shape)
    known = labels is not None and [*labels] == [*data.class_names]
    return Images(calibration, check, truth if known else None)


def _spread(
    split: AnySplit, most: int, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Images at equal distances in a split, in the network's size, and their labels."""
    height, width, channels = shape
    rows = np.arange(min(most, len(split))) * len(split) // min(most, len(split))
    labels = split.labels[rows]
    if isinstance(split, Split):  # the others need no conversion
        split, rows = Split(split.images[rows], labels), np.arange(len(rows))
    return split.with_channels(channels).fitted(rows, (height, width), channels), labels


def recorded_images(
    folder: Path | None, shape: tuple[int, int, int], labels: Sequence[str] | None
) -> Images:
    """Of the data that a run recorded in its folder, else of the bundled sample."""
    try:
        data = open_data((folder and recorded_source(folder)) or SAMPLE)
    except (OSError, ValueError):  # moved, or of another machine
        data = open_data(SAMPLE)
    return data_images(data, shape, labels)


def folder_images(
    folder: Path, shape: tuple[int, int, int], labels: Sequence[str] | None
) -> Images:
    """Of a folder of the user's, in an order that mixes its parts.

    Args:
        folder: images in it and below, those that training takes; where each lies in a folder
            with the name of a class, the truth is known.
        shape: (height, width, channels) of the network.
        labels: its classes.

    Raises:
        ValueError: no image in the folder that can be read.
    """
    listed = [*image_files([folder])]
    left_out = [file for file in listed if isinstance(file, LeftOut)]
    files = [file for file in listed if isinstance(file, Path)]
    files.sort(key=lambda file: zlib.crc32(os.fsencode(file)))
    check = _readable(files, shape, _MOST_CHECKED, left_out)
    calibration = _readable(files[::-1], shape, _MOST_CALIBRATION, left_out)
    if not check:
        raise ValueError(
            f"Expected a folder of images. Received: {str(folder)!r}, without any that can be read"
        )
    return Images(
        np.stack([*calibration.values()]),
        np.stack([*check.values()]),
        _truth([*check], folder, labels),
        tuple(dict.fromkeys(left_out)),
    )


def _readable(
    files: Sequence[Path], shape: tuple[int, int, int], most: int, left_out: list[LeftOut]
) -> dict[Path, np.ndarray]:
    """The first images that can be read; files that cannot are added to `left_out`."""
    height, width, channels = shape
    images: dict[Path, np.ndarray] = {}
    for file in files:
        if len(images) == most:
            break
        try:
            images[file] = read_image(file, height=height, width=width, channels=channels)
        except ValueError as error:
            left_out.append(LeftOut(str(file), str(error)))
    return images


def _truth(files: Sequence[Path], folder: Path, labels: Sequence[str] | None) -> np.ndarray | None:
    """The right class of each file: of its folders the uppermost with the name of a class."""
    index = {label: number for number, label in enumerate(labels or ())}
    found = [
        next((index[part] for part in file.relative_to(folder).parts[:-1] if part in index), None)
        for file in files
    ]
    return None if None in found else np.array(found)
