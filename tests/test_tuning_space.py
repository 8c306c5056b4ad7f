"""The search space: the neutral point is the base; no candidate is over budget; slack is small."""

import math
import random
import re
from dataclasses import replace

import pytest
from conftest import tiny_spec

from keras_inception.cost.budget import Budget, module_widths, with_module_widths
from keras_inception.cost.layers import network_cost
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import BN, NAIVE, PAPER, SMALL, VARIANTS
from tuning.space import Space, Value

BN_PLAIN = replace(BN, aux=())
# Widths of the modules alone, and all that can be searched.
PLAIN = {"depth": False, "stem": False}
WIDE = {"kernels": ("3", "3,5,7"), "pools": True}


def used_shares(space: Space, budget: Budget, points: int, seed: int) -> list[float]:
    draw = random.Random(seed)
    networks = [space.spec(space.random_point(draw)) for _ in range(points)]
    return [budget.used(network_cost(network).total) for network in networks]


CASES = {
    "small": (SMALL, Budget(macs=10_000_000), {"width_divisor": 4, **PLAIN}),
    "small, steps of 8": (SMALL, Budget(macs=10_000_000), {}),
    "small, all searched": (SMALL, Budget(macs=5_000_000), {"width_divisor": 4, **WIDE}),
    "small, tight": (SMALL, Budget(macs=3_000_000), {"width_divisor": 2}),
    "small, parameters": (SMALL, Budget(params=80_000), {"width_divisor": 4}),
    "small, both": (SMALL, Budget(macs=6_000_000, params=80_000), {"width_divisor": 4, **WIDE}),
}


@pytest.mark.parametrize("name", CASES)
def test_no_candidate_is_over_budget_and_the_mean_slack_is_under_one_percent(name: str) -> None:
    base, budget, options = CASES[name]
    used = used_shares(Space(base=base, budget=budget, **options), budget, points=100, seed=1)
    assert max(used) <= 1
    assert sum(used) / len(used) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "budget", "options"),
    [
        *CASES.values(),
        (BN_PLAIN, Budget(macs=1_582_671_872), {}),
        (BN_PLAIN, Budget(macs=800_000_000), WIDE),
        (BN_PLAIN, Budget(params=3_000_000), {}),
        (PAPER, Budget(macs=1_200_000_000, params=5_000_000), {"stem": True}),
    ],
)
def test_thousands_of_candidates_within_budget(
    base: NetworkSpec, budget: Budget, options: dict[str, Value]
) -> None:
    used = used_shares(Space(base=base, budget=budget, **options), budget, points=1000, seed=2)
    assert max(used) <= 1
    assert sum(used) / len(used) > 0.99


@pytest.mark.parametrize("options", [PLAIN, {}, WIDE])
@pytest.mark.parametrize("name", ["bn", "paper", "naive", "small", "slim"])
def test_the_neutral_point_at_the_networks_own_cost_is_the_network(
    name: str, options: dict[str, Value]
) -> None:
    spec = VARIANTS[name]
    budget = Budget(macs=network_cost(spec).total.macs)
    space = Space(base=spec, budget=budget, **options)
    neutral = {item.name: item.neutral for item in space.dimensions}
    assert space.spec(neutral) == spec
    assert space.spec({}) == spec


def test_the_dimensions_of_the_paper_by_name() -> None:
    """Three stages of six hyperparameters; the width of the first stage is the common scale."""
    space = Space(base=PAPER, budget=Budget(macs=1_582_671_872), **PLAIN)
    ratios = ("width_ratio", "reduce_3x3_ratio", "reduce_5x5_ratio", "odds_3x3_ratio")
    kinds = (*ratios, "share_1x1", "share_pool")
    expected = [f"stage_{stage}/{kind}" for stage in "345" for kind in kinds]
    expected.remove("stage_3/width_ratio")
    assert [item.name for item in space.dimensions] == expected
    for item in space.dimensions:
        assert item.neutral == 1
        assert item.low == (0 if "share" in item.name else 1 / item.high)


def test_naive_modules_have_no_reductions_and_no_projection_to_search() -> None:
    space = Space(base=NAIVE, budget=Budget(macs=12_568_061_056), **PLAIN)
    assert [item.name for item in space.dimensions] == [
        "stage_3/odds_3x3_ratio",
        "stage_3/share_1x1",
        "stage_4/width_ratio",
        "stage_4/odds_3x3_ratio",
        "stage_4/share_1x1",
        "stage_5/width_ratio",
        "stage_5/odds_3x3_ratio",
        "stage_5/share_1x1",
    ]


