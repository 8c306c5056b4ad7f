"""Training images that stay on the device: a step is given where its pixels are, not the pixels.

Batches are those of `data.stream.training_batches`: the same images, mirrored and shifted alike.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

import jax
import keras

from keras_inception.data.splits import AnySplit, Split
from keras_inception.data.stream import is_placed, placed_batches
from keras_inception.images.conventions import preprocess_input
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe

# Images that take more bytes than this are copied to the device batch by batch.
_MOST_BYTES = 2**30


class HeldImages:
    """The images of a split on JAX's first device.

    Args:
        split: in memory.
        spec, recipe: as for `training_batches`.
    """

    def __init__(self, split: Split, spec: NetworkSpec, recipe: Recipe) -> None:
        self._images = jax.device_put(split.images)
        self._batch = jax.jit(partial(_batch, convention=spec.pixels))
        self._placed = partial(placed_batches, split, spec, recipe)

    def batches(self, start_step: int) -> Generator[tuple[Any, Any], None, None]:
        """As `training_batches`, with images that are on the device."""
        for *places, labels in self._placed(start_step=start_step):
            yield self._batch(self._images, *places), labels


def held_images(split: AnySplit, spec: NetworkSpec, recipe: Recipe) -> HeldImages | None:
    """The images on the device; None: too many, or a batch is more than their pixels elsewhere."""
    if not (isinstance(split, Split) and is_placed(split, spec, recipe)):
        return None
    return HeldImages(split, spec, recipe) if split.images.nbytes <= _MOST_BYTES else None


def _batch(images: Any, positions: Any, rows: Any, columns: Any, *, convention: str) -> Any:
    pixels = images[positions[:, None, None], rows[:, :, None], columns[:, None, :]]
    if keras.config.image_data_format() == "channels_first":
        pixels = jax.numpy.moveaxis(pixels, -1, -3)
    return preprocess_input(pixels, convention=convention)
