"""Crop geometry against values computed by hand."""

import numpy as np
import pytest
from PIL import Image

from keras_inception.images.geometry import (
    Scale,
    Window,
    centre_window,
    mirrors,
    random_window,
    scales,
    stored_window,
)

# The largest centred window


@pytest.mark.parametrize(
    ("size", "target", "window"),
    [
        ((4, 8), (2, 2), (0, 2, 4, 4)),
        ((8, 4), (5, 5), (2, 0, 4, 4)),
        ((375, 500), (224, 224), (0, 62, 375, 375)),  # (500 - 375) / 2 = 62.5, rounded down
        ((30, 40), (3, 4), (0, 0, 30, 40)),
        ((30, 40), (1, 2), (5, 0, 20, 40)),
        ((100, 100), (2, 3), (16, 0, 67, 100)),  # 66.67 rows are 67; (100 - 67) / 2 = 16.5
        ((1, 1000), (224, 10), (0, 499, 1, 1)),  # at least one pixel
    ],
)
def test_centre_window(size, target, window):
    assert centre_window(*size, *target) == window


# Random windows


def uniforms(area: float, ratio: float, top: float = 0.0, left: float = 0.0) -> list[float]:
    return [area] * 10 + [ratio] * 10 + [top, left]


def test_random_window_by_hand():
    # All of the area at aspect ratio 1: (4/3)^(2 * .5 - 1) = 1.
    assert random_window(100, 100, uniforms(1, 0.5)) == (0, 0, 100, 100)
    # 8% of 100 x 100 is 800 pixels; at width / height = 4/3: 24.49 x 32.66.
    assert random_window(100, 100, uniforms(0, 1)) == (0, 0, 24, 33)
    # 800 pixels at 3/4: 32.66 x 24.49, in the last of 100 - 33 + 1 and 100 - 24 + 1 places.
    assert random_window(100, 100, uniforms(0, 0, 0.9999, 0.9999)) == (67, 76, 33, 24)
    # 50% of 60 x 80: .08 + .92 * .45652 = .5; 2400 pixels at aspect 1: 48.99 x 48.99.
    # The middle of 60 - 49 + 1 = 12 and of 80 - 49 + 1 = 32 positions: 6 and 16.
    assert random_window(60, 80, uniforms(0.42 / 0.92, 0.5, 0.5, 0.5)) == (6, 16, 49, 49)


def test_a_random_window_that_does_not_fit_is_redrawn():
    # All of the area at 4/3 is wider than a square image; the third draw, .08 at 1, fits: 28.28.
    numbers = [1.0, 1.0, 0.0] + [1.0] * 7 + [1.0, 1.0, 0.5] + [1.0] * 7 + [0.0, 0.0]
    assert random_window(100, 100, numbers) == (0, 0, 28, 28)


def test_an_image_too_long_for_every_draw_gives_its_centre():
    # 10 x 1000: no window of 8% fits a height of 10; the widest allowed is 10 x 13.33.
    assert random_window(10, 1000, uniforms(0, 0.5)) == (0, 493, 10, 13)
    assert random_window(1000, 10, uniforms(0, 0.5)) == (493, 0, 13, 10)
    assert random_window(100, 100, uniforms(1, 1)) == (0, 0, 100, 100)


def test_random_windows_have_the_papers_distribution():
    random = np.random.default_rng(0)
    windows = np.array([random_window(1000, 1000, random.random(22).tolist()) for _ in range(5000)])
    top, left, height, width = windows.T
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + height).max() <= 1000
    assert (left + width).max() <= 1000
    area, aspect = height * width / 1e6, width / height
    assert area.min() == pytest.approx(0.08, abs=0.002)
    assert 0.45 < area.mean() < 0.54  # uniform from .08 to 1, except for windows that do not fit
    assert aspect.min() == pytest.approx(3 / 4, abs=0.01)
    assert aspect.max() == pytest.approx(4 / 3, abs=0.01)
    assert np.median(aspect) == pytest.approx(1, abs=0.02)


