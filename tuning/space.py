"""The search space: a few hyperparameters for each stage, each candidate projected onto the budget.

A point changes the widths of a network relative to each other; `fit_to_budget` then brings all of
them under the budget with one common scale and spends what rounding left. So no candidate costs
more than it may, and the neutral point, where all ratios and shares are 1, is the network itself.

Hyperparameters are ratios on a logarithmic scale, shares from 0, which removes a branch, numbers of
modules, sets of kernel sizes as text such as "3,5", and positions of the stem's pools. Builds
nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from keras_inception.cost.budget import Budget, NetworkBound, fit_to_budget
from keras_inception.spec.kernels import kernel_sizes
from keras_inception.spec.network import ConvSpec, NetworkSpec, StageSpec
from keras_inception.spec.validation import (
    Migrations,
    from_fields,
    json_document,
    object_of,
    optional,
    require_flags,
    require_instance,
    require_integers,
    require_numbers,
    require_tuple,
    tuple_of,
)
from tuning.dimension import Dimension, ratio_dimension, share_dimension
from tuning.latency import MIGRATIONS as LATENCY_MIGRATIONS
from tuning.latency import LatencyBudget, latency_model
from tuning.projection import (
    Value,
    Values,
    current_values,
    form_of,
    modules_with_kernels,
    own_kernels,
    pool_positions,
    ratio,
    target_widths,
    without_removed,
)

SCHEMA_VERSION = 4
# Largest ratio of each kind of hyperparameter; the smallest is its inverse.
WIDTH_RANGE = 2.0
REDUCE_RANGE = 2.0
ODDS_RANGE = 4.0
# Modules beyond those of the network that a stage may get.
MORE_MODULES = 1
BUDGET_FRACTION = "budget/fraction"


def _from_1(data: dict[str, Any]) -> dict[str, Any]:
    renamed = {"step": "width_divisor", "least_share": "min_budget_share"}
    return {renamed.get(name, name): value for name, value in data.items()}


def _from_2(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"pools": False}


def _from_3(data: dict[str, Any]) -> dict[str, Any]:
    budget = data.get("budget")
    if not isinstance(budget, dict) or not isinstance(budget.get("model"), dict):
        return data
    return data | {"budget": budget | {"model": LATENCY_MIGRATIONS[1](budget["model"])}}


MIGRATIONS: Migrations = {1: _from_1, 2: _from_2, 3: _from_3}


@dataclass(frozen=True, kw_only=True)
class Space:
    """All networks of one form within one budget.

    Attributes:
        base: the network at the neutral point, before it is fitted to the budget.
        budget: the most that a candidate may cost: `Budget` (multiply-adds, parameters or both) or
            `latency.LatencyBudget` (milliseconds).
        width_divisor: all widths are multiples of it, and at least it. At the neutral point the
            narrowest should be four times as wide (`base.base_with_room`).
        depth: search the number of modules of each stage, from 1 to one more than it has. The pools
            between the stages thereby move among the modules.
        kernels: sets of kernel sizes to search for each stage beside its own, such as
            ("3", "3,5,7").
        stem: search the width of the stem too.
        pools: search after which convolution of the stem each of its pools stands.
        min_budget_share: below 1, search also the share of the budget, from this one up: for
            accuracy against cost.
    """

    base: NetworkSpec
    budget: NetworkBound
    width_divisor: int = 8
    depth: bool = True
    kernels: tuple[str, ...] = ()
    stem: bool = True
    pools: bool = False
    min_budget_share: float = 1.0

    def __post_init__(self) -> None:
        require_instance(self, "base", NetworkSpec)
        require_integers(self, "width_divisor")
        require_flags(self, "depth", "stem", "pools")
        require_tuple(self, "kernels", str)
        require_numbers(self, "min_budget_share")
        for text in self.kernels:
            kernel_sizes(text)
        if not 0 < self.min_budget_share <= 1:
            raise ValueError(
                "Expected `min_budget_share` above 0, up to 1. "
                f"Received: min_budget_share={self.min_budget_share!r}"
            )
        for corner in self._costliest_forms():
            self.spec(corner)  # refuses a budget below the smallest network of the form

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The hyperparameters, in the order of the network.

        Widths are relative to the first stage, which therefore has none: the budget fixes the
        common scale.
        """
        found: list[Dimension] = []
        if self.min_budget_share < 1:
            low = self.min_budget_share
            found.append(Dimension(name=BUDGET_FRACTION, neutral=1.0, low=low, high=1.0, log=True))
        if self.stem:
            found.append(ratio_dimension("stem/width_ratio", WIDTH_RANGE))
        found += self._pool_dimensions()
        for index, stage in enumerate(self.base.stages):
            if index:
                found.append(ratio_dimension(f"stage_{stage.name}/width_ratio", WIDTH_RANGE))
            found += self._form_dimensions(stage)
            found += self._branch_dimensions(stage)
        return tuple(found)

    def _pool_dimensions(self) -> Iterator[Dimension]:
        """Positions of the stem's pools, from the cheapest network to the costliest."""
        convolutions = tuple(item.name for item in self.base.stem if isinstance(item, ConvSpec))
        if self.pools and len(convolutions) > 1:
            for pool, after in pool_positions(self.base).items():
                yield Dimension(name=f"stem/{pool}_after", neutral=after, choices=convolutions)

    def _form_dimensions(self, stage: StageSpec) -> list[Dimension]:
        """Numbers of modules and kernel sizes."""
        found: list[Dimension] = []
        count = len(stage.modules)
        if self.depth:
            name = f"stage_{stage.name}/depth"
            most = count + MORE_MODULES
            found.append(Dimension(name=name, neutral=count, low=1, high=most, integer=True))
        choices = self._kernel_choices(stage)
        if len(choices) > 1:
            name = f"stage_{stage.name}/kernels"
            found.append(Dimension(name=name, neutral=choices[0], choices=choices))
        return found

    def _branch_dimensions(self, stage: StageSpec) -> list[Dimension]:
        """Reductions, the odds of the first kernel size, and shares of the other branches."""
        prefix = f"stage_{stage.name}"
        modules = [
            module
            for text in self._kernel_choices(stage)
            for module in modules_with_kernels(stage, text)
        ]
        names = list(dict.fromkeys(name for module in modules for name in module.spatial_names))
        widths = {suffix for module in modules for suffix in module.widths()}
        found = [
            ratio_dimension(f"{prefix}/reduce_{name}_ratio", REDUCE_RANGE)
            for name in names
            if f"{name}_reduce" in widths
        ]
        if any(len(module.spatial) > 1 for module in modules):
            found.append(ratio_dimension(f"{prefix}/odds_{names[0]}_ratio", ODDS_RANGE))
        if len({name.removesuffix("_reduce") for name in widths}) > 1:  # not of an only branch
            if any(module.filters_1x1 for module in modules):
                found.append(share_dimension(f"{prefix}/share_1x1"))
            if "pool_proj" in widths:
                found.append(share_dimension(f"{prefix}/share_pool"))
        return found

    def _kernel_choices(self, stage: StageSpec) -> tuple[str, ...]:
        own = own_kernels(stage)
        return (own, *(text for text in self.kernels if text != own))

    def _costliest_forms(self) -> list[dict[str, Value]]:
        """Points whose smallest networks cost more, or may cost less, than all others."""
        extreme: dict[str, Value] = {}
        for item in self.dimensions:
            if item.integer:
                extreme[item.name] = int(item.high)
            elif item.name == BUDGET_FRACTION:
                extreme[item.name] = item.low
            elif item.name.startswith("stem/") and item.choices:
                extreme[item.name] = item.choices[-1]
        sets = [i for i in self.dimensions if i.choices and i.name not in extreme]
        count = max((len(item.choices) for item in sets), default=1)
        return [
            extreme | {item.name: item.choices[index % len(item.choices)] for item in sets}
            for index in range(count)
        ]

    def spec(self, values: Values) -> NetworkSpec:
        """The network of a point, within the budget.

        Args:
            values: by the names of `dimensions`, or by those of an earlier version; those that are
                left out are neutral, others are ignored.

        Raises:
            ValueError: the budget is below the smallest network of this form.
        """
        values = current_values(values)
        form = form_of(self.base, values)
        fraction = ratio(values, BUDGET_FRACTION)
        return fit_to_budget(
            without_removed(form, values),
            self.budget if fraction == 1 else self.budget.scaled(fraction),
            width_divisor=self.width_divisor,
            targets=target_widths(form, values, stem=self.stem),
            scale_stem=self.stem,
        )

    def random_point(self, draw: random.Random) -> dict[str, Value]:
        """A uniform point."""
        return {item.name: item.random_value(draw) for item in self.dimensions}

    def declare(self, hp: Any, *, grid: bool = False) -> dict[str, Value]:
        """Register the dimensions with KerasTuner's hyperparameters, and take their values.

        Args:
            hp: the hyperparameters.
            grid: give ratios and shares few values, a factor or step apart.
        """
        return {item.name: item.declare(hp, grid=grid) for item in self.dimensions}

    def to_json(self) -> str:
        """JSON text; `from_json` gives an equal space back."""
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        document["base"] = json.loads(self.base.to_json())
        document["budget"] = asdict(self.budget)  # type: ignore[call-overload]
        return json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Space:
        """Read what `to_json` wrote, in this version or an earlier one.

        Raises:
            ValueError: not JSON, a later schema version, or refused values.
        """
        return from_fields(
            cls,
            json_document(text, "space", SCHEMA_VERSION, MIGRATIONS),
            base=_base_from,
            budget=_budget_from,
            kernels=tuple_of(),
        )


def current_document(document: dict[str, Any]) -> dict[str, Any]:
    """The JSON object of a space of any version, as this version writes it."""
    data = json_document(json.dumps(document), "space", SCHEMA_VERSION, MIGRATIONS)
    base = json.loads(_base_from(data["base"]).to_json())
    return {"schema_version": SCHEMA_VERSION, **data, "base": base}


def _base_from(data: Any) -> NetworkSpec:
    return NetworkSpec.from_json(json.dumps(data))


def _budget_from(data: Any) -> NetworkBound:
    if isinstance(data, dict) and "model" in data:
        budget = optional(object_of(Budget))
        return from_fields(LatencyBudget, data, model=latency_model, budget=budget)
    return from_fields(Budget, data)
