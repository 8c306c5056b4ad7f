"""The named networks: Table 1, and each variant's deviations from the paper, from the sources."""

from dataclasses import replace

import pytest

from keras_inception.cost.layers import network_cost
from keras_inception.spec.network import (
    BatchNormSpec,
    ConvSpec,
    LRNSpec,
    ModuleSpec,
    NetworkSpec,
    PoolSpec,
)
from keras_inception.spec.variants import (
    BN,
    INCEPTION5H,
    NAIVE,
    PAPER,
    PAPER_FLOOR,
    SLIM,
    TORCHVISION,
    VARIANTS,
    naive_module,
    table_1_module,
    variant_spec,
)

# Table 1 of the paper: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
TABLE_1 = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
LARGE = (
    *("paper", "paper_floor", "bn", "slim", "torchvision", "inception5h", "naive"),
    *("bn_half", "bn_quarter"),
)
SMALL = ("medium", "small", "tiny", "nano")


def _columns(module: ModuleSpec) -> tuple[int | None, ...]:
    first, second = module.spatial
    widths = (first.reduce, first.filters, second.reduce, second.filters)
    return (module.filters_1x1, *widths, module.filters_pool_proj)


def _table(spec: NetworkSpec) -> dict[str, tuple[int | None, ...]]:
    return {module.name: _columns(module) for module in spec.modules}


def _kernel_sizes(spec: NetworkSpec) -> set[tuple[int, ...]]:
    return {tuple(branch.kernel_size for branch in module.spatial) for module in spec.modules}


def _downsamples(spec: NetworkSpec) -> list[tuple[int, int, str]]:
    pools = [stage.downsample for stage in spec.stages if stage.downsample]
    return [(pool.size, pool.stride, pool.padding) for pool in pools]


def _stem(spec: NetworkSpec) -> list[tuple[object, ...]]:
    """Names, and (filters, kernel size, stride, padding) or (size, stride, padding)."""
    rows: list[tuple[object, ...]] = []
    for layer in spec.stem:
        match layer:
            case ConvSpec():
                rows.append(
                    (layer.name, layer.filters, layer.kernel_size, layer.stride, layer.padding)
                )
            case PoolSpec():
                rows.append((layer.name, layer.size, layer.stride, layer.padding))
            case LRNSpec():
                rows.append((layer.name,))
    return rows


def test_every_variant_is_listed_under_its_name() -> None:
    assert set(VARIANTS) == {*LARGE, *SMALL, "nano_96"}
    assert [spec.name for spec in VARIANTS.values()] == list(VARIANTS)


def test_variant_spec_finds_by_name_and_lists_known_names() -> None:
    assert variant_spec("bn") is BN
    with pytest.raises(
        ValueError, match=r"among paper, paper_floor, bn, .*nano_96\. Received: 'inception_v3'"
    ):
        variant_spec("inception_v3")


def test_input_sizes_and_classes() -> None:
    for name in LARGE:
        assert VARIANTS[name].input_shape == (224, 224, 3)
        assert VARIANTS[name].classes == (1008 if name == "inception5h" else 1000)
        assert VARIANTS[name].total_stride == 32
    for name in SMALL:
        assert VARIANTS[name].input_shape == (28, 28, 1)
        assert VARIANTS[name].classes == 10
        assert VARIANTS[name].total_stride == 4


@pytest.mark.parametrize("spec", [PAPER, BN, SLIM, TORCHVISION], ids=lambda spec: spec.name)
def test_table_1_widths(spec: NetworkSpec) -> None:
    assert _table(spec) == TABLE_1
    stages = {stage.name: [module.name for module in stage.modules] for stage in spec.stages}
    assert stages == {
        "3": ["3a", "3b"],
        "4": ["4a", "4b", "4c", "4d", "4e"],
        "5": ["5a", "5b"],
    }
    assert spec.stages[0].downsample is None


def test_ratio_of_3x3_to_5x5_is_not_monotone_in_the_paper() -> None:
    ratios = [
        module.spatial[0].filters / module.spatial[1].filters
        for module in variant_spec("bn").modules
    ]
    assert [round(ratio, 2) for ratio in ratios] == [4, 2, 4.33, 3.5, 4, 4.5, 2.5, 2.5, 3]


