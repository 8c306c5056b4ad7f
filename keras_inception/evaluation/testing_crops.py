"""Pixels of the testing crops: section 7's 144, Krizhevsky's 10, or one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
from PIL import Image

from keras_inception.data.splits import AnySplit, Split
from keras_inception.images.decode import as_pixels
from keras_inception.images.geometry import Crops, Scale, Square, mirrors, scales
from keras_inception.wording import counted


def crop_views(
    split: AnySplit, size: int, channels: int, crops: Crops, *, views_at_once: int = 64
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the crops of every image in order, a few images or one scale of one image at a time.

    Memory therefore contains 36 crops of an image at once, not all 144 of a batch. Only the squares
    that are used are computed from a resized image, however long it is.

    Args:
        size: of the network's square input.
        channels: 1 or 3.
        crops: as in `keras_inception.images.geometry.scales`.
        views_at_once: approximate number of crops that are yielded at once for images of one size.

    Yields:
        The position of the first image, and images x crops x size x size x channels, uint8. Each
        position is yielded once per scale.

    Raises:
        ValueError: images in memory of another number of channels.
    """
    if isinstance(split, Split) and split.shape[2] != channels:  # files are decoded as asked
        raise ValueError(
            f"Expected images of {counted(channels, 'channel')}, as the network takes. "
            f"Received: images of {split.shape[2]}"
        )
    position = 0
    while position < len(split):
        layout = scales(*split.size_of(position), size, crops)
        together = 1
        if isinstance(split, Split):
            together = min(max(1, views_at_once // _count(layout[0], crops)), len(split) - position)
        with ExitStack() as stack:
            images = [
                stack.enter_context(split.opened(image_position, channels))
                for image_position in range(position, position + together)
            ]
            for scale in layout:
                views = [_views(image, scale, size, mirrored=mirrors(crops)) for image in images]
                yield position, np.stack(views)
        position += together


def _count(scale: Scale, crops: Crops) -> int:
    """Return the number of crops of a scale."""
    seen = sum(len(square.corners) + square.whole for square in scale.squares)
    return seen * (2 if mirrors(crops) else 1)


def _views(image: Image.Image, scale: Scale, size: int, *, mirrored: bool) -> np.ndarray:
    """Return the crops of one scale, K x size x size x C, followed by their mirror images."""
    views = []
    for square in scale.squares:
        pixels = _square(image, scale, square)
        views += [
            as_pixels(pixels.crop((right, down, right + size, down + size)))
            for down, right in square.corners
        ]
        if square.whole:
            views.append(as_pixels(pixels.resize((size, size), Image.Resampling.BILINEAR)))
    stacked = np.stack(views)
    return np.concatenate([stacked, stacked[:, :, ::-1]]) if mirrored else stacked


def _square(image: Image.Image, scale: Scale, square: Square) -> Image.Image:
    """Return a square of the resized image without computing the rest, which may be very long."""
    top, left, side = square.top, square.left, square.side
    if (scale.height, scale.width) == (image.height, image.width):
        return image.crop((left, top, left + side, top + side))
    # The filter reaches beyond the box, as it does when the whole image is resized.
    across, down = image.width / scale.width, image.height / scale.height
    box = (left * across, top * down, (left + side) * across, (top + side) * down)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)
