"""Measure a trained network's activations at each module's input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from threadpoolctl import threadpool_limits

from keras_inception.design.clusters import DEFAULT_THRESHOLD, UnitTree
from keras_inception.design.dimension import patch_dimension, pooled_activations
from keras_inception.design.statistics import (
    CorrelationDecay,
    OffsetStatistics,
    correlation_decay,
    shuffled,
)
from keras_inception.network.endpoints import feature_extractor
from keras_inception.spec.network import NetworkSpec

# Thresholds at which a report shows the clusters, in addition to the chosen one.
SWEEP = (0.4, 0.5, 0.6, 0.7, 0.8)
_POOL = 3  # the window of a module's pooling branch


@dataclass(frozen=True, kw_only=True)
class DesignOptions:
    """Options of the design.

    Attributes:
        kernel_sizes: odd kernel sizes that can cover a cluster; always include 1.
        threshold: mean |correlation| within a cluster.
        width_divisor: divisor of every proposed width.
        seed: seed of the subset of channels (if there are too many to cluster) and of the null.
    """

    kernel_sizes: tuple[int, ...] = (1, 3, 5)
    threshold: float = DEFAULT_THRESHOLD
    width_divisor: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = self.kernel_sizes
        if 1 not in sizes or max(sizes) == 1 or any(size < 1 or size % 2 == 0 for size in sizes):
            raise ValueError(
                "Expected odd kernel sizes, 1 and larger ones. Received: "
                f"kernel_sizes={self.kernel_sizes}"
            )
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"Expected a threshold between 0 and 1. Received: threshold={self.threshold!r}"
            )


@dataclass(frozen=True, kw_only=True)
class ModuleMeasurement:
    """Statistics of the activations at one module's input.

    Attributes:
        module: its name.
        endpoint: where the activations were measured.
        grid: height and width of the activations there.
        channels: of the activations.
        decay: correlation against distance.
        null: the same after the positions of each channel were shuffled.
        counts: clusters by the kernel that covers them.
        sweep: shares of the kernels for each threshold.
        extents: share of the clusters by side of the smallest square that holds them, from 1.
        dimensions: dimension of a patch per position, by kernel.
        pooled_dimension: the same of a 3x3 patch of the 3x3-max-pooled map.
    """

    module: str
    endpoint: str
    grid: tuple[int, int]
    channels: int
    decay: CorrelationDecay
    null: CorrelationDecay
    counts: dict[int, float]
    sweep: dict[float, dict[int, float]]
    extents: np.ndarray
    dimensions: dict[int, float]
    pooled_dimension: float


def module_inputs(spec: NetworkSpec) -> dict[str, str]:
    """Return the endpoint that each module reads: {"3a": "pool2", "3b": "3a", ...}."""
    inputs: dict[str, str] = {}
    below = spec.stem[-1].name if spec.stem else spec.input_name
    for stage in spec.stages:
        below = stage.downsample.name if stage.downsample else below
        for module in stage.modules:
            inputs[module.name] = below
            below = module.name
    return inputs


def measure(
    model: keras.Model,
    endpoints: Mapping[str, str],
    batches: Callable[[], Iterable[Any]],
    options: DesignOptions,
    report: Callable[[str], None] = lambda words: None,
) -> tuple[ModuleMeasurement, ...]:
    """Run the images through the model and measure the input of each module.

    Args:
        model: a trained network of this package.
        endpoints: {module: endpoint}, as `module_inputs` gives them.
        batches: returns a new pass over the images, batch x h x w x C in the model's convention.
        options: kernels, threshold.
        report: takes what is measured now, in words.

    Raises:
        ValueError: an endpoint that the model does not have, or no images.
    """
    found = []
    # Threads of BLAS wait in busy loops: beside other programs the small products here took 20
    # times the processor time. OffsetStatistics has threads of its own.
    with threadpool_limits(1, "blas"):
        for number, (module, endpoint) in enumerate(endpoints.items(), 1):
            report(f"measuring the input of {module}, {number} of {len(endpoints)}")
            found.append(_measure_one(model, module, endpoint, batches(), options))
    return tuple(found)


def _measure_one(
    model: keras.Model,
    module: str,
    endpoint: str,
    batches: Iterable[Any],
    options: DesignOptions,
) -> ModuleMeasurement:
    extractor = feature_extractor(model, [endpoint])
    axis = -1 if keras.config.image_data_format() == "channels_last" else 1
    channels = extractor.output[endpoint].shape[axis]
    patch = max(options.kernel_sizes)
    statistics, null = (OffsetStatistics(channels, patch - 1) for _ in range(2))
    pooled = OffsetStatistics(channels, _POOL - 1)
    for images in batches:
        output = np.asarray(extractor.predict_on_batch(images)[endpoint], dtype=np.float32)
        activations = np.moveaxis(output, axis, -1)
        if not null.count(0, 0):  # a single batch shows the level of chance
            null.update(shuffled(activations, options.seed))
        statistics.update(activations)
        pooled.update(pooled_activations(activations))
    if not statistics.count(0, 0):
        raise ValueError("Expected at least one batch of images to measure on. Received: none.")
    tree = UnitTree(statistics, patch, seed=options.seed)
    clustering = tree.cut(options.threshold)
    return ModuleMeasurement(
        module=module,
        endpoint=endpoint,
        grid=activations.shape[1:3],
        channels=channels,
        decay=correlation_decay(statistics),
        null=correlation_decay(null),
        counts=clustering.counts(options.kernel_sizes),
        sweep={at: tree.cut(at).shares(options.kernel_sizes) for at in SWEEP},
        extents=np.array(list(clustering.shares(range(1, patch + 1)).values())),
        dimensions={size: patch_dimension(statistics, size) for size in options.kernel_sizes},
        pooled_dimension=patch_dimension(pooled, _POOL),
    )
