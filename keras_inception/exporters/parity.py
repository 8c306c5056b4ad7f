"""Agreement of an exported network with the Python model, and its tolerances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_inception.wording import counted

# Largest difference of a score due to float32 rounding.
FLOAT32_TOLERANCE = 1e-5
# Share of images whose first class must be the same in lower precision.
LEAST_SAME_FIRST = {"bfloat16": 0.99, "float16": 0.99, "int8": 0.98}


@dataclass(frozen=True)
class Agreement:
    """Number of images, the largest difference of a score, and the share of equal first classes."""

    images: int
    largest_difference: float
    same_first: float


def agreement(expected: np.ndarray, received: np.ndarray) -> Agreement:
    """Compare scores, N x classes each.

    First classes whose scores are equal within float32 rounding count as the same.

    Raises:
        ValueError: if the shapes differ.
    """
    if expected.shape != received.shape:
        raise ValueError(
            f"Expected scores of shape {expected.shape}. Received: shape={received.shape}"
        )
    chosen = np.take_along_axis(expected, received.argmax(axis=1)[:, None], axis=1)[:, 0]
    same = chosen >= expected.max(axis=1) - FLOAT32_TOLERANCE
    difference = float(np.max(np.abs(expected - received)))
    return Agreement(len(expected), difference, float(np.mean(same)))


def require_agreement(found: Agreement, what: str, precision: str) -> None:
    """Refuse too large differences: of any score in "float32", of the first class otherwise.

    Raises:
        ValueError: with the numbers.
    """
    if precision == "float32":
        close, needed = found.largest_difference <= FLOAT32_TOLERANCE, f"{FLOAT32_TOLERANCE}"
        if not close:  # also if a score is NaN
            raise ValueError(
                f"{what}: expected scores within {needed} of the model's. Received: a difference "
                f"of {found.largest_difference:.3g} on {counted(found.images, 'image')}."
            )
        return
    least = LEAST_SAME_FIRST[precision]
    if not (found.same_first >= least and np.isfinite(found.largest_difference)):
        raise ValueError(
            f"{what}: expected the model's first class on {least:.0%} of the images. "
            f"Received: {found.same_first:.1%} of {found.images} in {precision}, scores "
            f"up to {found.largest_difference:.3g} apart."
        )