def shares(spec: NetworkSpec, module: str) -> dict[str, float]:
    """A module's widths as shares of its 1x1 branch."""
    widths = module_widths(spec)
    return {
        name.removeprefix(f"{module}_"): width / widths[f"{module}_1x1"]
        for name, width in widths.items()
        if name.startswith(module)
    }


def wide_space() -> Space:
    """`bn` with widths in steps of 1 and a hundred times its budget, so rounding is negligible."""
    return Space(base=BN_PLAIN, budget=Budget(macs=158_267_187_200), width_divisor=1, **PLAIN)


def test_odds_move_spatial_filters_between_the_kernels() -> None:
    """4a has 208 and 48 filters; doubled odds split the 256 by 416 : 48 into 229.5 and 26.5."""
    moved = shares(wide_space().spec({"stage_4/odds_3x3_ratio": 2.0}), "4a")
    assert moved["3x3"] / moved["5x5"] == pytest.approx(416 / 48, rel=0.01)
    assert moved["3x3"] + moved["5x5"] == pytest.approx(256 / 192, rel=0.01)
    assert moved["pool_proj"] == pytest.approx(64 / 192, rel=0.01)


def test_reductions_count_relative_to_the_input_channels() -> None:
    """With stage 4 twice as wide, 4b and 5a read and reduce to twice as many channels."""
    plain = module_widths(wide_space().spec({}))
    wider = module_widths(wide_space().spec({"stage_4/width_ratio": 2.0}))
    ratio = wider["3a_1x1"] / plain["3a_1x1"]
    assert wider["4a_1x1"] / plain["4a_1x1"] == pytest.approx(2 * ratio, rel=0.01)
    assert wider["4a_3x3_reduce"] / plain["4a_3x3_reduce"] == pytest.approx(ratio, rel=0.01)
    assert wider["4b_3x3_reduce"] / plain["4b_3x3_reduce"] == pytest.approx(2 * ratio, rel=0.01)
    assert wider["5a_5x5_reduce"] / plain["5a_5x5_reduce"] == pytest.approx(2 * ratio, rel=0.02)
    assert wider["5b_5x5_reduce"] / plain["5b_5x5_reduce"] == pytest.approx(ratio, rel=0.02)


def test_reduce_and_projection_factors() -> None:
    values = {"stage_5/reduce_5x5_ratio": 0.5, "stage_5/share_pool": math.sqrt(2)}
    moved = shares(wide_space().spec(values), "5a")
    assert moved["5x5_reduce"] == pytest.approx(16 / 256, rel=0.02)
    assert moved["pool_proj"] == pytest.approx(128 * math.sqrt(2) / 256, rel=0.01)
    assert moved["3x3_reduce"] == pytest.approx(160 / 256, rel=0.01)


def test_points_of_earlier_versions_give_the_same_networks() -> None:
    """Versions 1 and 2 had base-2 logarithms under other names."""
    old = {"stage_4/width": 1.0, "stage_4/odds_3x3": -1.0, "stage_5/reduce_5x5": 0.5}
    old |= {"stage_3/pool_proj": -2.0, "stem/width": 1.0, "stage_3/depth": 1}
    new = {"stage_4/width_ratio": 2.0, "stage_4/odds_3x3_ratio": 0.5}
    new |= {"stage_5/reduce_5x5_ratio": math.sqrt(2), "stage_3/share_pool": 0.25}
    new |= {"stem/width_ratio": 2.0, "stage_3/depth": 1}
    space = Space(base=SMALL, budget=Budget(macs=8_000_000), width_divisor=2, min_budget_share=0.5)
    assert space.spec(old) == space.spec(new) != space.spec({})
    assert space.spec({"budget/share": -1.0}) == space.spec({"budget/fraction": 0.5})


def test_a_share_of_zero_removes_the_branch() -> None:
    """4a outputs 192 + 208 + 48 + 64 = 512 channels, of which 4b reduces to 112: without the 1x1
    and with half of the projection it has 288 and reduces to 63, beside 224 filters of 3x3."""
    values = {"stage_4/share_1x1": 0.0, "stage_4/share_pool": 0.5}
    spec = wide_space().spec(values)
    widths = module_widths(spec)
    assert "4a_1x1" not in widths
    assert "3a_1x1" in widths
    assert widths["4a_pool_proj"] / widths["4a_3x3"] == pytest.approx(32 / 208, rel=0.01)
    assert widths["4b_3x3_reduce"] / widths["4b_3x3"] == pytest.approx(63 / 224, rel=0.01)
    pooled = wide_space().spec({"stage_5/share_pool": 0.0})
    assert [module.filters_pool_proj == 0 for module in pooled.modules[-3:]] == [False, True, True]


