"""Measured design: from a network's activations to a spec (section 4 and docs/correlation.md).

The line of a design: images -> activations at each module's input (`feature_extractor`) ->
statistics, clusters and dimensions (`correlation`) -> widths -> a spec within a budget. All modules
at once from one trained network, or layer by layer, as Arora et al. build theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_inception.budget import Budget, fit_to_budget
from keras_inception.correlation import (
    CorrelationDecay,
    OffsetStatistics,
    correlation_decay,
    patch_dimension,
    pooled_activations,
    shuffled,
)
from keras_inception.correlation.clusters import DEFAULT_THRESHOLD, UnitTree
from keras_inception.data import ImageData, Split, evaluation_batches
from keras_inception.network import feature_extractor
from keras_inception.recipe import Recipe
from keras_inception.spec import BranchSpec, ModuleSpec, NetworkSpec
from keras_inception.train import train

# The thresholds at which a report shows the clusters beside the chosen one.
SWEEP = (0.4, 0.5, 0.6, 0.7, 0.8)
_BATCH_SIZE = 128
_POOL = 3  # the window of a module's pooling branch


@dataclass(frozen=True, kw_only=True)
class DesignOptions:
    """How activations become widths.

    Fields:
        kernel_sizes: odd, among which the clusters' extents choose; 1 is always among them.
        threshold: the |correlation| that makes a cluster.
        step: the grid of widths.
        seed: of the channels that are clustered where there are too many, and of the null.
    """

    kernel_sizes: tuple[int, ...] = (1, 3, 5)
    threshold: float = DEFAULT_THRESHOLD
    step: int = 8
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
    """What the activations at one module's input say.

    Fields:
        module: its name.
        endpoint: where it was measured.
        grid: height and width of the activations there.
        channels: of the activations.
        decay: correlation against distance.
        null: the same after the positions of each channel were shuffled.
        counts: clusters by the kernel that covers them.
        sweep: shares of the kernels by threshold.
        extents: share of the clusters by side of the smallest square that holds them, from 1.
        dimensions: of a patch, for each of its positions, by kernel.
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


@dataclass(frozen=True, kw_only=True)
class Design:
    """A proposed network, what it was measured from, and where it started."""

    start: NetworkSpec
    spec: NetworkSpec
    measurements: tuple[ModuleMeasurement, ...]


def module_inputs(spec: NetworkSpec) -> dict[str, str]:
    """The endpoint that each module sees: {"3a": "pool2", "3b": "3a", "4a": "pool3", ...}."""
    inputs: dict[str, str] = {}
    below = spec.stem[-1].name
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
) -> tuple[ModuleMeasurement, ...]:
    """Run the images through the model and measure the input of each module.

    Args:
        model: a trained network of this package.
        endpoints: {module: endpoint}, as `module_inputs` gives them.
        batches: gives a fresh pass over the images, batch x h x w x C in the model's convention.
        options: kernels, threshold.

    Raises:
        ValueError: an endpoint that the model does not have, or no images.
    """
    return tuple(
        _measure_one(model, module, endpoint, batches(), options)
        for module, endpoint in endpoints.items()
    )


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
        activations = np.moveaxis(
            np.asarray(extractor.predict_on_batch(images)[endpoint]), axis, -1
        )
        if not null.count(0, 0):  # one batch alone shows what chance gives
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


def proposed_module(
    module: ModuleSpec, measurement: ModuleMeasurement, *, step: int = 8
) -> ModuleSpec:
    """The widths that a measurement gives a module, before they are scaled to a budget.

    The module keeps the number of its output channels. They are shared out in proportion to the
    clusters of each kernel and to the dimension of the pooled map. A reduction is as wide as its
    patch's dimension for each position, and never wider than the filters that it feeds (as in
    Table 1). A branch that would get less than half a step of filters is left out, and so is the
    pooling branch of a module that has none.
    """
    outputs = module.output_filters(measurement.channels)
    pool = 0.0 if module.filters_pool_proj == 0 else measurement.pooled_dimension
    scale = outputs / (sum(measurement.counts.values()) + pool)

    def filters(count: float) -> int:
        return round(count * scale) if count * scale >= step / 2 else 0

    widths = {size: filters(count) for size, count in measurement.counts.items()}
    spatial = tuple(
        BranchSpec(
            kernel_size=size,
            reduce=min(max(round(measurement.dimensions[size]), 1), width),
            filters=width,
        )
        for size, width in widths.items()
        if size > 1 and width
    )
    return replace(
        module,
        filters_1x1=widths[1] or (0 if spatial else 1),
        spatial=spatial,
        filters_pool_proj=filters(pool),
    )