def test_paper_is_bvlcs_network() -> None:
    assert _stem(PAPER) == [
        ("conv1", 64, 7, 2, "symmetric"),
        ("pool1", 3, 2, "ceil"),
        ("norm1",),
        ("conv2_reduce", 64, 1, 1, "same"),
        ("conv2", 192, 3, 1, "same"),
        ("norm2",),
        ("pool2", 3, 2, "ceil"),
    ]
    norms = [layer for layer in PAPER.stem if isinstance(layer, LRNSpec)]
    for norm in norms:
        # Caffe's local_size 5, alpha .0001, beta .75, k 1.
        assert norm == LRNSpec(
            name=norm.name, window_size=5, alpha_per_window=1e-4, beta=0.75, bias=1.0
        )
    assert _kernel_sizes(PAPER) == {(3, 5)}
    assert _downsamples(PAPER) == [(3, 2, "ceil"), (3, 2, "ceil")]
    assert PAPER.batch_norm is None
    assert (PAPER.dropout_rate, PAPER.pixels) == (0.4, "caffe")
    assert (PAPER.initializer, PAPER.bias_initial_value) == ("caffe_xavier", 0.2)


@pytest.mark.parametrize("spec", [PAPER, BN, INCEPTION5H], ids=lambda spec: spec.name)
def test_auxiliary_classifiers_of_section_5(spec: NetworkSpec) -> None:
    assert [(aux.name, aux.after) for aux in spec.aux] == [("aux_1", "4a"), ("aux_2", "4d")]
    for aux in spec.aux:
        assert (aux.pool, aux.pool_size, aux.pool_stride) == ("valid", 5, 3)
        assert (aux.filters, aux.units, aux.dropout_rate) == (128, 1024, 0.7)


def test_bn_is_the_paper_with_batch_normalization_and_same_padding() -> None:
    assert _stem(BN) == [
        ("conv1", 64, 7, 2, "same"),
        ("pool1", 3, 2, "same"),
        ("conv2_reduce", 64, 1, 1, "same"),
        ("conv2", 192, 3, 1, "same"),
        ("pool2", 3, 2, "same"),
    ]
    assert _kernel_sizes(BN) == {(3, 5)}
    assert _downsamples(BN) == [(3, 2, "same"), (3, 2, "same")]
    assert BN.batch_norm == BatchNormSpec(scale=True, momentum=0.99, epsilon=1e-3)
    assert (BN.dropout_rate, BN.pixels, BN.initializer) == (0.4, "tf", "he")


def test_slim_deviates_as_tf_slim_does() -> None:
    assert _stem(SLIM) == _stem(BN)  # SAME padding, no LRN
    assert _kernel_sizes(SLIM) == {(3, 3)}
    assert SLIM.modules[0].spatial_names == ("3x3", "3x3_b")
    assert _downsamples(SLIM) == [(3, 2, "same"), (2, 2, "same")]
    assert SLIM.batch_norm == BatchNormSpec(scale=False, momentum=0.9997, epsilon=1e-3)
    assert SLIM.aux == ()
    assert (SLIM.dropout_rate, SLIM.pixels) == (0.2, "tf")


def test_torchvision_deviates_as_torchvision_does() -> None:
    assert _stem(TORCHVISION) == [
        ("conv1", 64, 7, 2, "symmetric"),
        ("pool1", 3, 2, "ceil"),
        ("conv2_reduce", 64, 1, 1, "same"),
        ("conv2", 192, 3, 1, "same"),
        ("pool2", 3, 2, "ceil"),
    ]
    assert _kernel_sizes(TORCHVISION) == {(3, 3)}
    assert _downsamples(TORCHVISION) == [(3, 2, "ceil"), (2, 2, "ceil")]
    assert TORCHVISION.batch_norm == BatchNormSpec(scale=True, momentum=0.9, epsilon=1e-3)
    assert [(aux.pool, aux.pool_size) for aux in TORCHVISION.aux] == [("adaptive", 4)] * 2
    assert [aux.dropout_rate for aux in TORCHVISION.aux] == [0.7, 0.7]
    assert (TORCHVISION.dropout_rate, TORCHVISION.pixels) == (0.2, "tf")


def test_inception5h_deviates_in_two_modules_and_at_both_ends() -> None:
    changed = {"4a": (192, 96, 204, 16, 48, 64), "5a": (256, 160, 320, 48, 128, 128)}
    assert _table(INCEPTION5H) == TABLE_1 | changed
    modules = {module.name: module for module in INCEPTION5H.modules}
    assert modules["4a"].output_filters(480) == 508
    assert _kernel_sizes(INCEPTION5H) == {(3, 5)}
    assert _stem(INCEPTION5H) == [
        ("conv1", 64, 7, 2, "same"),
        ("pool1", 3, 2, "same"),
        ("norm1",),
        ("conv2_reduce", 64, 1, 1, "same"),
        ("conv2", 192, 3, 1, "same"),
        ("norm2",),
        ("pool2", 3, 2, "same"),
    ]
    assert _downsamples(INCEPTION5H) == [(3, 2, "same"), (3, 2, "same")]
    assert INCEPTION5H.batch_norm is None
    assert INCEPTION5H.pixels == "inception5h"


