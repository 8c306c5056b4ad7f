"""Streaming correlation of channel i at a position with channel j at an offset from it.

Image statistics are translation invariant, so the correlation of two units depends only on their
channels and the offset between their positions.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats

# A variance below this share of the mean square is a rounding error: the channel is constant.
_CONSTANT = 1e-12
# Probability that a measurement without correlation has any significant one.
_FALSE_ALARM = 0.01
# Offsets that are added at a time; each takes memory for two copies of a batch.
_THREADS = min(4, os.cpu_count() or 1)


class OffsetStatistics:
    """Correlation at every offset (dy, dx) up to `radius`, over positions and images.

    Each offset uses the positions where both units lie in the grid, with the means and standard
    deviations of exactly these positions, so the result is the exact Pearson correlation. Sums are
    float64. Memory is 4 * channels^2 * (2 * radius + 1)^2 bytes for any number of images.

    Args:
        channels: of the activations.
        radius: the largest |dy| and |dx|; k - 1 for a k x k patch.
    """

    def __init__(self, channels: int, radius: int) -> None:
        if channels < 1 or radius < 0:
            raise ValueError(
                "Expected at least one channel and a radius of 0 or more. Received: "
                f"channels={channels}, radius={radius}"
            )
        self.channels = channels
        self.radius = radius
        # C_ij(-d) = C_ji(d): half of the offsets are enough.
        half = [(dy, dx) for dy, dx in self.offsets if dy > 0 or (dy == 0 and dx >= 0)]
        self._index = {offset: index for index, offset in enumerate(half)}
        self._counts = np.zeros(len(half), dtype=np.int64)
        self._sums = np.zeros((len(half), 2, channels))
        self._squares = np.zeros((len(half), 2, channels))
        self._products = np.zeros((len(half), channels, channels))

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Return all offsets (dy, dx), row by row."""
        reach = range(-self.radius, self.radius + 1)
        return [(dy, dx) for dy in reach for dx in reach]

    def update(self, activations: np.ndarray) -> None:
        """Add a batch of activations, N x h x w x C. The order of batches does not matter.

        Raises:
            ValueError: if the shape differs or values are not finite.
        """
        if activations.ndim != 4 or activations.shape[3] != self.channels:
            raise ValueError(
                f"Expected activations of shape N x h x w x {self.channels}. "
                f"Received: shape={activations.shape}"
            )
        values = activations.astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("Expected finite activations. Received: NaN or infinity among them.")
        with ThreadPoolExecutor(_THREADS) as threads:
            # The list waits for all, and raises what one raised.
            list(threads.map(partial(self._add, values), self._index))

    def _add(self, values: np.ndarray, offset: tuple[int, int]) -> None:
        index, sides = self._index[offset], _overlap(values, *offset)
        self._counts[index] += len(sides[0])
        for number, side in enumerate(sides):
            self._sums[index, number] += side.sum(axis=0)
            self._squares[index, number] += np.einsum("pc,pc->c", side, side)
        self._products[index] += sides[0].T @ sides[1]

    def merge(self, other: OffsetStatistics) -> None:
        """Add the observations of `other`.

        Raises:
            ValueError: if channels or radius differ.
        """
        if (self.channels, self.radius) != (other.channels, other.radius):
            raise ValueError(
                f"Expected statistics of {self.channels} channels and radius {self.radius}. "
                f"Received: channels={other.channels}, radius={other.radius}"
            )
        self._counts += other._counts
        self._sums += other._sums
        self._squares += other._squares
        self._products += other._products

    def count(self, dy: int, dx: int) -> int:
        """Return the number of pairs at this offset; 0 if the grid is smaller than the offset."""
        return int(self._counts[self._find(dy, dx)[0]])

    def covariance(self, dy: int, dx: int) -> np.ndarray:
        """Return the covariance of channel i at (y, x) with channel j at (y + dy, x + dx), C x C.

        Zeros if there is no pair of positions.
        """
        index, mirrored = self._find(dy, dx)
        count = max(int(self._counts[index]), 1)
        means = self._sums[index] / count
        covariance = self._products[index] / count - np.outer(means[0], means[1])
        return covariance.T if mirrored else covariance

    def correlation(self, dy: int, dx: int) -> np.ndarray:
        """Return Pearson's correlation at an offset, C x C; 0 for a constant channel."""
        index, mirrored = self._find(dy, dx)
        count = max(int(self._counts[index]), 1)
        squares = self._squares[index] / count
        variances = squares - (self._sums[index] / count) ** 2
        varies = variances > _CONSTANT * squares
        scales = np.where(varies, 1 / np.sqrt(np.where(varies, variances, 1.0)), 0.0)
        first, second = scales[::-1] if mirrored else scales
        return np.clip(self.covariance(dy, dx) * np.outer(first, second), -1.0, 1.0)

    def significant_correlation(self) -> dict[tuple[int, int], np.ndarray]:
        """Return |correlation| by offset, C x C, float32; 0 where noise alone could produce it.

        Two independent channels with n pairs correlate by chance with a standard deviation of
        sqrt(sum_e r_ii(e) r_jj(e) / n), with e over all offsets (Bartlett): correlated neighbours
        count as fewer samples. The bound is corrected for the number of correlations.
        """
        itself = np.stack([self.correlation(*offset).diagonal() for offset in self.offsets])
        spread = np.sqrt(np.maximum(itself.T @ itself, 1.0))
        tests = len(self.offsets) * self.channels**2
        deviations = stats.norm.isf(_FALSE_ALARM / 2 / tests)
        found = {}
        for offset in self.offsets:
            strength = np.abs(self.correlation(*offset))
            floor = deviations * spread / np.sqrt(max(self.count(*offset), 1))
            found[offset] = np.where(strength > floor, strength, 0.0).astype(np.float32)
        return found

    def _find(self, dy: int, dx: int) -> tuple[int, bool]:
        """Return the index of an offset in the stored half, and whether it is mirrored."""
        if max(abs(dy), abs(dx)) > self.radius:
            raise ValueError(
                f"Expected an offset within the radius {self.radius}. Received: ({dy}, {dx})"
            )
        mirrored = (dy, dx) not in self._index
        return self._index[(-dy, -dx) if mirrored else (dy, dx)], mirrored