# EXIF orientation, against Pillow


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_window_becomes_the_upright_window_in_pillow(orientation):
    stored = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)
    image = Image.fromarray(stored)
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # as in ImageOps.exif_transpose
    turn = turns.get(orientation)
    upright = np.asarray(image.transpose(turn)) if turn is not None else stored
    window = Window(1, 2, 3, 2)
    top, left, height, width = stored_window(window, *upright.shape, orientation)
    part = Image.fromarray(stored[top : top + height, left : left + width])
    turned = np.asarray(part.transpose(turn)) if turn is not None else np.asarray(part)
    np.testing.assert_array_equal(turned, upright[1:4, 2:4])


# Section 7


def seen_squares(scale: Scale, size: int = 224) -> tuple[tuple[int, int, int], ...]:
    """(top, left, side) of everything that is seen, in the resized image."""
    seen = []
    for square in scale.squares:
        seen += [(square.top + down, square.left + right, size) for down, right in square.corners]
        seen += [(square.top, square.left, square.side)] if square.whole else []
    return tuple(seen)


def test_one_and_ten_crops_of_a_landscape_image():
    # 375 x 500 -> 256 x 341 (341.33); the centred square begins at (341 - 256) // 2 = 42.
    (scale,) = scales(375, 500, 224, "1")
    assert (scale.height, scale.width) == (256, 341)
    assert seen_squares(scale) == ((16, 58, 224),)  # the remainder of 32 in two halves of 16
    (scale,) = scales(375, 500, 224, "10")
    assert (scale.height, scale.width) == (256, 341)
    assert seen_squares(scale) == (
        (0, 42, 224),
        (0, 74, 224),
        (32, 42, 224),
        (32, 74, 224),
        (16, 58, 224),
    )


def test_144_crops_of_a_landscape_image():
    result = scales(375, 500, 224, "144")
    # 288 * 4 / 3 = 384, 320 -> 426.67, 352 -> 469.33, rounded down.
    assert [(scale.height, scale.width) for scale in result] == [
        (256, 341),
        (288, 384),
        (320, 426),
        (352, 469),
    ]
    assert sum(len(seen_squares(scale)) for scale in result) * 2 == 144
    # The second scale: squares of 288 at 0, 48 and 96; the remainder is 64.
    assert seen_squares(result[1]) == (
        (0, 0, 224),
        (0, 64, 224),
        (64, 0, 224),
        (64, 64, 224),
        (32, 32, 224),
        (0, 0, 288),
        (0, 48, 224),
        (0, 112, 224),
        (64, 48, 224),
        (64, 112, 224),
        (32, 80, 224),
        (0, 48, 288),
        (0, 96, 224),
        (0, 160, 224),
        (64, 96, 224),
        (64, 160, 224),
        (32, 128, 224),
        (0, 96, 288),
    )


def test_144_crops_of_a_portrait_image_run_from_top_to_bottom():
    last = scales(500, 375, 224, "144")[3]
    assert (last.height, last.width) == (469, 352)
    # Squares of 352 at the top (0), the centre (117 // 2 = 58) and the bottom (117).
    assert [square for square in seen_squares(last) if square[2] == 352] == [
        (0, 0, 352),
        (58, 0, 352),
        (117, 0, 352),
    ]


def test_other_inputs_scale_the_papers_sizes():
    # 28 / 224 = 1/8: 32, 36, 40, 44 of a square image, whose three squares are one.
    result = scales(28, 28, 28, "144")
    assert [(scale.height, scale.width) for scale in result] == [
        (32, 32),
        (36, 36),
        (40, 40),
        (44, 44),
    ]
    seen = seen_squares(result[0], 28)
    assert seen[:6] == seen[6:12] == seen[12:]
    assert seen[:6] == (
        (0, 0, 28),
        (0, 4, 28),
        (4, 0, 28),
        (4, 4, 28),
        (2, 2, 28),
        (0, 0, 32),
    )
    # 100: 256 * 100 / 224 = 114.29.
    assert scales(300, 300, 100, "1")[0].height == 114


def test_whole_is_the_largest_square_without_mirroring():
    (scale,) = scales(375, 500, 224, "whole")
    assert (scale.height, scale.width, seen_squares(scale)) == (375, 500, ((0, 62, 375),))
    assert [crops for crops in ("whole", "1", "10", "144") if mirrors(crops)] == ["10", "144"]
