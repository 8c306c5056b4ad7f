"""Photometric distortions against Pillow's ImageEnhance, mixup against its definition."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from keras_inception.data.augment import Draws, augmented, mixed_up, photometric, pixel_places
from keras_inception.spec.recipe import Recipe


class Fixed:
    """Fixed draws: brightness, contrast, colour; shares of mixup; lighting, if any."""

    def __init__(
        self,
        numbers: list[float],
        shares: list[float] | None = None,
        lighting: tuple[float, float, float] = (0, 0, 0),
    ) -> None:
        self.numbers, self.shares, self.lighting = numbers, shares, lighting

    def uniform(self, purpose: int, columns: int) -> np.ndarray:
        return np.array([self.numbers], np.float32)

    def normal(self, purpose: int, columns: int) -> np.ndarray:
        return np.array([self.lighting], np.float32)

    def beta(self, purpose: int, alpha: float) -> np.ndarray:
        return np.array(self.shares, np.float32)


@pytest.mark.parametrize(
    "order", [("Brightness", "Contrast", "Color"), ("Color", "Contrast", "Brightness")]
)
def test_photometric_is_pillows_enhancement_in_any_order(order):
    random = np.random.default_rng(0)
    pixels = random.integers(90, 160, (12, 10, 3), np.uint8)  # no intermediate value is clipped
    numbers = {"Brightness": 0.6, "Contrast": 0.2, "Color": 0.8}
    image = Image.fromarray(pixels)
    for name in order:
        image = getattr(ImageEnhance, name)(image).enhance(0.5 + numbers[name])
    result = photometric(pixels[None].astype(np.float32), Fixed([*numbers.values()]))
    # Pillow truncates every pixel three times, by .5 on average and up to 1 each time.
    difference = result[0] - np.asarray(image, np.float32)
    assert difference.min() > -0.5
    assert difference.max() < 3.2
    assert difference.mean() < 1.7


def test_photometric_of_grey_images():
    """Brightness 1.5, then contrast .5 around the mean: 40 and 80 -> 60 and 120 -> 75 and 105."""
    pixels = np.array([40.0, 80.0], np.float32).reshape(1, 1, 2, 1)
    result = photometric(pixels, Fixed([1.0, 0.0, 0.5]))
    np.testing.assert_allclose(result.ravel(), [75, 105], atol=1e-4)


@pytest.mark.parametrize(
    ("lighting", "added"),
    [
        # A tenth of 255 times the deviation times the axis, such as 25.5 * .2175 * -.5675.
        ((1, 0, 0), (-3.1475, -3.2213, -3.2368)),
        ((0, 1, 0), (0.3448, -0.0022, -0.3331)),
        ((0, 0, -2), (-0.0920, 0.1868, -0.0965)),
    ],
)
def test_lighting_adds_a_tenth_of_each_component(lighting, added):
    """Factors of 1 leave the pixels to lighting alone."""
    pixels = np.full((1, 2, 2, 3), 100.0, np.float32)
    result = photometric(pixels, Fixed([0.5, 0.5, 0.5], lighting=lighting))
    np.testing.assert_allclose(result[0, 1, 1] - 100, added, atol=1e-4)


def test_photometric_stays_within_the_pixel_range():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (64, 8, 8, 3), np.uint8)
    result = photometric(images, Draws(0, 5, 64, 0, 64))
    assert result.min() == 0
    assert result.max() == 255
    assert np.isfinite(result).all()


@pytest.mark.parametrize(("flip", "shift"), [(True, 0), (False, 2), (True, 3)])
def test_pixel_places_are_those_of_augmented_images(flip, shift):
    """Gathered by rows and columns; the NumPy code for whole images slices and pads."""
    images = np.random.default_rng(0).integers(0, 256, (32, 5, 7, 3), np.uint8)
    recipe = Recipe(name="r", epochs=1, flip=flip, shift=shift)
    draws = Draws(1, 2, 32, 0, 32)
    rows, columns = pixel_places((5, 7), recipe, draws)
    numbers = np.arange(32)[:, None, None]
    gathered = images[numbers, rows[:, :, None], columns[:, None, :]]
    np.testing.assert_array_equal(gathered, augmented(images, recipe, draws))


def test_mixup_blends_neighbours_and_their_labels():
    images = np.array([0.0, 100.0, 10.0, 20.0], np.float32).reshape(4, 1, 1, 1)
    labels = np.array([0, 1, 2, 2])
    draws = Fixed([], [0.75, 0.5, 1.0, 0.1])
    mixed, targets = mixed_up(images, labels, 3, 0.2, draws)
    # .75 * 0 + .25 * 100; .5 * 100 + .5 * 0; 10; .1 * 20 + .9 * 10
    np.testing.assert_allclose(mixed.ravel(), [25, 50, 10, 11], rtol=1e-6)
    expected = [[0.75, 0.25, 0], [0.5, 0.5, 0], [0, 0, 1], [0, 0, 1]]
    np.testing.assert_allclose(targets, expected, rtol=1e-6)


def test_draws_have_the_distributions_they_name():
    draws = Draws(3, 7, 20_000, 0, 20_000)
    shares = draws.beta(5, 0.2)
    assert shares.mean() == pytest.approx(0.5, abs=0.015)
    assert shares.var() == pytest.approx(1 / (4 * 1.4), abs=0.005)  # 1 / (4 (2 alpha + 1))
    uniform = draws.uniform(1, 2)
    assert abs(np.corrcoef(uniform.T)[0, 1]) < 0.03
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
