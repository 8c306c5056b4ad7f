"""The search space: a few hyperparameters for each stage, each candidate projected onto the budget.

A point changes the widths of a network relative to each other; `fit_to_budget` then brings all of
them under the budget with one common scale and spends what rounding left. So no candidate costs
more than it may, and the neutral point, all zeros, is the network itself.

Hyperparameters are log2 ratios (base-2 logarithms of factors: 1 doubles), numbers of modules, and
sets of kernel sizes as text such as "3,5". Builds nothing.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from keras_inception.cost.budget import Budget, NetworkBound, fit_to_budget
from keras_inception.spec.kernels import kernel_sizes
from keras_inception.spec.network import NetworkSpec, StageSpec
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
from keras_inception.spec.variants import BN, SMALL
from tuning.latency import LatencyBudget, LatencyModel
from tuning.projection import (
    Value,
    Values,
    form_of,
    modules_with_kernels,
    own_kernels,
    ratio,
    target_widths,
)

SCHEMA_VERSION = 2
_SMALL_SIZE = 64
# Largest and, negated, smallest log2 ratio of each kind of hyperparameter.
WIDTH_RANGE = 1.0
REDUCE_RANGE = 1.5
ODDS_RANGE = 3.0
POOL_RANGE = 1.5
# Modules beyond those of the network that a stage may get.
MORE_MODULES = 1
BUDGET_SHARE = "budget/share"


def _from_1(data: dict[str, Any]) -> dict[str, Any]:
    renamed = {"step": "width_divisor", "least_share": "min_budget_share"}
    return {renamed.get(name, name): value for name, value in data.items()}


MIGRATIONS: Migrations = {1: _from_1}


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter: a log2 ratio or an integer from `low` to `high`, or one of `choices`."""

    name: str
    neutral: Value
    low: float = 0.0
    high: float = 0.0
    integer: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Space:
    """All networks of one form within one budget.

    Attributes:
        base: the network at the neutral point, before it is fitted to the budget.
        budget: the most that a candidate may cost: `Budget` (multiply-adds, parameters or both) or
            `latency.LatencyBudget` (milliseconds).
        width_divisor: all widths are multiples of it. Below some 20 million multiply-adds choose 4:
            with 8 the reductions cannot get narrower.
        depth: search the number of modules of each stage, from 1 to one more than it has.
        kernels: sets of kernel sizes to search for each stage beside its own, such as
            ("3", "3,5,7").
        stem: search the width of the stem too.
        min_budget_share: below 1, search also the share of the budget, from this one up: for
            accuracy against cost.
    """

    base: NetworkSpec
    budget: NetworkBound
    width_divisor: int = 8
    depth: bool = False
    kernels: tuple[str, ...] = ()
    stem: bool = False
    min_budget_share: float = 1.0

    def __post_init__(self) -> None:
        require_instance(self, "base", NetworkSpec)
        require_integers(self, "width_divisor")
        require_flags(self, "depth", "stem")
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
            found.append(Dimension(BUDGET_SHARE, 0.0, math.log2(self.min_budget_share), 0.0))
        if self.stem:
            found.append(_log2_ratio("stem/width", WIDTH_RANGE))
        for index, stage in enumerate(self.base.stages):
            if index:
                found.append(_log2_ratio(f"stage_{stage.name}/width", WIDTH_RANGE))
            found += self._form_dimensions(stage)
            found += self._branch_dimensions(stage)
        return tuple(found)

    def _form_dimensions(self, stage: StageSpec) -> list[Dimension]:
        """Numbers of modules and kernel sizes."""
        found: list[Dimension] = []
        count = len(stage.modules)
        if self.depth:
            name = f"stage_{stage.name}/depth"
            found.append(Dimension(name, count, 1, count + MORE_MODULES, integer=True))
        choices = self._kernel_choices(stage)
        if len(choices) > 1:
            found.append(Dimension(f"stage_{stage.name}/kernels", choices[0], choices=choices))
        return found

    def _branch_dimensions(self, stage: StageSpec) -> list[Dimension]:
        """Reductions, the share of the first kernel size, and the projection."""
        prefix = f"stage_{stage.name}"
        modules = [
            module
            for text in self._kernel_choices(stage)
            for module in modules_with_kernels(stage, text)
        ]
        names = list(dict.fromkeys(name for module in modules for name in module.spatial_names))
        widths = {suffix for module in modules for suffix in module.widths()}
        found = [
            _log2_ratio(f"{prefix}/reduce_{name}", REDUCE_RANGE)
            for name in names
            if f"{name}_reduce" in widths
        ]
        if any(len(module.spatial) > 1 for module in modules):
            found.append(_log2_ratio(f"{prefix}/odds_{names[0]}", ODDS_RANGE))
        if "pool_proj" in widths:
            found.append(_log2_ratio(f"{prefix}/pool_proj", POOL_RANGE))
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
            elif item.name == BUDGET_SHARE:
                extreme[item.name] = item.low
        sets = [item for item in self.dimensions if item.choices]
        count = max((len(item.choices) for item in sets), default=1)
        return [
            extreme | {item.name: item.choices[index % len(item.choices)] for item in sets}
            for index in range(count)
        ]

    def spec(self, values: Values) -> NetworkSpec:
        """The network of a point, within the budget.

        Args:
            values: by the names of `dimensions`; those that are left out are neutral, others are
                ignored.

        Raises:
            ValueError: the budget is below the smallest network of this form.
        """
        form = form_of(self.base, values)
        share = ratio(values, BUDGET_SHARE)
        return fit_to_budget(
            form,
            self.budget if share == 1 else self.budget.scaled(share),
            width_divisor=self.width_divisor,
            targets=target_widths(form, values, stem=self.stem),
            scale_stem=self.stem,
        )

    def random_point(self, draw: random.Random) -> dict[str, Value]:
        """A uniform point."""
        values: dict[str, Value] = {}
        for item in self.dimensions:
            if item.choices:
                values[item.name] = draw.choice(item.choices)
            elif item.integer:
                values[item.name] = draw.randint(int(item.low), int(item.high))
            else:
                values[item.name] = draw.uniform(item.low, item.high)
        return values

    def declare(self, hp: Any) -> dict[str, Value]:
        """Register the dimensions with KerasTuner's hyperparameters, and take their values."""
        values: dict[str, Value] = {}
        for item in self.dimensions:
            name, neutral = item.name, item.neutral
            if item.choices:
                values[name] = hp.Choice(name, list(item.choices), default=neutral)
            elif item.integer:
                values[name] = hp.Int(name, int(item.low), int(item.high), default=neutral)
            else:
                values[name] = hp.Float(name, item.low, item.high, default=neutral)
        return values

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


def base_network(
    input_shape: tuple[int, int, int], classes: int, base: NetworkSpec | None = None
) -> NetworkSpec:
    """Return the network to search around, without auxiliary classifiers.

    Args:
        input_shape: (height, width, channels).
        classes: of the data.
        base: its form; None: `small` up to 64 pixels, `bn` above.
    """
    form = base or (SMALL if min(input_shape[:2]) <= _SMALL_SIZE else BN)
    return replace(form, input_shape=input_shape, classes=classes, aux=())


def _base_from(data: Any) -> NetworkSpec:
    return NetworkSpec.from_json(json.dumps(data))


def _budget_from(data: Any) -> NetworkBound:
    if isinstance(data, dict) and "model" in data:
        model, budget = object_of(LatencyModel), optional(object_of(Budget))
        return from_fields(LatencyBudget, data, model=model, budget=budget)
    return from_fields(Budget, data)


def _log2_ratio(name: str, largest: float) -> Dimension:
    return Dimension(name, 0.0, -largest, largest)
