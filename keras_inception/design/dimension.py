"""The effective dimension of a patch.

Section 4 of arXiv 1409.4842: "even low dimensional embeddings might contain a lot of information
about a relatively large image patch". This justifies a 1x1 reduction before a kernel.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from keras_inception.design.statistics import OffsetStatistics

# The largest eigenvalue problem of a patch, which takes seconds on one core.
MAX_UNITS = 3200
EXPLAINED = 0.9


def effective_dimension(covariance: np.ndarray, explained: float = EXPLAINED) -> int:
    """Return the number of principal components that hold the share `explained` of the variance.

    0 for zero variance. Negative eigenvalues, which a covariance assembled from several offsets
    can have, count as 0.
    """
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0.0)
    total = eigenvalues.sum()
    if total == 0:
        return 0
    reached = np.cumsum(eigenvalues) >= explained * total * (1 - 1e-12)
    return int(reached.argmax()) + 1


def patch_dimension(statistics: OffsetStatistics, kernel_size: int) -> float:
    """Return the dimension of a kernel_size x kernel_size patch per position.

    A reduction to r channels gives the kernel r * kernel_size^2 numbers, so to represent the patch
    it needs the patch's dimension divided by kernel_size^2. Correlated neighbours make this smaller
    than the dimension of one position, and smaller still for a larger kernel.

    With more than MAX_UNITS units in the patch, the ratio is measured on the leading principal
    components of the channels.

    Args:
        statistics: of radius kernel_size - 1 or more.
        kernel_size: 1 gives the dimension of a position.
    """
    covariance = statistics.covariance(0, 0)
    position = effective_dimension(covariance)
    if kernel_size == 1 or position == 0:
        return float(position)
    kept = max(MAX_UNITS // kernel_size**2, 1)
    components = np.linalg.eigh(covariance)[1][:, ::-1][:, :kept]
    places = [(y, x) for y in range(kernel_size) for x in range(kernel_size)]
    reduced = {
        offset: components.T @ statistics.covariance(*offset) @ components
        for offset in {(b[0] - a[0], b[1] - a[1]) for a in places for b in places}
    }
    patch = np.block([[reduced[b[0] - a[0], b[1] - a[1]] for b in places] for a in places])
    fewer = effective_dimension(patch) / effective_dimension(reduced[0, 0]) / kernel_size**2
    return position * fewer


def pooled_activations(activations: np.ndarray) -> np.ndarray:
    """Apply the 3x3 max pool of stride 1 of a module's pooling branch: N x h x w x C unchanged."""
    return ndimage.maximum_filter(activations, size=(1, 3, 3, 1), mode="constant", cval=-np.inf)
