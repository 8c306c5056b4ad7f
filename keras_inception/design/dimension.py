"""How few numbers hold most of a patch.

Section 4 of arXiv 1409.4842: "even low dimensional embeddings might contain a lot of information
about a relatively large image patch". This is why a 1x1 reduction may stand before a kernel.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from keras_inception.design.statistics import OffsetStatistics

# The largest matrix of a patch whose eigenvalues are taken: seconds on one core.
MAX_UNITS = 3200
EXPLAINED = 0.9


def effective_dimension(covariance: np.ndarray, explained: float = EXPLAINED) -> int:
    """The number of principal components that hold the share `explained` of the variance.

    0 where nothing varies. Negative eigenvalues, which a covariance put together from several
    offsets can have, count as 0.
    """
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0.0)
    total = eigenvalues.sum()
    if total == 0:
        return 0
    reached = np.cumsum(eigenvalues) >= explained * total * (1 - 1e-12)
    return int(reached.argmax()) + 1


def patch_dimension(statistics: OffsetStatistics, kernel_size: int) -> float:
    """Dimension of a kernel_size x kernel_size patch for each of its positions.

    A reduction to r channels hands r * kernel_size^2 numbers to the kernel: to hold the patch it
    needs its dimension divided by kernel_size^2. Neighbours that are alike make that fewer than
    one position's dimension, and fewer for a larger kernel.

    With more than MAX_UNITS units in the patch, how much fewer is measured on the leading
    principal components of the channels.

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
    """The 3x3 max pool of stride 1 of a module's pooling branch: N x h x w x C, as given."""
    return ndimage.maximum_filter(activations, size=(1, 3, 3, 1), mode="constant", cval=-np.inf)
