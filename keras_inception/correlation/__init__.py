"""Correlation statistics of activations, their clusters and their dimension (section 4).

Section 4 of arXiv 1409.4842 starts from Arora et al.: "analyze the correlation statistics of the
last layer and cluster them into groups of units with high correlation". The paper gives no
algorithm; docs/correlation.md says which choices are ours. Arrays come in, numbers go out: no
Keras, no models. `design` makes a network of them.
"""

from keras_inception.correlation.clusters import (
    DEFAULT_THRESHOLD,
    Cluster,
    Clustering,
    UnitTree,
    cluster_units,
)
from keras_inception.correlation.dimension import (
    effective_dimension,
    patch_dimension,
    pooled_activations,
)
from keras_inception.correlation.statistics import (
    CorrelationDecay,
    OffsetStatistics,
    correlation_decay,
    shuffled,
)

__all__ = [
    "DEFAULT_THRESHOLD",
    "Cluster",
    "Clustering",
    "CorrelationDecay",
    "OffsetStatistics",
    "UnitTree",
    "cluster_units",
    "correlation_decay",
    "effective_dimension",
    "patch_dimension",
    "pooled_activations",
    "shuffled",
]
