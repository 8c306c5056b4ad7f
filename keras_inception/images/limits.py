"""How many pixels an image may have, and how many are decoded at a time. No pixels here."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Below 89.5 million, from which on Pillow itself warns of decompression bombs.
DEFAULT_MEGAPIXELS = 80
MEGAPIXELS_VARIABLE = "KERAS_INCEPTION_MAX_MEGAPIXELS"
# Of all threads together. A pixel takes up to 15 bytes while it is turned and composited.
PIXELS_IN_FLIGHT = 80_000_000


def max_pixels() -> int:
    """The most pixels of an image: 80 million, or what the environment variable says.

    Raises:
        ValueError: KERAS_INCEPTION_MAX_MEGAPIXELS is not a positive number.
    """
    text = os.environ.get(MEGAPIXELS_VARIABLE, "") or str(DEFAULT_MEGAPIXELS)
    try:
        pixels = round(float(text) * 1e6)
    except (ValueError, OverflowError):
        pixels = 0
    if pixels < 1:
        raise ValueError(
            f"Expected {MEGAPIXELS_VARIABLE} to be a positive number of megapixels. "
            f"Received: {text!r}"
        )
    return pixels


class PixelBudget:
    """Lets threads decode as long as their images have no more pixels together than the budget.

    An image larger than the whole budget waits until it is alone.
    """

    def __init__(self, pixels: int) -> None:
        self._budget = pixels
        self._in_flight = 0
        self._changed = threading.Condition()

    @contextmanager
    def spend(self, pixels: int) -> Iterator[None]:
        """Wait until there is budget for an image, and hold it for the length of the context."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._in_flight or self._in_flight + pixels <= self._budget
            )
            self._in_flight += pixels
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= pixels
                self._changed.notify_all()