def test_paper_floor_is_the_paper_with_pools_rounded_down() -> None:
    assert _table(PAPER_FLOOR) == TABLE_1
    size = 112  # after conv1
    grids = []
    pools = [layer for layer in PAPER_FLOOR.stem if isinstance(layer, PoolSpec)]
    for pool in pools + [s.downsample for s in PAPER_FLOOR.stages if s.downsample]:
        size = pool.output_size(size)
        grids.append(size)
    assert grids == [55, 27, 13, 6]  # (112 - 3) / 2 + 1 = 55.5, (55 - 3) / 2 + 1 = 27, 13, 6
    assert not PAPER_FLOOR.aux
    assert PAPER_FLOOR.pixels == "caffe"


def test_naive_has_table_1s_output_widths_and_no_reductions() -> None:
    for name, module in zip(TABLE_1, NAIVE.modules, strict=True):
        wide_1x1, _, wide_3x3, _, wide_5x5, _ = TABLE_1[name]
        assert _columns(module) == (wide_1x1, None, wide_3x3, None, wide_5x5, None)
    assert (NAIVE.stem, NAIVE.aux) == (PAPER.stem, ())
    assert _downsamples(NAIVE) == _downsamples(PAPER)


def test_naive_module_and_table_1_module() -> None:
    module = table_1_module(
        "3a",
        filters_1x1=1,
        filters_3x3_reduce=2,
        filters_3x3=3,
        filters_5x5_reduce=4,
        filters_5x5=5,
        filters_pool_proj=6,
    )
    assert _columns(module) == (1, 2, 3, 4, 5, 6)
    assert _columns(naive_module(module)) == (1, None, 3, None, 5, None)
    assert [branch.kernel_size for branch in module.spatial] == [3, 5]


@pytest.mark.parametrize("name", ["bn_half", "bn_quarter"])
def test_bn_half_and_quarter_differ_from_bn_in_widths_only(name: str) -> None:
    spec = VARIANTS[name]
    assert _kernel_sizes(spec) == {(3, 5)}
    same_stem = tuple(
        replace(own, filters=theirs.filters)
        if isinstance(own, ConvSpec) and isinstance(theirs, ConvSpec)
        else own
        for own, theirs in zip(BN.stem, spec.stem, strict=True)
    )
    assert spec.stem == same_stem
    assert replace(spec, name="bn", stem=BN.stem, stages=BN.stages) == BN
    for own, cheaper in zip(BN.modules, spec.modules, strict=True):
        # Never wider; 3a's 5x5 reduction of 16 stays, on a grid of 8.
        pairs = zip(_columns(cheaper), _columns(own), strict=True)
        assert all(narrow <= wide for narrow, wide in pairs if narrow and wide)
        assert sum(filter(None, _columns(cheaper))) < sum(filter(None, _columns(own)))


@pytest.mark.parametrize("name", ["small", "tiny", "nano"])
def test_small_variants_pool_once_before_stage_3(name: str) -> None:
    spec = VARIANTS[name]
    assert _stem(spec) == [
        ("conv1", 32, 3, 1, "same"),
        ("pool1", 3, 2, "same"),
        ("conv2", 32, 3, 1, "same"),
    ]
    assert [module.name for module in spec.modules] == ["3a", "4a", "4b"]
    assert _downsamples(spec) == [(3, 2, "same")]
    assert spec.batch_norm is not None
    assert spec.aux == ()


def test_nano_96_is_nano_with_a_strided_stem() -> None:
    """By hand: 48 x 48 x 27 x 16 + 24 x 24 x 144 x 32 multiply-adds of the stem, in 3a to 4b 4,032,
    9,280 and 14,720 a cell of 24 x 24, 12 x 12 and 12 x 12, and 104 x 10 of the classifier.
    """
    spec, nano = VARIANTS["nano_96"], VARIANTS["nano"]
    assert _stem(spec) == [
        ("conv1", 16, 3, 2, "same"),
        ("pool1", 3, 2, "same"),
        ("conv2", 32, 3, 1, "same"),
    ]
    assert replace(spec, name="nano", stem=nano.stem, input_shape=nano.input_shape) == nano
    assert spec.input_shape == (96, 96, 3)
    total = network_cost(spec).total
    assert total.macs == 995_328 + 2_654_208 + 576 * 4_032 + 144 * (9_280 + 14_720) + 1_040
    assert total.macs == 9_429_008


def test_both_convolutions_of_medium_see_every_pixel() -> None:
    spec, small = VARIANTS["medium"], VARIANTS["small"]
    assert _stem(spec) == [
        ("conv1", 32, 3, 1, "same"),
        ("conv2", 32, 3, 1, "same"),
        ("pool1", 3, 2, "same"),
    ]
    assert [module.name for module in spec.modules] == ["3a", "3b", "4a", "4b"]
    assert replace(spec, name="small", stem=small.stem, stages=small.stages) == small
