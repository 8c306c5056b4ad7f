"""The network at the centre of a search space, with room to move both ways, and how much there is.

A space around a network whose widths lie near their floor, the width divisor, has many points that
are the same network: most moves change nothing. `base_with_room` builds a base whose narrowest
width is four times the divisor; `coverage` counts what random points give.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from keras_inception.cost.budget import NetworkBound, fit_to_budget, module_widths
from keras_inception.cost.layers import network_cost
from keras_inception.spec.module import ModuleSpec
from keras_inception.spec.network import ConvSpec, NetworkSpec, PoolSpec, StageSpec
from keras_inception.spec.tables import table_1_module
from keras_inception.spec.variants import BN, SMALL
from keras_inception.wording import counted
from tuning.space import Space

# `small` with a third stage, which the best networks for 28 x 28 images have
# (docs/results-search.md).
_SMALL_FORM = replace(
    SMALL,
    name="small_3_stages",
    stages=(
        *SMALL.stages,
        StageSpec(
            name="5",
            downsample=PoolSpec(name="pool3"),
            modules=(
                table_1_module(
                    "5a",
                    filters_1x1=160,
                    filters_3x3_reduce=96,
                    filters_3x3=192,
                    filters_5x5_reduce=24,
                    filters_5x5=80,
                    filters_pool_proj=80,
                ),
            ),
        ),
    ),
)
# The narrowest width of a base, in width divisors: it can be halved twice.
ROOM = 4
# Divisors that are tried, those that runtimes like first; below this many multiply-adds not 8.
DIVISORS = (8, 4, 2, 1)
_NARROW_MACS = 20_000_000
_SMALL_SIZE = 64
POINTS = 1000


def base_network(
    input_shape: tuple[int, int, int], classes: int, base: NetworkSpec | None = None
) -> NetworkSpec:
    """A network to search around, without auxiliary classifiers.

    Args:
        input_shape: (height, width, channels).
        classes: of the data.
        base: its form; None: `small` with a third stage up to 64 pixels, `bn` above.
    """
    form = base or (_SMALL_FORM if min(input_shape[:2]) <= _SMALL_SIZE else BN)
    return replace(form, input_shape=input_shape, classes=classes, aux=())


def usual_divisor(spec: NetworkSpec) -> int:
    """The width divisor of a network that is not to be changed: 4 if it is cheap, otherwise 8."""
    return 4 if network_cost(spec).total.macs < _NARROW_MACS else 8


def base_with_room(
    form: NetworkSpec, budget: NetworkBound, width_divisor: int | None = None
) -> tuple[NetworkSpec, int]:
    """A base of a form within a budget, and its width divisor.

    The form itself, fitted, if its narrowest width is `ROOM` divisors with a divisor of 4 or more.
    Otherwise the form with its narrow widths raised to that, with fewer modules if need be, by the
    largest divisor that allows it; then so without the largest kernels of its modules. Where even
    the stem has no room, the form itself.

    Args:
        form: the widths of its layers relative to each other, and most modules.
        budget: of the space.
        width_divisor: None: the largest of 8, 4, 2 and 1 that leaves room.

    Raises:
        ValueError: the budget is below the smallest network of the form.
    """
    for divisor in [width_divisor] if width_divisor else DIVISORS[:2]:
        fitted = _fitted(form, budget, divisor, divisor)
        if fitted is not None and narrowest(fitted) >= ROOM * divisor:
            return fitted, divisor
    for simpler in _with_fewer_kernels(form):
        for divisor in [width_divisor] if width_divisor else DIVISORS:
            for smaller in _with_fewer_modules(simpler):
                built = _fitted(smaller, budget, divisor, ROOM * divisor)
                if built is not None:
                    return built, divisor
    divisor = width_divisor or DIVISORS[-1]
    return fit_to_budget(form, budget, width_divisor=divisor, scale_stem=True), divisor


def _fitted(
    form: NetworkSpec, budget: NetworkBound, divisor: int, min_width: int
) -> NetworkSpec | None:
    """The form within the budget, and still so with a module more in each stage; None: too dear."""
    try:
        fitted = fit_to_budget(
            form, budget, width_divisor=divisor, min_width=min_width, scale_stem=True
        )
        Space(base=fitted, budget=budget, width_divisor=divisor)
    except ValueError:
        return None
    return fitted


def _with_fewer_modules(form: NetworkSpec) -> Iterator[NetworkSpec]:
    """The form, and then with one module less in its deepest stage, to one module a stage."""
    yield form
    while max(len(stage.modules) for stage in form.stages) > 1:
        deepest = max(form.stages, key=lambda stage: len(stage.modules))
        stages = tuple(
            replace(stage, modules=stage.modules[:-1]) if stage is deepest else stage
            for stage in form.stages
        )
        form = replace(form, stages=stages)
        yield form


def _with_fewer_kernels(form: NetworkSpec) -> Iterator[NetworkSpec]:
    """The form, and then without its largest kernel size, down to one."""
    yield form
    sizes = {branch.kernel_size for module in form.modules for branch in module.spatial}
    for largest in sorted(sizes)[:0:-1]:
        form = form.map_modules(
            {module.name: _without_kernels(module, largest) for module in form.modules}
        )
        yield form


def _without_kernels(module: ModuleSpec, size: int) -> ModuleSpec:
    """The module without its branches of this kernel size and of larger ones, if others remain."""
    spatial = tuple(branch for branch in module.spatial if branch.kernel_size < size)
    return replace(module, spatial=spatial or module.spatial)


def narrowest(spec: NetworkSpec) -> int:
    """The smallest width of a network's convolutions."""
    return min(_widths(spec, stem=True).values())


def _widths(spec: NetworkSpec, *, stem: bool) -> dict[str, int]:
    widths = module_widths(spec)
    if stem:
        widths |= {layer.name: layer.filters for layer in spec.stem if isinstance(layer, ConvSpec)}
    return widths


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What random points of a space give.

    Attributes:
        points: how many were drawn.
        on_floor: those with a width at its floor, the divisor, where narrowing changes nothing.
        distinct: how many different networks they are.
        floors: how many points have each width at its floor, most first; those of none are left
            out.
    """

    points: int
    on_floor: int
    distinct: int
    floors: dict[str, int]

    def __str__(self) -> str:
        often = ", ".join(f"{name} in {count:,}" for name, count in list(self.floors.items())[:2])
        return (
            f"{counted(self.points, 'random point')}: {self.on_floor:,} with a width at its floor"
            f"{f' ({often})' if often else ''}, {counted(self.distinct, 'distinct network')}."
        )


def coverage(space: Space, *, points: int | None = None, seed: int = 0) -> Coverage:
    """Count floors and distinct networks of random points.

    Args:
        space: to draw from.
        points: how many to draw; None: 1,000.
        seed: of the points.
    """
    draw = random.Random(seed)
    points = points or POINTS
    floors: Counter[str] = Counter()
    on_floor, networks = 0, set()
    for _ in range(points):
        spec = space.spec(space.random_point(draw))
        networks.add(spec)
        widths = _widths(spec, stem=space.stem)
        low = [name for name, width in widths.items() if width == space.width_divisor]
        floors.update(low)
        on_floor += bool(low)
    return Coverage(
        points=points,
        on_floor=on_floor,
        distinct=len(networks),
        floors=dict(floors.most_common()),
    )
