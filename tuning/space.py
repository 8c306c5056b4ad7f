"""The search space: a few hyperparameters a stage, each candidate projected onto the budget.

A point moves the widths of a network apart; `fit_to_budget` then brings all of them under the
budget with one common scale and spends what rounding left. So every candidate costs what it may,
and the neutral point, all zeros, is the network itself.

Hyperparameters are octaves (base-2 logarithms of factors, 1 doubles) on a grid of 1/64, which
KerasTuner's float32 messages carry without loss; depth is a number of modules, kernels a text such
as "3,5". Builds nothing.
"""

from __future__ import annotations

import json
import math
import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from keras_inception.cost.budget import Budget, NetworkBound, fit_to_budget
from keras_inception.spec.network import (
    Branch,
    BranchConv,
    BranchSpec,
    ConvSpec,
    ModuleSpec,
    NetworkSpec,
    StageSpec,
)
from keras_inception.spec.validation import json_document, require_keys
from keras_inception.spec.variants import BN, SMALL
from tuning.latency import LatencyBudget, LatencyModel

SCHEMA_VERSION = 1
_SMALL_SIZE = 64
GRID = 1 / 64
# How far each kind of hyperparameter reaches on both sides of neutral, in octaves.
WIDTH_REACH = 1.0
REDUCE_REACH = 1.5
ODDS_REACH = 3.0
POOL_REACH = 1.5
# Modules beyond those of the network that a stage may get.
MORE_MODULES = 1

