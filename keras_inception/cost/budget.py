"""Budgets, and scaling a network's widths to a budget (section 4's knobs and levers).

The scaled network never exceeds the budget and nearly uses it up: bisection finds one scale for all
widths, then a greedy pass spends the slack left by rounding. Needs only the spec.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self

from keras_inception.cost.layers import Cost, NetworkCost, network_cost
from keras_inception.spec.network import ConvSpec, ModuleSpec, NetworkSpec
from keras_inception.spec.validation import is_integer, require_integers

_BISECTIONS = 24


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
        require_integers(self, *bounds)

    def holds(self, cost: Cost) -> bool:
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
    step: int = 8,
    targets: Mapping[str, float] | None = None,
    scale_stem: bool = False,
) -> NetworkSpec:
    """Scale the widths of `spec` so that it uses `budget` and never exceeds it.

    Widths are multiples of `step`, at least `step`. A spec whose own cost is the budget is returned
    unchanged if its widths are multiples of `step`, as in Table 1.

    Args:
        spec: the network; its classes and input shape affect the cost.
        budget: bounds on MACs, parameters, or both; or another bound (`tuning` has latency).
        step: the grid of widths.
        targets: target widths by layer name before the common scale, any positive numbers
            (`tuning` varies them); the other widths are the spec's. The names are those of
            `module_widths`, and with `scale_stem` of the stem's convolutions.
        scale_stem: scale the stem's convolutions too. They are 30% of the paper's MACs.

    Raises:
        ValueError: the smallest network of this form costs more than the budget; a `step` below
            1; unknown names or refused numbers in `targets`.
    """
    wished = _wished_widths(spec, targets or {}, scale_stem)
    if not is_integer(step) or step < 1:
        raise ValueError(f"Expected `step` to be a positive integer. Received: step={step!r}")

    def build(widths: Mapping[str, int]) -> NetworkSpec:
        return _with_stem_widths(with_module_widths(spec, widths), widths)

    def fits(widths: Mapping[str, int]) -> bool:
        return budget.admits(network_cost(build(widths)))

    def rounded(scale: float) -> dict[str, int]:
        return {
            name: max(step, step * int(width * scale / step + 0.5))
            for name, width in wished.items()
        }

    if not fits(rounded(0.0)):
        price = budget.price(network_cost(build(rounded(0.0))))
        raise ValueError(
            f"Expected a budget of at least {price}, what {spec.name!r} costs with every width at "
            f"{step}. Received: {budget}. "
            "Raise the budget, or take fewer modules, a smaller step or a smaller stem."
        )
    low, high = 0.0, 1.0
    while fits(rounded(high)):
        low, high = high, 2 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(rounded(middle)) else (low, middle)
    return build(_spend_slack(rounded(low), wished, low, step, fits))


def _wished_widths(
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


def _with_stem_widths(spec: NetworkSpec, widths: Mapping[str, int]) -> NetworkSpec:
    layers = tuple(
        replace(layer, filters=widths.get(layer.name, layer.filters))
        if isinstance(layer, ConvSpec)
        else layer
        for layer in spec.stem
    )
    return replace(spec, stem=layers)


def _spend_slack(
    widths: dict[str, int],
    wished: Mapping[str, float],
    scale: float,
    step: int,
    fits: Callable[[Mapping[str, int]], bool],
) -> dict[str, int]:
    """Add one step to each width that still fits, largest rounding remainder first."""
    remainder = {name: wished[name] * scale - width for name, width in widths.items()}
    for name in sorted(widths, key=lambda name: -remainder[name]):
        wider = widths | {name: widths[name] + step}
        if fits(wider):
            widths = wider
    return widths
