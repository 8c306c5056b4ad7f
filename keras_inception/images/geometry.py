"""Crop geometry: which pixels of an image a network sees. Integers only, no pixel data.

Section 7 of the paper defines the testing crops. Sizes are (height, width) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Crops = Literal["whole", "1", "10", "144"]
# The paper's sizes of the shorter side, for an input of 224 pixels.
_PAPER_INPUT = 224
_PAPER_SIDES = (256, 288, 320, 352)


class Window(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Square:
    """A square of an image, and the crops taken from it.

    Attributes:
        top, left, side: of the square in the image.
        corners: (top, left) in the square of each crop of the input's size.
        whole: whether the square itself, resized to the input's size, is a crop too.
    """

    top: int
    left: int
    side: int
    corners: tuple[tuple[int, int], ...]
    whole: bool


@dataclass(frozen=True)
class Scale:
    """A size to which the image is resized, and its squares."""

    height: int
    width: int
    squares: tuple[Square, ...]


def centre_window(height: int, width: int, target_height: int, target_width: int) -> Window:
    """The largest centred rectangle of the shape of the target: 4 x 8 for 2 x 2 -> 4 x 4 at 0, 2.

    Rounded to integers, half a pixel away from zero; an odd surplus pixel stays at the bottom or
    the right.
    """
    if height * target_width > width * target_height:  # taller than the target
        rows = max(1, (2 * width * target_height + target_width) // (2 * target_width))
        return Window((height - rows) // 2, 0, rows, width)
    columns = max(1, (2 * height * target_width + target_height) // (2 * target_height))
    return Window(0, (width - columns) // 2, height, columns)


def random_window(height: int, width: int, uniforms: Sequence[float]) -> Window:
    """Return a random rectangle as in the paper's training (section 6).

    Its area is uniform from 8% to 100% of the image, its aspect ratio log-uniform from 3/4 to 4/3
    (so portrait and landscape are equally frequent), and its position uniform. A rectangle that
    does not fit is redrawn; after ten draws, the largest centred one of an allowed ratio is used.

    Args:
        uniforms: 22 numbers in [0, 1): ten of area, ten of aspect ratio, then top and left.
    """
    for area, ratio in zip(uniforms[:10], uniforms[10:20], strict=True):
        pixels = (0.08 + 0.92 * area) * height * width
        aspect = (4 / 3) ** (2 * ratio - 1)  # width / height
        rows, columns = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            top = int(uniforms[20] * (height - rows + 1))
            left = int(uniforms[21] * (width - columns + 1))
            return Window(top, left, rows, columns)
    shape = (3, 4) if 3 * width > 4 * height else (4, 3) if 4 * width < 3 * height else None
    return centre_window(height, width, *shape) if shape else Window(0, 0, height, width)


def halvings_of(window: Window, size: tuple[int, int]) -> int:
    """0 (1/1) to 3 (1/8): at least one pixel for each of a network's input remains."""
    ratio = min(window.height // size[0], window.width // size[1])
    return min(3, max(ratio, 1).bit_length() - 1)


def stored_window(window: Window, height: int, width: int, orientation: int) -> Window:
    """Return the position of a window of the upright image in the stored pixels.

    Args:
        window: in the upright image.
        height, width: of the upright image.
        orientation: EXIF's tag 274, from 1 to 8: how the stored pixels must be turned.
    """
    top, left, rows, columns = window
    mirrored = left, width - left - columns  # from the left, from the right
    turned = top, height - top - rows  # from above, from below
    down = orientation in (3, 4, 7, 8)
    right = orientation in (2, 3, 6, 7)
    if orientation < 5:
        return Window(turned[down], mirrored[right], rows, columns)
    # Rows and columns are swapped: 5 transposes, 6 and 8 are quarter turns, 7 is both.
    return Window(mirrored[right], turned[down], columns, rows)


def scales(height: int, width: int, size: int, crops: Crops) -> tuple[Scale, ...]:
    """Return the testing crops before mirroring, which doubles all except "whole" and "1".

    - "whole": the largest centred square.
    - "1": the centre of the centred square, after the shorter side is resized to 256.
    - "10": its four corners and its centre, mirrored too (Krizhevsky et al., 2012, section 4.1).
    - "144": the shorter side is resized to 256, 288, 320 and 352; of each, the left, centre and
      right (portrait: top, centre, bottom) squares; of each, the four corners, the centre, and the
      square itself; mirrored too (section 7).

    Args:
        height, width: of the image.
        size: of the network's square input. The paper's sizes are for 224; for another size all
            are scaled by size / 224 and rounded.

    Returns:
        Scales in increasing order. The longer side is rounded down, as in torchvision.
    """
    if crops == "whole":
        top, left, side, _ = centre_window(height, width, 1, 1)
        return (Scale(height, width, (Square(top, left, side, (), True),)),)
    shorter = min(height, width)
    sides = [(2 * size * side + _PAPER_INPUT) // (2 * _PAPER_INPUT) for side in _PAPER_SIDES]
    result = []
    for side in sides if crops == "144" else sides[:1]:
        resized = height * side // shorter, width * side // shorter
        thirds = (0, 1, 2) if crops == "144" else (1,)
        squares = tuple(_square(resized, side, third, size, crops) for third in thirds)
        result.append(Scale(*resized, squares))
    return tuple(result)


def mirrors(crops: Crops) -> bool:
    """Return whether each crop is also used mirrored."""
    return crops in ("10", "144")


def _square(resized: tuple[int, int], side: int, third: int, size: int, crops: Crops) -> Square:
    """The square at the left or top (0), in the centre (1), at the right or bottom (2)."""
    top, left = ((length - side) * third // 2 for length in resized)
    rest = side - size
    corners = [(down, right) for down in (0, rest) for right in (0, rest)]
    centre = (rest // 2, rest // 2)
    seen = (centre,) if crops == "1" else (*corners, centre)
    return Square(top, left, side, seen, crops == "144")