Value = float | int | str
Values = Mapping[str, Value]


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter: `low` to `high` in octaves, or as integers, or one of `choices`."""

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
        budget: what every candidate costs at most: `Budget` (multiply-adds, parameters or both) or
            `latency.LatencyBudget` (milliseconds).
        step: widths are multiples of it. Networks below some 20 million multiply-adds want 4: at 8
            their reductions have nowhere to go.
        depth: search the number of modules of each stage, from 1 to one more than it has.
        kernels: sets of kernel sizes to search for each stage beside its own, such as
            ("3", "3,5,7").
        stem: search the width of the stem too.
        least_share: below 1, search also the share of the budget, from this one up: for accuracy
            against cost.
    """

    base: NetworkSpec
    budget: NetworkBound
    step: int = 8
    depth: bool = False
    kernels: tuple[str, ...] = ()
    stem: bool = False
    least_share: float = 1.0

    def __post_init__(self) -> None:
        for text in self.kernels:
            _kernel_sizes(text)
        if not 0 < self.least_share <= 1:
            raise ValueError(
                "Expected `least_share` above 0, up to 1. "
                f"Received: least_share={self.least_share!r}"
            )
        for corner in self._costliest_forms():
            self.spec(corner)  # refuses a budget below the smallest network of the form

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The hyperparameters, in the order of the network.

        Widths count relative to the first stage, which therefore has none: the common scale is the
        budget's.
        """
        found: list[Dimension] = []
        if self.least_share < 1:
            low = math.ceil(math.log2(self.least_share) / GRID) * GRID
            found.append(Dimension("budget/share", 0.0, low, 0.0))
        if self.stem:
            found.append(_octaves("stem/width", WIDTH_REACH))
        for index, stage in enumerate(self.base.stages):
            prefix = f"stage_{stage.name}"
            if index:
                found.append(_octaves(f"{prefix}/width", WIDTH_REACH))
            if self.depth:
                count = len(stage.modules)
                found.append(
                    Dimension(f"{prefix}/depth", count, 1, count + MORE_MODULES, integer=True)
                )
            choices = self._kernel_choices(stage)
            if len(choices) > 1:
                found.append(Dimension(f"{prefix}/kernels", choices[0], choices=choices))
            found += self._branch_dimensions(prefix, stage, choices)
        return tuple(found)

    def _costliest_forms(self) -> list[dict[str, Value]]:
        """Points whose smallest networks cost more, or have less to spend, than all others."""
        extreme: dict[str, Value] = {}
        for item in self.dimensions:
            if item.integer:
                extreme[item.name] = int(item.high)
            elif item.name == "budget/share":
                extreme[item.name] = item.low
        sets = [item for item in self.dimensions if item.choices]
        count = max((len(item.choices) for item in sets), default=1)
        return [
            extreme | {item.name: item.choices[index % len(item.choices)] for item in sets}
            for index in range(count)
        ]

    def _branch_dimensions(
        self, prefix: str, stage: StageSpec, choices: tuple[str, ...]
    ) -> list[Dimension]:
        modules = [
            module for text in choices for module in _with_kernels(stage, _kernel_sizes(text))
        ]
        names = list(dict.fromkeys(name for module in modules for name in module.spatial_names))
        widths = {suffix for module in modules for suffix in module.widths()}
        found = [
            _octaves(f"{prefix}/reduce_{name}", REDUCE_REACH)
            for name in names
            if f"{name}_reduce" in widths
        ]
        if any(len(module.spatial) > 1 for module in modules):
            found.append(_octaves(f"{prefix}/odds_{names[0]}", ODDS_REACH))
        if "pool_proj" in widths:
            found.append(_octaves(f"{prefix}/pool_proj", POOL_REACH))
        return found

    def _kernel_choices(self, stage: StageSpec) -> tuple[str, ...]:
        own = ",".join(str(branch.kernel_size) for branch in stage.modules[0].spatial)
        return (own, *(text for text in self.kernels if text != own))

    def spec(self, values: Values) -> NetworkSpec:
        """The network of a point, within the budget.

        Args:
            values: by the names of `dimensions`; those that are not there are neutral, others are
                ignored.

        Raises:
            ValueError: the budget is below the smallest network of this form.
        """
        form = self._form(values)
        share = 2.0 ** float(values.get("budget/share", 0.0))
        return fit_to_budget(
            form,
            self.budget if share == 1 else self.budget.scaled(share),
            step=self.step,
            targets=_targets(form, values, stem=self.stem),
            scale_stem=self.stem,
        )

    def _form(self, values: Values) -> NetworkSpec:
        """The base with the point's modules and kernels, its widths not moved yet."""
        stages = []
        for stage in self.base.stages:
            prefix = f"stage_{stage.name}"
            kernels = values.get(f"{prefix}/kernels", self._kernel_choices(stage)[0])
            modules = _with_kernels(stage, _kernel_sizes(str(kernels)))
            depth = int(values.get(f"{prefix}/depth", len(modules)))
            stages.append(replace(stage, modules=_with_depth(stage.name, modules, depth)))
        kept = {module.name for stage in stages for module in stage.modules}
        heads = tuple(head for head in self.base.aux if head.after in kept)
        return replace(self.base, stages=tuple(stages), aux=heads)

    def random_point(self, draw: random.Random) -> dict[str, Value]:
        """A uniform point."""
        values: dict[str, Value] = {}
        for item in self.dimensions:
            if item.choices:
                values[item.name] = draw.choice(item.choices)
            elif item.integer:
                values[item.name] = draw.randint(int(item.low), int(item.high))
            else:
                values[item.name] = GRID * draw.randint(int(item.low / GRID), int(item.high / GRID))
        return values

    def to_json(self) -> str:
        """JSON text; `from_json` gives an equal space back."""
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        document["base"] = json.loads(self.base.to_json())
        document["budget"] = asdict(self.budget)  # type: ignore[call-overload]
        return json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Space:
        """Read what `to_json` wrote.

        Raises:
            ValueError: not JSON, another schema version, or refused values.
        """
        data = json_document(text, "space", SCHEMA_VERSION)
        require_keys(cls, data)
        return cls(
            **data
            | {
                "base": NetworkSpec.from_json(json.dumps(data["base"])),
                "budget": _budget_from(data["budget"]),
                "kernels": tuple(data["kernels"]),
            }
        )

    def declare(self, hp: Any) -> dict[str, Value]:
        """Register the dimensions with KerasTuner's hyperparameters, and take their values."""
        values: dict[str, Value] = {}
        for item in self.dimensions:
            if item.choices:
                values[item.name] = hp.Choice(item.name, list(item.choices), default=item.neutral)
            elif item.integer:
                values[item.name] = hp.Int(
                    item.name, int(item.low), int(item.high), default=item.neutral
                )
            else:
                values[item.name] = hp.Float(
                    item.name, item.low, item.high, step=GRID, default=item.neutral
                )
        return values


def base_network(
    input_shape: tuple[int, int, int], classes: int, base: NetworkSpec | None = None
) -> NetworkSpec:
    """A network to search around, without auxiliary classifiers.

    Args:
        input_shape: (height, width, channels).
        classes: of the data.
        base: its form; None: `small` up to 64 pixels, `bn` above.
    """
    form = base or (SMALL if min(input_shape[:2]) <= _SMALL_SIZE else BN)
    return replace(form, input_shape=input_shape, classes=classes, aux=())


def _budget_from(data: dict[str, Any]) -> NetworkBound:
    if "model" not in data:
        return Budget(**data)
    budget = data["budget"] and Budget(**data["budget"])
    return LatencyBudget(
        milliseconds=data["milliseconds"], model=LatencyModel(**data["model"]), budget=budget
    )


