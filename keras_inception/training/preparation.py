"""What fits a job to its data before it starts: the batch, a hint about sizes, augmentation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from keras_inception.data.splits import FileSplit, ImageData
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.wording import counted

# Steps of an epoch that a lowered batch leaves.
_LEAST_STEPS = 4
_PHOTOGRAPH = 224
# How many times the network's input images are larger when much of them is lost.
_MUCH_LARGER = 4


def lowered_batch(recipe: Recipe, images: int, devices: int = 1) -> Recipe:
    """The recipe with a batch that the training images allow.

    Args:
        recipe: its batch is kept where there are as many images.
        images: for training.
        devices: that share a batch evenly.

    Returns:
        The recipe, or one whose batch is a power of two that leaves four steps an epoch, as far
        as devices, micro-batches and mixup allow.
    """
    if images >= recipe.batch_size:
        return recipe
    unit = math.lcm(devices * recipe.micro_batches, devices * (2 if recipe.mixup else 1))
    power = 1 << (max(images // _LEAST_STEPS, 1).bit_length() - 1)
    batch = max(power // unit * unit, unit)
    return replace(recipe, batch_size=batch) if batch <= images else recipe


def size_hint(spec: NetworkSpec, data: ImageData) -> str | None:
    """One line where the network's input is small for it, or small for the images."""
    height, width, _ = spec.input_shape
    if height is None or width is None:
        return None
    if min(height, width) < spec.total_stride:
        return (
            f"The network reduces its input by {spec.total_stride}: {width} x {height} pixels "
            "leave one position. For 28 to 64 pixels use --variant small."
        )
    if not isinstance(data.train, FileSplit):
        return None
    sides = [(file.height, file.width) for file in data.train.files]
    rows, columns = (int(size) for size in np.median(sides, axis=0))
    if min(rows, columns) < _MUCH_LARGER * min(height, width) or min(height, width) >= _PHOTOGRAPH:
        return None
    return (
        f"Most images have {columns} x {rows} pixels; the network reads them at {width} x "
        f"{height}. For photographs use a network for {_PHOTOGRAPH} pixels, such as --variant bn."
    )


def augmentation(recipe: Recipe) -> str:
    """What the recipe does to training images, in one sentence."""
    done = []
    if recipe.crop == "paper":
        done.append("cropped at random (8-100% of the area)")
    if recipe.flip:
        done.append("mirrored left to right (half of them)")
    if recipe.shift:
        done.append(f"shifted by up to {counted(recipe.shift, 'pixel')}")
    if recipe.photometric:
        done.append("varied in brightness, contrast and colour")
    if recipe.mixup:
        done.append("blended in pairs")
    if not done:
        return "Training images are not augmented."
    hint = ""
    if recipe.flip:
        hint = " Mirroring changes digits and text: --set flip=false leaves it out."
    return f"Training images are {', '.join(done)}.{hint}"
