"""Growth of the cost as modules are stacked or widened (section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from keras_inception.cost.layers import Cost, LayerCost, module_layers, network_cost
from keras_inception.spec.network import ModuleSpec, NetworkSpec


class Growth(NamedTuple):
    """One point of a growth curve: `scale` modules stacked, or widths multiplied by `scale`."""

    scale: float
    macs: int
    params: int
    output_filters: int


def growth_by_depth(
    module: ModuleSpec, *, input_filters: int, grid: int, depth: int
) -> list[Growth]:
    """Return the cost of 1 .. `depth` copies of `module` stacked on a grid x grid input.

    A naive module passes on all its input channels, so the cost of a stack grows with the square of
    the depth. With reductions and a projection, every further module costs the same (section 4).
    """
    curve = []
    layers: list[LayerCost] = []
    channels = input_filters
    for count in range(1, depth + 1):
        layers += module_layers(module, (grid, grid, channels), "stack", None)
        channels = module.output_filters(channels)
        total = Cost.of(layers)
        curve.append(Growth(count, total.macs, total.params, channels))
    return curve


def growth_by_width(spec: NetworkSpec, scales: Sequence[float]) -> list[Growth]:
    """Return the cost of the whole network with all module widths multiplied by each scale."""
    curve = []
    for scale in scales:
        scaled = spec.map_modules(
            {module.name: _scaled_module(module, scale) for module in spec.modules}
        )
        cost = network_cost(scaled, include_top=False)
        curve.append(
            Growth(scale, cost.total.macs, cost.total.params, cost.layers[-1].output_shape[-1])
        )
    return curve


def _scaled_module(module: ModuleSpec, scale: float) -> ModuleSpec:
    return module.with_widths(
        {suffix: max(1, round(width * scale)) for suffix, width in module.widths().items()}
    )
