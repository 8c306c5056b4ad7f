"""How closely an exported network agrees with the Python model, and what is close enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Largest difference of a score that float32 rounding explains.
FLOAT32_TOLERANCE = 1e-5
# Share of images whose first class must stay, for what computes in fewer bits.
LEAST_SAME_FIRST = {"bfloat16": 0.99, "float16": 0.99, "int8": 0.98}


@dataclass(frozen=True)
class Agreement:
    """Fields: images compared; the largest difference of a score; share of the same first class."""

    images: int
    largest_difference: float
    same_first: float


def agreement(expected: np.ndarray, received: np.ndarray) -> Agreement:
    """Compare scores, N x classes each.

    First classes that score alike within float32 rounding count as the same.

    Raises:
        ValueError: other shapes.
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
    """Refuse what differs too much: any score in "float32", the first class in fewer bits.

    Raises:
        ValueError: with the numbers.
    """
    if precision == "float32":
        close, needed = found.largest_difference <= FLOAT32_TOLERANCE, f"{FLOAT32_TOLERANCE}"
        if not close:  # also where a score is not a number
            raise ValueError(
                f"{what}: expected scores within {needed} of the model's. Received: a difference "
                f"of {found.largest_difference:.3g} on {found.images} images."
            )
        return
    least = LEAST_SAME_FIRST[precision]
    if not (found.same_first >= least and np.isfinite(found.largest_difference)):
        raise ValueError(
            f"{what}: expected the model's first class on {least:.0%} of the images. "
            f"Received: {found.same_first:.1%} of {found.images} in {precision}, scores "
            f"up to {found.largest_difference:.3g} apart."
        )