def test_the_stems_pools_move_behind_other_convolutions() -> None:
    space = Space(base=SMALL, budget=Budget(macs=8_000_000), width_divisor=4, pools=True)
    assert next(item for item in space.dimensions if item.choices).choices == ("conv1", "conv2")
    moved = space.spec({"stem/pool1_after": "conv2"})
    assert [layer.name for layer in moved.stem] == ["conv1", "conv2", "pool1"]
    assert network_cost(moved).total.macs <= 8_000_000
    paper = Space(base=PAPER, budget=Budget(macs=1_582_671_872), pools=True)
    stem = paper.spec({"stem/pool1_after": "conv2", "stem/pool2_after": "conv1"}).stem
    assert [layer.name for layer in stem] == [
        *("conv1", "pool2", "norm1", "conv2_reduce", "conv2", "pool1", "norm2")
    ]


def test_depth_removes_modules_from_the_end_and_repeats_the_last() -> None:
    space = Space(base=BN, budget=Budget(macs=1_582_671_872), stem=False)
    assert [item.high for item in space.dimensions if item.integer] == [3, 6, 3]
    spec = space.spec({"stage_3/depth": 3, "stage_4/depth": 3})
    names = [module.name for module in spec.modules]
    assert names == ["3a", "3b", "3c", "4a", "4b", "4c", "5a", "5b"]
    assert replace(spec.modules[2], name="3b") == spec.modules[1]
    assert [head.after for head in spec.aux] == [
        "4a"
    ]  # the auxiliary classifier on 4d is removed with it


def test_kernels_keep_the_number_of_spatial_filters() -> None:
    """4a has 208 of 3x3 and 48 of 5x5: "3" gives 256 of 3x3; "3,5,7" gives 7x7 as many as 5x5."""
    space = replace(wide_space(), kernels=("3", "3,5,7"))
    only = shares(space.spec({"stage_4/kernels": "3"}), "4a")
    assert set(only) == {"1x1", "3x3_reduce", "3x3", "pool_proj"}
    assert only["3x3"] == pytest.approx(256 / 192, rel=0.01)
    three = shares(space.spec({"stage_4/kernels": "3,5,7"}), "4a")
    assert three["7x7"] == pytest.approx(three["5x5"], rel=0.03)
    assert three["3x3"] + three["5x5"] + three["7x7"] == pytest.approx(256 / 192, rel=0.01)
    assert three["3x3"] / three["5x5"] == pytest.approx(208 / 48, rel=0.03)


def test_a_share_of_the_budget() -> None:
    space = Space(
        base=SMALL, budget=Budget(macs=16_000_000), width_divisor=4, min_budget_share=0.25
    )
    assert space.dimensions[0].low == 0.25
    half = network_cost(space.spec({"budget/fraction": 0.5})).total.macs
    assert 7_900_000 < half <= 8_000_000


def test_an_impossible_budget_names_the_smallest_networks_cost() -> None:
    smallest = network_cost(_all_widths(SMALL, 8)).total
    with pytest.raises(ValueError, match=re.escape(f"{smallest.macs:,} MACs")):
        Space(base=SMALL, budget=Budget(macs=1_000_000), **PLAIN)
    with pytest.raises(ValueError, match="Raise the budget"):  # the deepest network decides
        Space(base=SMALL, budget=Budget(macs=smallest.macs), stem=False)
    Space(base=SMALL, budget=Budget(macs=smallest.macs), **PLAIN)


def _all_widths(spec: NetworkSpec, width: int) -> NetworkSpec:
    return with_module_widths(spec, dict.fromkeys(module_widths(spec), width))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": ("3;5",)}, "Received: kernels='3;5'"),
        ({"min_budget_share": 0.0}, "Received: min_budget_share=0.0"),
        ({"min_budget_share": 1.5}, "Received: min_budget_share=1.5"),
    ],
)
def test_refused_spaces(options: dict[str, Value], message: str) -> None:
    spec = tiny_spec()
    budget = Budget(macs=100 * network_cost(spec).total.macs)
    with pytest.raises(ValueError, match=re.escape(message)):
        Space(base=spec, budget=budget, **options)