def _overlap(values: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both sides of an offset (dy >= 0) where both lie in the grid: positions x C each."""
    height, width, channels = values.shape[1:]
    rows, columns = max(height - dy, 0), max(width - abs(dx), 0)
    left, right = max(-dx, 0), max(dx, 0)
    first = values[:, :rows, left : left + columns]
    second = values[:, dy : dy + rows, right : right + columns]
    return first.reshape(-1, channels), second.reshape(-1, channels)


class CorrelationDecay(NamedTuple):
    """Correlation against distance max(|dy|, |dx|), from 0 to the radius; means over channels."""

    itself: np.ndarray  # |correlation| of a channel with itself
    strongest: np.ndarray  # of a channel with the other channel that it correlates with most


def correlation_decay(statistics: OffsetStatistics) -> CorrelationDecay:
    """Return how |correlation| decreases with distance; `strongest` is 0 for a single channel."""
    itself = np.zeros(statistics.radius + 1)
    strongest = np.zeros(statistics.radius + 1)
    seen = np.zeros(statistics.radius + 1)
    for dy, dx in statistics.offsets:
        if statistics.count(dy, dx):
            distance = max(abs(dy), abs(dx))
            strength = np.abs(statistics.correlation(dy, dx))
            itself[distance] += strength.diagonal().mean()
            np.fill_diagonal(strength, 0.0)
            strongest[distance] += strength.max(axis=1).mean()
            seen[distance] += 1
    return CorrelationDecay(itself / np.maximum(seen, 1), strongest / np.maximum(seen, 1))


def shuffled(activations: np.ndarray, seed: int) -> np.ndarray:
    """Return the null: each channel with its positions and images permuted independently.

    Every channel keeps its distribution; any remaining correlation is chance.
    """
    generator = np.random.default_rng(seed)
    flat = activations.reshape(-1, activations.shape[-1])
    return generator.permuted(flat, axis=0).reshape(activations.shape)
