"""The base of a space: room to move both ways, and how much of it random points find."""

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.spec.module import BranchSpec, ModuleSpec
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import BN, SMALL
from tuning.base import Coverage, base_network, base_with_room, coverage
from tuning.space import Space

TABLE_28 = replace(SMALL, name="table_28", stages=BN.stages)


def widths_in_json(spec: NetworkSpec) -> list[int]:
    """Every number of filters in the document, counted without the package's own walks."""
    found: list[int] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key in ("filters", "filters_1x1", "filters_pool_proj", "reduce") and item:
                    found.append(item)
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(json.loads(spec.to_json())["stem"])
    walk(json.loads(spec.to_json())["stages"])
    return found


@pytest.mark.parametrize("given", [None, 2])
@pytest.mark.parametrize("macs", [1_500_000, 3_000_000, 8_000_000])
@pytest.mark.parametrize("form", [SMALL, TABLE_28])
def test_a_base_within_a_small_budget_is_four_divisors_wide(
    form: NetworkSpec, macs: int, given: int | None
) -> None:
    budget = Budget(macs=macs)
    base, divisor = base_with_room(form, budget, given)
    assert given in (None, divisor)
    widths = widths_in_json(base)
    assert min(widths) >= 4 * divisor
    assert all(width % divisor == 0 for width in widths)
    assert network_cost(base).total.macs <= macs
    neutral = Space(base=base, budget=budget, width_divisor=divisor).spec({})
    assert min(widths_in_json(neutral)) >= 4 * divisor
    assert network_cost(neutral).total.macs <= macs


@pytest.mark.parametrize("spec", [SMALL, replace(BN, aux=())])
def test_a_network_that_has_room_at_its_own_cost_is_left_as_it_is(spec: NetworkSpec) -> None:
    """Both have widths of 16, four times the divisor of 4."""
    assert min(widths_in_json(spec)) == 16
    assert base_with_room(spec, Budget(macs=network_cost(spec).total.macs)) == (spec, 4)


def test_a_base_has_fewer_modules_where_all_have_no_room() -> None:
    """With widths of 64, the 5x5 convolutions of 3a and of 3b cost 20 million each, and the whole
    of nine modules over 120 million, at 28 x 28."""
    base, divisor = base_with_room(TABLE_28, Budget(macs=110_000_000), 16)
    assert divisor == 16
    assert min(widths_in_json(base)) >= 64
    assert 3 <= len(base.modules) < 9


@pytest.mark.parametrize(
    ("shape", "macs", "kernels"),
    [
        ((28, 28, 1), 300_000, {3, 5}),
        ((28, 28, 1), 200_000, {3}),
        ((64, 64, 3), 1_000_000, {3}),
    ],
)
def test_a_base_has_fewer_kernels_where_one_module_a_stage_has_no_room(
    shape: tuple[int, int, int], macs: int, kernels: set[int]
) -> None:
    """At 64 x 64 x 3 with 4 filters, conv1 costs 442,368 and conv2 on the half grid 147,456."""
    base, divisor = base_with_room(base_network(shape, 10), Budget(macs=macs))
    assert min(widths_in_json(base)) >= 4 * divisor
    assert network_cost(base).total.macs <= macs
    assert {branch.kernel_size for m in base.modules for branch in m.spatial} == kernels


def test_a_module_keeps_its_last_kernel() -> None:
    only = ModuleSpec(
        name="3a",
        filters_1x1=0,
        spatial=(BranchSpec(kernel_size=5, reduce=None, filters=16),),
        filters_pool_proj=0,
    )
    stages = (replace(SMALL.stages[0], modules=(only,)), *SMALL.stages[1:])
    base, _ = base_with_room(replace(SMALL, stages=stages), Budget(macs=250_000))
    assert [branch.kernel_size for branch in base.modules[0].spatial] == [5]


def test_a_budget_without_room_gives_the_form_itself() -> None:
    """Widths of 16 with a divisor of 16: no multiple of 4 divisors, 64, is within 6 million."""
    base, divisor = base_with_room(SMALL, Budget(macs=6_000_000), 16)
    assert divisor == 16
    assert [module.name for module in base.modules] == ["3a", "4a", "4b"]
    with pytest.raises(ValueError, match="Expected a budget of at least"):
        base_with_room(SMALL, Budget(macs=1_000), None)


def test_the_form_by_the_size_of_the_images() -> None:
    small = base_network((64, 80, 3), 5)
    assert [module.name for module in small.modules] == ["3a", "4a", "4b", "5a"]
    assert [stage.name for stage in small.stages] == ["3", "4", "5"]
    large = base_network((65, 80, 3), 5)
    assert (large.name, large.classes, large.aux) == ("bn", 5, ())


def counted_by_hand(space: Space, points: int, seed: int) -> tuple[int, int]:
    draw = random.Random(seed)
    specs = [space.spec(space.random_point(draw)) for _ in range(points)]
    distinct = []
    for spec in specs:
        if spec not in distinct:
            distinct.append(spec)
    return sum(space.width_divisor in widths_in_json(spec) for spec in specs), len(distinct)


def test_floors_and_distinct_networks_against_a_count_of_the_documents() -> None:
    crowded = Space(base=SMALL, budget=Budget(macs=1_500_000), width_divisor=8, depth=False)
    base, divisor = base_with_room(SMALL, Budget(macs=8_000_000))
    roomy = Space(base=base, budget=Budget(macs=8_000_000), width_divisor=divisor)
    shares = []
    for space in (crowded, roomy):
        found = coverage(space, points=40, seed=3)
        assert (found.on_floor, found.distinct) == counted_by_hand(space, 40, 3)
        assert max(found.floors.values(), default=0) <= found.on_floor <= 40
        shares.append(found.on_floor)
    assert shares[0] == 40
    assert shares[1] < 30


def test_what_the_count_says() -> None:
    found = Coverage(points=1000, on_floor=512, distinct=998, floors={"conv1": 500, "3a_3x3": 2})
    assert str(found) == (
        "1,000 random points: 512 with a width at its floor (conv1 in 500, 3a_3x3 in 2), "
        "998 distinct networks."
    )
