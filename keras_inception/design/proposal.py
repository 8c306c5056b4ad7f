"""From measurements to widths within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from keras_inception.cost.budget import Budget, fit_to_budget
from keras_inception.design.measurement import ModuleMeasurement
from keras_inception.spec.network import BranchSpec, ModuleSpec, NetworkSpec
from keras_inception.spec.validation import derived_name


def proposed_module(
    module: ModuleSpec, measurement: ModuleMeasurement, *, width_divisor: int = 8
) -> ModuleSpec:
    """Return a module with widths from a measurement, before they are scaled to a budget.

    The module keeps its number of output channels. They are split in proportion to the clusters of
    each kernel and the dimension of the pooled map. A reduction is as wide as its patch's dimension
    per position, and never wider than the filters that it feeds (as in Table 1). A branch that
    would get fewer filters than half of `width_divisor` is omitted, and so is the pooling branch if
    the module has none.
    """
    outputs = module.output_filters(measurement.channels)
    pool = 0.0 if module.filters_pool_proj == 0 else measurement.pooled_dimension
    scale = outputs / (sum(measurement.counts.values()) + pool)

    def filters(count: float) -> int:
        return round(count * scale) if count * scale >= width_divisor / 2 else 0

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
    width_divisor: int = 8,
) -> NetworkSpec:
    """Return `spec` with modules of the measured proportions, scaled to the budget.

    Raises:
        ValueError: if the smallest network of this form costs more than the budget.
    """
    modules = {module.name: module for module in spec.modules}
    changed = {
        item.module: proposed_module(modules[item.module], item, width_divisor=width_divisor)
        for item in measurements
    }
    proposal = replace(spec.map_modules(changed), name=derived_name(spec.name, "_designed"))
    return fit_to_budget(proposal, budget, width_divisor=width_divisor)
