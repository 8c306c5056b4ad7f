"""Budgets, and scaling a network's widths to a budget (section 4's knobs and levers).

The scaled network never exceeds the budget and nearly uses it up: bisection finds one scale for all
widths, then a greedy pass spends the slack left by rounding. Needs only the spec.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from keras_inception.cost.layers import Cost, NetworkCost, network_cost
from keras_inception.cost.widths import Amount, CostOfWidths
from keras_inception.spec.network import ConvSpec, ModuleSpec, NetworkSpec
from keras_inception.spec.validation import is_integer, require_integers

_BISECTIONS = 24
# Multiply-adds exceed 32 bits: the naive network has 12 thousand million.
_MOST = 2**63 - 1


class NetworkBound(Protocol):
    """A monotone bound for `fit_to_budget`: widening a network never brings it back within."""

    def admits(self, cost: NetworkCost) -> bool:
        """Return whether the network is within the bound."""

    def scaled(self, share: float) -> Self:
        """Return the bound with every number multiplied by a share."""

    def price(self, cost: NetworkCost) -> str:
        """Return the cost of a network in the units of the bound, as text."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Upper bounds for one image and one network; None leaves a quantity free.

    Attributes:
        macs: multiply-adds of one image, counted as in `cost`.
        params: trainable parameters.
    """

    macs: int | None = None
    params: int | None = None

    def __post_init__(self) -> None:
        bounds = [label for label in ("macs", "params") if getattr(self, label) is not None]
        if not bounds:
            raise ValueError("Expected a bound on `macs`, `params` or both. Received: neither.")
        require_integers(self, *bounds, most=_MOST)

    def holds(self, cost: Cost | Amount) -> bool:
        """Return whether `cost` is within every bound."""
        return (self.macs is None or cost.macs <= self.macs) and (
            self.params is None or cost.params <= self.params
        )

    def admits(self, cost: NetworkCost) -> bool:
        """Return whether the whole network is within every bound."""
        return self.holds(cost.total)

    def scaled(self, share: float) -> Budget:
        """Return this share of every bound, rounded down."""
        return Budget(
            macs=None if self.macs is None else int(self.macs * share),
            params=None if self.params is None else int(self.params * share),
        )

    def price(self, cost: NetworkCost) -> str:
        """Return multiply-adds and parameters as text."""
        return f"{cost.total.macs:,} MACs and {cost.total.params:,} parameters"

    def used(self, cost: Cost) -> float:
        """Return the share of the tightest bound that `cost` uses; above 1 is over budget."""
        shares = [
            value / bound
            for value, bound in ((cost.macs, self.macs), (cost.params, self.params))
            if bound is not None
        ]
        return max(shares)


def module_widths(spec: NetworkSpec) -> dict[str, int]:
    """Return the modules' widths by layer name: {"3a_1x1": 64, "3a_3x3_reduce": 96, ...}."""
    widths: dict[str, int] = {}
    for module in spec.modules:
        own = module.widths()
        # The order breaks ties when `fit_to_budget` spends slack: spatial branches come last.
        for suffix in sorted(own, key=lambda suffix: suffix not in ("1x1", "pool_proj")):
            widths[f"{module.name}_{suffix}"] = own[suffix]
    return widths


def with_module_widths(spec: NetworkSpec, widths: Mapping[str, int]) -> NetworkSpec:
    """Return `spec` with the widths named in `widths`; the inverse of `module_widths`."""

    def widened(module: ModuleSpec) -> ModuleSpec:
        own = {suffix: f"{module.name}_{suffix}" for suffix in module.widths()}
        return module.with_widths({s: widths[name] for s, name in own.items() if name in widths})

    return spec.map_modules({module.name: widened(module) for module in spec.modules})