def propose(
    spec: NetworkSpec,
    measurements: Sequence[ModuleMeasurement],
    budget: Budget,
    *,
    step: int = 8,
) -> NetworkSpec:
    """The modules of `spec` with the measured proportions, scaled to the budget.

    Raises:
        ValueError: the smallest network of this form costs more than the budget.
    """
    modules = {module.name: module for module in spec.modules}
    changed = {
        item.module: proposed_module(modules[item.module], item, step=step) for item in measurements
    }
    proposal = replace(spec.map_modules(changed), name=f"{spec.name}_designed")
    return fit_to_budget(proposal, budget, step=step)


def design(
    spec: NetworkSpec,
    model: keras.Model,
    images: Split,
    budget: Budget,
    options: DesignOptions | None = None,
) -> Design:
    """Design all modules at once from one trained network.

    Args:
        spec: of the model; the proposal keeps its stem, stages, classes and input.
        model: trained on images of this kind.
        images: to measure on; held-out ones tell best.
        budget: for the proposal.
        options: kernels, threshold, widths' grid.
    """
    options = options or DesignOptions()
    measurements = measure(model, module_inputs(spec), _passes(images, spec), options)
    proposal = propose(spec, measurements, budget, step=options.step)
    return Design(start=spec, spec=proposal, measurements=measurements)


def grow(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    budget: Budget,
    folder: Path,
    options: DesignOptions | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Design:
    """Design layer by layer: build the next module, train briefly, measure, go on.

    The network of the modules designed so far, and the next one as `spec` has it, is trained by
    `recipe`; what that module sees gives its widths. The budget is applied at the end, since only
    then all proportions are known.

    Args:
        spec: where to start.
        data: to train on (`data.train`) and to measure on (`data.test`).
        recipe: the short training of each step.
        budget: for the proposal.
        folder: a new or empty one; gets a run's folder for each module.
        options: kernels, threshold, widths' grid.
        callbacks: for each training.
    """
    options = options or DesignOptions()
    grown = spec
    measurements: list[ModuleMeasurement] = []
    for module, endpoint in module_inputs(spec).items():
        step = truncated(grown, module)
        run = train(step, data, recipe, folder / module, callbacks=callbacks)
        found = measure(run.model, {module: endpoint}, _passes(data.test, step), options)
        measurements += found
        changed = proposed_module(step.modules[-1], found[0], step=options.step)
        grown = grown.map_modules({module: changed})
    proposal = propose(spec, measurements, budget, step=options.step)
    return Design(start=spec, spec=proposal, measurements=tuple(measurements))


def truncated(spec: NetworkSpec, module: str) -> NetworkSpec:
    """`spec` up to and with a module: a network of its own, with its head.

    Raises:
        ValueError: a module that the spec does not have.
    """
    names = [item.name for item in spec.modules]
    if module not in names:
        raise ValueError(f"Expected a module among {', '.join(names)}. Received: {module!r}")
    kept = set(names[: names.index(module) + 1])
    stages = tuple(
        replace(stage, modules=tuple(item for item in stage.modules if item.name in kept))
        for stage in spec.stages
        if stage.modules[0].name in kept
    )
    return replace(
        spec,
        name=f"{spec.name}_to_{module}",
        stages=stages,
        aux=tuple(aux for aux in spec.aux if aux.after in kept),
    )


def _passes(images: Split, spec: NetworkSpec) -> Callable[[], Iterable[Any]]:
    return lambda: (pixels for pixels, _ in evaluation_batches(images, spec, _BATCH_SIZE))