def _octaves(name: str, reach: float) -> Dimension:
    return Dimension(name, 0.0, -reach, reach)


def _kernel_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(
            f'Expected kernel sizes such as "3,5". Received: kernels={text!r}'
        ) from None


def _with_kernels(stage: StageSpec, sizes: tuple[int, ...]) -> tuple[ModuleSpec, ...]:
    return tuple(_module_with_kernels(module, sizes) for module in stage.modules)


def _module_with_kernels(module: ModuleSpec, sizes: tuple[int, ...]) -> ModuleSpec:
    """As many spatial filters as before, spread over branches of these kernel sizes.

    A branch of a size that the module has keeps its part; one of another size gets that of the
    module's nearest size.
    """
    own = module.spatial
    if sizes == tuple(branch.kernel_size for branch in own):
        return module
    chosen = [min(own, key=lambda branch: abs(branch.kernel_size - size)) for size in sizes]
    factor = sum(branch.filters for branch in own) / sum(branch.filters for branch in chosen)

    def branch(size: int, like: BranchSpec) -> BranchSpec:
        reduce = None if like.reduce is None else max(1, round(like.reduce * factor))
        return BranchSpec(
            kernel_size=size, reduce=reduce, filters=max(1, round(like.filters * factor))
        )

    return replace(module, spatial=tuple(map(branch, sizes, chosen)))


def _with_depth(stage: str, modules: tuple[ModuleSpec, ...], depth: int) -> tuple[ModuleSpec, ...]:
    """The first `depth` modules; beyond the last one, copies of it."""
    more = [
        replace(modules[-1], name=f"{stage}{string.ascii_lowercase[index]}")
        for index in range(len(modules), depth)
    ]
    return (*modules[:depth], *more)


def _targets(form: NetworkSpec, values: Values, *, stem: bool) -> dict[str, float]:
    """The widths that the point wishes, by layer name, before the common scale.

    With the form's own widths n (1x1, each spatial branch, projection) and T = the sum of the
    spatial n, a module wishes for width * n of the 1x1, width * pool_proj * n of the projection,
    and width * T shared among the spatial branches by n, the first one's times its odds. A
    reduction keeps its share of the module's input channels, times its factor.
    """

    def factor(name: str) -> float:
        return 2.0 ** float(values.get(name, 0.0))

    widening = factor("stem/width") if stem else 1.0
    convolutions = [layer for layer in form.stem if isinstance(layer, ConvSpec)]
    targets = {layer.name: layer.filters * widening for layer in convolutions} if stem else {}
    own_inputs = form.stem_filters
    inputs = own_inputs * (widening if convolutions else 1.0)
    for stage in form.stages:
        for module in stage.modules:
            branches = module.branches(own_inputs)
            wished = _output_targets(branches, f"stage_{stage.name}", factor)
            targets |= {conv.name: wished[name] for name, conv in _last(branches).items()}
            for branch in branches:
                for reduce in branch.convolutions[:-1]:
                    widened = factor(f"stage_{stage.name}/reduce_{branch.name}")
                    targets[reduce.name] = reduce.filters * (widened * (inputs / own_inputs))
            unprojected = any(not branch.convolutions for branch in branches)
            own_inputs = module.output_filters(own_inputs)
            inputs = sum(wished.values()) + (inputs if unprojected else 0)
    return targets


def _output_targets(
    branches: Sequence[Branch], prefix: str, factor: Callable[[str], float]
) -> dict[str, float]:
    """The widths wished for the last convolutions of a module's branches, by the branch."""
    width = factor(f"{prefix}/width")
    last = _last(branches)
    spatial = [name for name, conv in last.items() if conv.kernel_size > 1]
    parts = {name: last[name].filters * 1.0 for name in spatial}
    for name in spatial[:1]:
        parts[name] *= factor(f"{prefix}/odds_{name}")
    total = sum(last[name].filters for name in spatial)
    wished = {}
    for name, conv in last.items():
        if name in parts:
            wished[name] = width * (total * parts[name] / sum(parts.values()))
        else:
            pooled = factor(f"{prefix}/pool_proj") if name == "pool" else 1.0
            wished[name] = conv.filters * width * pooled
    return wished


def _last(branches: Sequence[Branch]) -> dict[str, BranchConv]:
    """The last convolution of each branch that has one, by the branch."""
    return {branch.name: branch.convolutions[-1] for branch in branches if branch.convolutions}
