"""Clusters of highly correlated units, and the kernels that cover them.

A unit is a channel at an offset in the patch of the largest kernel. Translated copies of a cluster
count as one: each channel is assigned to its largest cluster in the patch, and the channels of a
cluster share one count, which is one filter of the next layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial import distance

from keras_inception.design.statistics import OffsetStatistics

# At this threshold trained networks have clusters of every size (docs/correlation.md): below .5
# nearly all are spread out, above .7 nearly all are at one position.
DEFAULT_THRESHOLD = 0.6
# The most units of a patch that are clustered. The float64 matrix of their correlations and
# SciPy's copies of it then take about 0.7 GB.
MAX_UNITS = 6400
# Share of a cluster's units that its kernel must cover; the rest are outliers.
_COVERED = 0.9


@dataclass(frozen=True)
class Cluster:
    """Units of one cluster in the patch, and the smallest kernel that covers them."""

    channels: np.ndarray  # channel of each unit, int
    offsets: np.ndarray  # (row, column) in the patch of each unit, units x 2, int
    extent: int  # side of the smallest square that holds 90% of the units

    def kernel_size(self, kernel_sizes: Sequence[int]) -> int:
        """Return the smallest kernel that is as large as the extent, or else the largest one."""
        return min((k for k in kernel_sizes if k >= self.extent), default=max(kernel_sizes))


@dataclass(frozen=True)
class Clustering:
    """The largest cluster of every channel.

    Attributes:
        clusters: the distinct clusters.
        weights: number of filters per cluster: (channels assigned to it) / (channels in it);
            1 unless a channel has a larger cluster elsewhere.
        patch: side of the patch.
    """

    clusters: tuple[Cluster, ...]
    weights: np.ndarray
    patch: int

    def counts(self, kernel_sizes: Sequence[int]) -> dict[int, float]:
        """Return the number of clusters by the kernel that covers them."""
        counts = dict.fromkeys(sorted(kernel_sizes), 0.0)
        for cluster, weight in zip(self.clusters, self.weights, strict=True):
            counts[cluster.kernel_size(kernel_sizes)] += float(weight)
        return counts

    def shares(self, kernel_sizes: Sequence[int]) -> dict[int, float]:
        """Return the counts as shares of all clusters; they sum to 1."""
        counts = self.counts(kernel_sizes)
        return {kernel: count / sum(counts.values()) for kernel, count in counts.items()}


class UnitTree:
    """The average-linkage tree of the units of a patch, which can be cut at any threshold.

    The similarity of two units is their |correlation|; correlations that noise could produce count
    as 0.

    Args:
        statistics: of radius patch - 1 or more.
        patch: side of the patch, an odd number: the largest kernel.
        seed: picks the channels where there are too many for MAX_UNITS.
    """

    def __init__(self, statistics: OffsetStatistics, patch: int, *, seed: int = 0) -> None:
        if patch < 1 or patch % 2 == 0 or patch > statistics.radius + 1:
            raise ValueError(
                f"Expected an odd patch of at most {statistics.radius + 1}, the statistics' radius "
                f"and 1. Received: patch={patch}"
            )
        self.patch = patch
        most = max(MAX_UNITS // patch**2, 1)
        order = np.random.default_rng(seed).permutation(statistics.channels)
        self._picked = np.sort(order[:most])
        self._places = np.array([(y, x) for y in range(patch) for x in range(patch)])
        similarity = self._similarity(statistics)
        self._tree = None
        if len(similarity) > 1:
            np.fill_diagonal(similarity, 1.0)  # rounding errors and constant channels
            condensed = distance.squareform(1 - similarity, checks=False)
            self._tree = hierarchy.linkage(condensed, method="average")

    def _similarity(self, statistics: OffsetStatistics) -> np.ndarray:
        """Return the similarities, units x units, ordered by offset and then channel."""
        found = statistics.significant_correlation()
        picked = np.ix_(self._picked, self._picked)
        rows = [
            [found[int(b[0] - a[0]), int(b[1] - a[1])][picked] for b in self._places]
            for a in self._places
        ]
        return np.block(rows)

    def cut(self, threshold: float = DEFAULT_THRESHOLD) -> Clustering:
        """Return the clusters whose units correlate by `threshold` or more on average.

        Raises:
            ValueError: if the threshold is outside 0 to 1.
        """
        if not 0 < threshold < 1:
            raise ValueError(
                f"Expected a threshold between 0 and 1. Received: threshold={threshold!r}"
            )
        channels = np.tile(self._picked, len(self._places))
        offsets = np.repeat(self._places, len(self._picked), axis=0)
        if self._tree is None:
            labels = np.zeros(1, dtype=np.int64)
        else:
            labels = hierarchy.fcluster(self._tree, 1 - threshold, criterion="distance") - 1
        sizes = np.bincount(labels)
        # Rows are offsets, columns are channels: find where in the patch a channel's cluster is
        # largest.
        by_channel = labels.reshape(len(self._places), len(self._picked))
        fullest = np.take_along_axis(
            by_channel, sizes[by_channel].argmax(axis=0)[np.newaxis], axis=0
        )[0]
        clusters, weights = [], []
        for label, readers in zip(*np.unique(fullest, return_counts=True), strict=True):
            own = labels == label
            extent = _extent(offsets[own], self.patch)
            clusters.append(Cluster(channels[own], offsets[own], extent))
            weights.append(readers / len(np.unique(channels[own])))
        return Clustering(tuple(clusters), np.array(weights), self.patch)


def cluster_units(
    statistics: OffsetStatistics,
    patch: int,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    seed: int = 0,
) -> Clustering:
    """Cluster the units of a patch x patch region: `UnitTree` and one `cut` of it.

    Args:
        statistics: of radius patch - 1 or more.
        patch: side of the patch, an odd number: the largest kernel.
        threshold: mean |correlation| of the pairs in a cluster.
        seed: picks the channels where there are too many for MAX_UNITS.
    """
    return UnitTree(statistics, patch, seed=seed).cut(threshold)


def _extent(offsets: np.ndarray, patch: int) -> int:
    """Return the side of the smallest square in the patch that holds 90% of the units."""
    units = np.zeros((patch, patch))
    np.add.at(units, (offsets[:, 0], offsets[:, 1]), 1)
    for side in range(1, patch):
        windows = np.lib.stride_tricks.sliding_window_view(units, (side, side))
        if windows.sum(axis=(2, 3)).max() >= _COVERED * len(offsets):
            return side
    return patch