def fit_to_budget(
    spec: NetworkSpec,
    budget: NetworkBound,
    *,
    width_divisor: int = 8,
    min_width: int | None = None,
    targets: Mapping[str, float] | None = None,
    scale_stem: bool = False,
) -> NetworkSpec:
    """Scale the widths of `spec` so that it uses `budget` and never exceeds it.

    Widths are multiples of `width_divisor`, and at least `min_width`. A spec whose own cost is
    the budget is returned unchanged if its widths are such multiples, as Table 1's are of 8.

    Args:
        spec: the network; its classes and input shape affect the cost.
        budget: bounds on MACs, parameters, or both; or another bound (`tuning` has latency).
        width_divisor: what every width is a multiple of.
        min_width: the smallest width, a multiple of the divisor; None: the divisor.
        targets: target widths by layer name, any positive numbers, before the common scale; by
            default the spec's own. The names are those of `module_widths`, and with `scale_stem`
            those of the stem's convolutions.
        scale_stem: also scale the stem's convolutions. They are 30% of the paper's MACs.

    Raises:
        ValueError: the smallest network of this form costs more than the budget; a
            `width_divisor` below 1; a `min_width` that is no multiple of it; unknown
            names or refused numbers in `targets`.
    """
    if not is_integer(width_divisor) or width_divisor < 1:
        raise ValueError(
            "Expected `width_divisor` to be a positive integer. "
            f"Received: width_divisor={width_divisor!r}"
        )
    if min_width is not None and (min_width < 1 or min_width % width_divisor):
        raise ValueError(
            f"Expected `min_width` to be a multiple of width_divisor={width_divisor}. "
            f"Received: min_width={min_width!r}"
        )
    scaling = _Scaling(
        spec=spec,
        budget=budget,
        divisor=width_divisor,
        min_width=min_width or width_divisor,
        targets=_target_widths(spec, targets or {}, scale_stem),
    )
    scaling.require_a_fitting_network()
    return scaling.build(scaling.with_slack_spent(scaling.largest_scale()))


def _target_widths(
    spec: NetworkSpec, targets: Mapping[str, float], scale_stem: bool
) -> dict[str, float]:
    """Return the widths to scale: those of the spec, replaced by `targets` where given."""
    own = module_widths(spec)
    if scale_stem:
        own |= {layer.name: layer.filters for layer in spec.stem if isinstance(layer, ConvSpec)}
    unknown = sorted(set(targets) - set(own))
    if unknown:
        raise ValueError(
            f"Expected `targets` among the widths of {spec.name!r}: {', '.join(own)}. "
            f"Received: {unknown}"
        )
    refused = {name: width for name, width in targets.items() if not 0 < width < math.inf}
    if refused:
        raise ValueError(f"Expected positive finite `targets`. Received: {refused}")
    return {**own, **targets}


@dataclass(frozen=True, kw_only=True)
class _Scaling:
    """Target widths of a network, times a common scale, rounded to multiples of the divisor."""

    spec: NetworkSpec
    budget: NetworkBound
    divisor: int
    min_width: int
    targets: Mapping[str, float]
    # Whether networks of these widths fit: bisection asks for the same ones again.
    _known: dict[tuple[int, ...], bool] = field(default_factory=dict)

    def rounded(self, scale: float) -> dict[str, int]:
        divisor = self.divisor
        return {
            name: max(self.min_width, divisor * int(width * scale / divisor + 0.5))
            for name, width in self.targets.items()
        }

    def build(self, widths: Mapping[str, int]) -> NetworkSpec:
        return _with_stem_widths(with_module_widths(self.spec, widths), widths)

    @functools.cached_property
    def cost_of(self) -> CostOfWidths:
        return CostOfWidths(self.spec, self.targets.keys())

    def fits(self, widths: Mapping[str, int]) -> bool:
        key = tuple(widths.values())
        if key not in self._known:
            self._known[key] = (
                self.budget.holds(self.cost_of(widths))  # without building the network
                if isinstance(self.budget, Budget)
                else self.budget.admits(network_cost(self.build(widths)))
            )
        return self._known[key]

    def require_a_fitting_network(self) -> None:
        smallest = self.rounded(0.0)
        if self.fits(smallest):
            return
        price = self.budget.price(network_cost(self.build(smallest)))
        raise ValueError(
            f"Expected a budget of at least {price}, the cost of {self.spec.name!r} with every "
            f"width at {self.min_width}. Received: {self.budget}. Raise the budget, or take fewer "
            "modules, a smaller width divisor or a smaller stem."
        )

    def largest_scale(self) -> float:
        """The largest scale within the budget, by bisection."""
        low, high = 0.0, 1.0
        while self.fits(self.rounded(high)):
            low, high = high, 2 * high
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.fits(self.rounded(middle)) else (low, middle)
        return low

    def with_slack_spent(self, scale: float) -> dict[str, int]:
        """Widen by one divisor each width that still fits, largest rounding remainder first."""
        widths = self.rounded(scale)
        remainder = {name: self.targets[name] * scale - width for name, width in widths.items()}
        for name in sorted(widths, key=lambda name: -remainder[name]):
            wider = widths | {name: widths[name] + self.divisor}
            if self.fits(wider):
                widths = wider
        return widths


def _with_stem_widths(spec: NetworkSpec, widths: Mapping[str, int]) -> NetworkSpec:
    layers = tuple(
        replace(layer, filters=widths.get(layer.name, layer.filters))
        if isinstance(layer, ConvSpec)
        else layer
        for layer in spec.stem
    )
    return replace(spec, stem=layers)
