"""Costs against published integers, a network counted by hand, and built Keras models."""

from dataclasses import replace
from functools import cache

import keras
import pytest

from keras_inception.cost.growth import growth_by_depth, growth_by_width
from keras_inception.cost.keras_model import model_cost
from keras_inception.cost.layers import Cost, network_cost
from keras_inception.cost.table_1 import PRINTED_SUM, table_1
from keras_inception.network.build import build_network, inference_model
from keras_inception.spec.network import (
    AuxSpec,
    BatchNormSpec,
    BranchSpec,
    ConvSpec,
    LRNSpec,
    ModuleSpec,
    NetworkSpec,
    PoolSpec,
    StageSpec,
)
from keras_inception.spec.variants import BN, INCEPTION5H, NAIVE, PAPER, SLIM, TORCHVISION, VARIANTS

# --- Golden integers: published counts, and arithmetic checked twice (224 x 224, 1000 classes) ---


@pytest.mark.parametrize(
    ("spec", "params", "macs"),
    [
        (PAPER, 6_998_552, 1_582_671_872),
        (BN, 7_005_832, 1_582_671_872),
        (TORCHVISION, 6_624_904, 1_498_376_192),  # torchvision publishes both
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_golden_totals(spec: NetworkSpec, params: int, macs: int) -> None:
    total = network_cost(spec).total
    assert (total.params, total.macs) == (params, macs)


def test_golden_auxiliary_heads() -> None:
    cost = network_cost(PAPER, auxiliary=True)
    assert cost.total.params == 13_378_280
    assert cost.by_stage()["aux"].params == 6_379_728
    # Published for torchvision's GoogLeNet with aux_logits=True.
    assert network_cost(TORCHVISION, auxiliary=True).total.params == 13_004_888


def test_golden_slim_base() -> None:
    base = network_cost(SLIM, include_top=False).total
    # Slim's own test counts every variable: beta, moving mean and moving variance.
    assert base.params + base.non_trainable == 5_607_184
    assert base.macs == 1_497_352_192
    true_5x5 = replace(SLIM, stages=BN.stages)
    base = network_cost(true_5x5, include_top=False).total
    assert base.params + base.non_trainable == 5_988_112


def test_golden_naive_modules() -> None:
    modules = {module.name for module in NAIVE.modules}
    by_module = network_cost(NAIVE).by_module()
    assert sum(by_module[name].macs for name in modules) == 12_085_441_536


def test_golden_inception5h() -> None:
    # From the paper's 6,998,552: 4a's 3x3 loses 4 of 208 filters (96 * 9 weights and a bias
    # each); the 1x1 branch, the two reductions and the projection of 4b (160 + 112 + 24 + 64)
    # see 4 channels fewer; 5a's 5x5 reduction gains 16 of 832 channels each, with biases, and
    # its 5x5 sees them (128 * 25); the classifier gains 8 classes.
    change = -4 * (96 * 9 + 1) - 4 * 360 + 16 * (832 + 1) + 16 * 128 * 25 + 8 * (1024 + 1)
    assert change == 67_828
    assert network_cost(INCEPTION5H).total.params == 6_998_552 + 67_828


# --- Table 1 ---

# Row: (printed parameters, printed operations, true weights in K = 1024, true MACs in M).
PRINTED_AND_TRUE = {
    "conv1": ("2.7K", "34M", 9.2, 118.0),
    "conv2": ("112K", "360M", 112.0, 359.7),
    "3a": ("159K", "128M", 159.5, 128.0),
    "3b": ("380K", "304M", 379.0, 304.3),
    "4a": ("364K", "73M", 366.8, 73.6),
    "4b": ("437K", "88M", 438.0, 87.9),
    "4c": ("463K", "100M", 497.5, 99.9),
    "4d": ("580K", "119M", 590.5, 118.5),
    "4e": ("840K", "170M", 847.0, 170.0),
    "5a": ("1072K", "54M", 1018, 51.1),
    "5b": ("1388K", "71M", 1409, 70.7),
    "linear": ("1000K", "1M", 1000, 1.0),
}


def test_table_1_and_its_printed_numbers() -> None:
    rows = {row.type: row for row in table_1()}
    assert list(rows) == list(PRINTED_AND_TRUE)
    for name, (params, ops, kilo_weights, mega_macs) in PRINTED_AND_TRUE.items():
        row = rows[name]
        assert (row.printed_params, row.printed_ops) == (params, ops)
        digits = 1 if isinstance(kilo_weights, float) else 0
        assert round(row.weights / 1024, digits) == kilo_weights
        assert round(row.macs / 1e6, 1) == mega_macs


def test_table_1_sums() -> None:
    rows = table_1()
    assert sum(row.weights for row in rows) == 6_990_272
    assert sum(row.macs for row in rows) == 1_582_671_872
    # 2.7 + 112 + ... + 1000 = 6797.7 and 34 + 360 + ... + 1 = 1502.
    printed_params = sum(float(row.printed_params.rstrip("K")) for row in rows)
    printed_ops = sum(int(row.printed_ops.rstrip("M")) for row in rows)
    assert PRINTED_SUM == (f"{printed_params:.0f}K", f"{printed_ops}M") == ("6798K", "1502M")


def test_other_networks_have_no_printed_numbers() -> None:
    assert all(row.printed_params for row in table_1(VARIANTS["naive"]))
    others = (VARIANTS["small"], replace(VARIANTS["paper"], input_shape=(192, 192, 3)))
    assert not any(row.printed_params or row.printed_ops for s in others for row in table_1(s))


def test_table_1_grids_and_filters() -> None:
    rows = {row.type: row for row in table_1()}
    assert {name: row.output_shape for name, row in rows.items()} == {
        "conv1": (112, 112, 64),
        "conv2": (56, 56, 192),
        "3a": (28, 28, 256),
        "3b": (28, 28, 480),
        "4a": (14, 14, 512),
        "4b": (14, 14, 512),
        "4c": (14, 14, 512),
        "4d": (14, 14, 528),
        "4e": (14, 14, 832),
        "5a": (7, 7, 832),
        "5b": (7, 7, 1024),
        "linear": (1000,),
    }
    assert rows["conv2"].filters == {"3x3 reduce": 64}
    assert rows["4d"].filters == {
        "1x1": 112,
        "3x3 reduce": 144,
        "3x3": 288,
        "5x5 reduce": 32,
        "5x5": 64,
        "pool proj": 64,
    }


def test_table_1_of_another_stem_includes_every_convolution() -> None:
    layers = [
        ConvSpec(name=name, filters=2, kernel_size=1)
        for name in ("a", "b_reduce", "c_reduce", "c", "d_reduce")
    ]
    spec = replace(PAPER, stem=tuple(layers), input_shape=(32, 32, 3))
    rows = table_1(spec)
    assert [row.type for row in rows[:4]] == ["a", "b_reduce", "c", "d_reduce"]
    assert sum(row.macs for row in rows) == network_cost(spec).total.macs
    assert rows[2].weights == 2 * 2 + 2 * 2  # c and its own reduction


# --- A network counted by hand ---

HAND = NetworkSpec(
    name="hand",
    input_shape=(6, 6, 2),
    stem=(
        ConvSpec(name="conv1", filters=4, kernel_size=3),
        PoolSpec(name="pool1", padding="ceil"),
        LRNSpec(name="norm1"),
    ),
    stages=(
        StageSpec(
            name="3",
            downsample=None,
            modules=(
                ModuleSpec(
                    name="3a",
                    filters_1x1=2,
                    spatial=(
                        BranchSpec(kernel_size=3, reduce=3, filters=5),
                        BranchSpec(kernel_size=5, reduce=None, filters=1),
                    ),
                    filters_pool_proj=2,
                ),
            ),
        ),
        StageSpec(
            name="4",
            downsample=PoolSpec(name="pool2", size=2),
            modules=(
                ModuleSpec(
                    name="4a",
                    filters_1x1=1,
                    spatial=(BranchSpec(kernel_size=3, reduce=None, filters=2),),
                    filters_pool_proj=None,
                ),
            ),
        ),
    ),
    aux=(AuxSpec(name="aux_1", after="3a", pool_size=3, pool_stride=1, filters=2, units=3),),
    classes=4,
)
# name: (output shape, weights, parameters, MACs, activations)
BY_HAND = {
    "conv1": ((6, 6, 4), 9 * 2 * 4, 72 + 4, 72 * 36, 144),
    "pool1": ((3, 3, 4), 0, 0, 0, 36),  # windows at 0, 2 and (truncated) 4
    "norm1": ((3, 3, 4), 0, 0, 0, 36),
    "3a_1x1": ((3, 3, 2), 4 * 2, 8 + 2, 8 * 9, 18),
    "3a_3x3_reduce": ((3, 3, 3), 4 * 3, 12 + 3, 12 * 9, 27),
    "3a_3x3": ((3, 3, 5), 9 * 3 * 5, 135 + 5, 135 * 9, 45),
    "3a_5x5": ((3, 3, 1), 25 * 4 * 1, 100 + 1, 100 * 9, 9),
    "3a_pool": ((3, 3, 4), 0, 0, 0, 36),
    "3a_pool_proj": ((3, 3, 2), 4 * 2, 8 + 2, 8 * 9, 18),
    "3a": ((3, 3, 10), 0, 0, 0, 90),  # 2 + 5 + 1 + 2 channels
    "aux_1_pool": ((1, 1, 10), 0, 0, 0, 10),
    "aux_1_proj": ((1, 1, 2), 10 * 2, 20 + 2, 20, 2),
    "aux_1_dense": ((3,), 2 * 3, 6 + 3, 6, 3),
    "aux_1": ((4,), 3 * 4, 12 + 4, 12, 4),
    "pool2": ((2, 2, 10), 0, 0, 0, 40),
    "4a_1x1": ((2, 2, 1), 10 * 1, 10 + 1, 10 * 4, 4),
    "4a_3x3": ((2, 2, 2), 9 * 10 * 2, 180 + 2, 180 * 4, 8),
    "4a_pool": ((2, 2, 10), 0, 0, 0, 40),
    "4a": ((2, 2, 13), 0, 0, 0, 52),  # 1 + 2 + all 10 of the input
    "avg_pool": ((13,), 0, 0, 0, 13),
    "predictions": ((4,), 13 * 4, 52 + 4, 52, 4),
}


def test_layers_of_the_network_counted_by_hand() -> None:
    counted = {
        layer.name: (
            layer.output_shape,
            layer.weights,
            layer.params,
            layer.macs,
            layer.activations,
        )
        for layer in network_cost(HAND, auxiliary=True).layers
    }
    assert counted == BY_HAND
    assert list(counted) == list(BY_HAND)


def test_sums_of_the_network_counted_by_hand() -> None:
    cost = network_cost(HAND)
    assert cost.total == Cost(weights=577, params=601, non_trainable=0, macs=5771, activations=620)
    assert cost.total.activation_bytes() == 2480
    assert cost.total.activation_bytes(2) == 1240
    macs = {group: part.macs for group, part in cost.by_module().items()}
    assert macs == {
        "stem": 2592,
        "3a": 72 + 108 + 1215 + 900 + 72,
        "pool2": 0,
        "4a": 40 + 720,
        "head": 52,
    }
    activations = {stage: part.activations for stage, part in cost.by_stage().items()}
    assert activations == {"stem": 216, "3": 243, "4": 144, "head": 17}
    assert network_cost(HAND, include_top=False).total.macs == 5771 - 52
    with_heads = network_cost(HAND, auxiliary=True)
    assert with_heads.total.params == 601 + 47
    assert with_heads.by_module()["aux_1"] == Cost(
        weights=38, params=47, non_trainable=0, macs=38, activations=19
    )


def test_batch_normalization_of_the_network_counted_by_hand() -> None:
    # 577 weights and 4 biases of the classifier; 20 filters in all convolutions.
    scaled = network_cost(replace(HAND, batch_norm=BatchNormSpec())).total
    assert (scaled.params, scaled.non_trainable) == (577 + 4 + 2 * 20, 2 * 20)
    plain = network_cost(replace(HAND, batch_norm=BatchNormSpec(scale=False))).total
    assert (plain.params, plain.non_trainable) == (577 + 4 + 20, 2 * 20)
    assert plain.macs == scaled.macs == 5771


# --- The built Keras models ---


@cache
def _built(spec: NetworkSpec) -> keras.Model:
    return build_network(spec, auxiliary=bool(spec.aux))


def _elements(weights: list[keras.Variable]) -> int:
    return sum(keras.ops.size(weight) for weight in weights)


BUILT = [*VARIANTS.values(), HAND, replace(HAND, name="hand_bn", batch_norm=BatchNormSpec())]


@pytest.mark.parametrize("spec", BUILT, ids=lambda spec: spec.name)
def test_built_models_agree_with_the_cost(spec: NetworkSpec) -> None:
    model = _built(spec)
    _check_layers(model, spec)
    for built, auxiliary in ((model, bool(spec.aux)), (inference_model(model), False)):
        total = network_cost(spec, auxiliary=auxiliary).total
        assert built.count_params() == total.params + total.non_trainable
        assert _elements(built.trainable_weights) == total.params
        counted = model_cost(built)
        assert counted.uncounted == ()
        assert counted.macs == total.macs


def _check_layers(model: keras.Model, spec: NetworkSpec) -> None:
    """Shape, parameters and MACs of each layer of the cost are those of the built unit."""
    macs = {layer.name: layer.macs for layer in model_cost(model).layers}
    for layer in network_cost(spec, auxiliary=bool(spec.aux)).layers:
        assert model.get_layer(layer.name).output.shape[1:] == layer.output_shape, layer.name
        parts = {layer.name, *(layer.name + end for end in ("_conv", "_bn", "_logits"))}
        unit = [part for part in model.layers if part.name in parts]
        assert sum(part.count_params() for part in unit) == layer.params + layer.non_trainable
        assert sum(macs[part.name] for part in unit) == layer.macs, layer.name


ODD = [
    replace(spec, input_shape=(97, 161, spec.input_shape[2]))
    for spec in (PAPER, BN, SLIM, TORCHVISION, VARIANTS["small"])
]


@pytest.mark.parametrize("spec", ODD, ids=lambda spec: spec.name)
def test_built_models_agree_at_odd_sizes(spec: NetworkSpec) -> None:
    spec = replace(spec, aux=tuple(aux for aux in spec.aux if aux.pool == "adaptive"))
    _check_layers(_built(spec), spec)
    assert model_cost(_built(spec)).uncounted == ()


def test_grids_of_the_paper_at_odd_sizes_by_hand() -> None:
    shapes = {layer.name: layer.output_shape[:2] for layer in network_cost(ODD[0]).layers}
    # conv1: (97 + 6 - 7) // 2 + 1 = 49, 81. Ceil pools, (n - 3) / 2 rounded up + 1.
    assert [shapes[name] for name in ("conv1", "pool1", "pool2", "pool3", "pool4")] == [
        (49, 81),
        (24, 40),
        (12, 20),
        (6, 10),
        (3, 5),
    ]
    shapes = {layer.name: layer.output_shape[:2] for layer in network_cost(ODD[1]).layers}
    # "same": half, rounded up.
    assert [shapes[name] for name in ("conv1", "pool1", "pool2", "pool3", "pool4")] == [
        (49, 81),
        (25, 41),
        (13, 21),
        (7, 11),
        (4, 6),
    ]


@pytest.mark.parametrize("padding", ["same", "ceil"])
@pytest.mark.parametrize(
    ("size", "stride"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 2), (5, 2), (5, 3)]
)
def test_built_pools_agree_at_every_size(size: int, stride: int, padding: str) -> None:
    pool = PoolSpec(name="pool1", size=size, stride=stride, padding=padding)  # type: ignore[arg-type]
    spec = replace(HAND, stem=(pool,), aux=())
    for height, width in ((9, 9), (9, 10), (10, 10), (11, 11), (12, 13)):
        sized = replace(spec, input_shape=(height, width, 1))
        _check_layers(build_network(sized), sized)


def test_modules_right_after_the_first_convolution() -> None:
    # Section 4: traditional low layers are "not strictly necessary". 3a sees conv1's output.
    spec = replace(HAND, stem=HAND.stem[:1], aux=())
    cost = network_cost(spec)
    assert [layer.name for layer in cost.layers][:2] == ["conv1", "3a_1x1"]
    assert cost.by_module()["3a"].macs == 36 * (8 + 12 + 135 + 100 + 8)
    _check_layers(build_network(spec), spec)


# --- What cannot be counted ---


def test_unknown_and_too_small_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a fixed input size.*input_shape=\(None, 224, 3\)"):
        network_cost(replace(PAPER, input_shape=(None, 224, 3)))
    with pytest.raises(ValueError, match=r"at least 31x31 pixels.*input_shape=\(30, 224, 3\)"):
        network_cost(replace(PAPER, input_shape=(30, 224, 3)))
    assert network_cost(replace(PAPER, input_shape=(31, 31, 3))).layers[-3].output_shape[0] == 1


def test_a_grid_too_small_for_the_auxiliary_classifier_is_refused() -> None:
    small = replace(PAPER, input_shape=(64, 64, 3))  # 4a has 4 x 4, the pool's window is 5
    with pytest.raises(ValueError, match=r"at least 5x5 under 'aux_1'. Received: 4x4 after '4a'"):
        network_cost(small, auxiliary=True)
    assert network_cost(small).by_stage().keys() == {"stem", "3", "4", "5", "head"}


def test_a_grid_too_small_for_a_pool_is_refused() -> None:
    wide = PoolSpec(name="pool1", size=5, padding="ceil")
    spec = replace(HAND, stem=(wide,), aux=(), input_shape=(4, 9, 1))
    network_cost(spec)  # 4: one window, truncated by one pixel
    spec = replace(spec, stem=(replace(wide, size=7),))
    # Windows of 7 by 2 leave ceil((n - 7) / 2) + 1: one from 6 pixels on.
    for count in (network_cost, build_network):
        with pytest.raises(ValueError, match=r"at least 6x6 pixels .*input_shape=\(4, 9, 1\)"):
            count(spec)


# --- Growth (mission: reductions shield the next stage) ---


def test_naive_modules_grow_with_the_square_of_the_depth() -> None:
    naive = ModuleSpec(
        name="3a",
        filters_1x1=2,
        spatial=(BranchSpec(kernel_size=3, reduce=None, filters=3),),
        filters_pool_proj=None,
    )
    curve = growth_by_depth(naive, input_filters=4, grid=2, depth=4)
    # Each module adds 2 + 3 to its input's channels: 4, 9, 14, 19. On 4 positions it costs
    # 4 * C * (2 * 1 + 3 * 9) = 116 C multiply-adds and 29 C + 5 parameters.
    assert [point.macs for point in curve] == [464, 1508, 3132, 5336]
    assert [point.params for point in curve] == [121, 387, 798, 1354]
    assert [point.output_filters for point in curve] == [9, 14, 19, 24]
    assert [point.scale for point in curve] == [1, 2, 3, 4]


def test_reduced_modules_grow_with_the_depth() -> None:
    reduced = ModuleSpec(
        name="3a",
        filters_1x1=2,
        spatial=(BranchSpec(kernel_size=3, reduce=1, filters=3),),
        filters_pool_proj=1,
    )
    curve = growth_by_depth(reduced, input_filters=6, grid=2, depth=3)
    # Its 2 + 3 + 1 outputs are the inputs of the next module. On 4 positions each costs
    # 4 * (6 * 2 + 6 * 1 + 9 * 1 * 3 + 6 * 1) = 204, and 51 weights with 7 biases.
    assert [point.macs for point in curve] == [204, 408, 612]
    assert [point.params for point in curve] == [58, 116, 174]
    assert [point.output_filters for point in curve] == [6, 6, 6]


def _two_modules(*, reduce: int | None, pool_proj: int | None) -> NetworkSpec:
    modules = tuple(
        ModuleSpec(
            name=name,
            filters_1x1=1,
            spatial=(BranchSpec(kernel_size=3, reduce=reduce, filters=2),),
            filters_pool_proj=pool_proj,
        )
        for name in ("3a", "3b")
    )
    return NetworkSpec(
        name="two",
        input_shape=(4, 4, 1),
        stem=(ConvSpec(name="conv1", filters=2, kernel_size=1),),
        stages=(StageSpec(name="3", downsample=None, modules=modules),),
    )


def test_growth_by_width_of_reduced_modules() -> None:
    curve = growth_by_width(_two_modules(reduce=1, pool_proj=1), (0.25, 1, 2))
    # conv1 stays: 16 * 2. On 16 positions, C = 2 then 4 (scale 1) or 8 (scale 2):
    # scale 1: 16 * (C * 1 + C * 1 + 9 * 1 * 2 + C * 1) = 384, then 480
    # scale 2: 16 * (C * 2 + C * 2 + 9 * 2 * 4 + C * 2) = 1344, then 1920
    # scale 1/4: no width below 1: 16 * (3 C + 9) with C = 2, then 3: 240, then 288
    assert [point.macs for point in curve] == [32 + 240 + 288, 32 + 384 + 480, 32 + 1344 + 1920]
    # Biases: 2 of conv1; 3 + 1, 4 + 1 or 8 + 2 per module.
    assert [point.params for point in curve] == [
        *(4 + (15 + 4) + (18 + 4), 4 + (24 + 5) + (30 + 5), 4 + (84 + 10) + (120 + 10)),
    ]
    assert [point.output_filters for point in curve] == [3, 4, 8]
    assert [point.scale for point in curve] == [0.25, 1, 2]


def test_growth_by_width_of_naive_modules() -> None:
    curve = growth_by_width(_two_modules(reduce=None, pool_proj=None), (1, 2))
    # scale 1: 16 * (2 * 1 + 9 * 2 * 2) = 608, then on 2 + 3 channels 16 * 5 * 19 = 1520
    # scale 2: 16 * (2 * 2 + 9 * 2 * 4) = 1216, then on 2 + 6 channels 16 * 8 * 38 = 4864
    assert [point.macs for point in curve] == [32 + 608 + 1520, 32 + 1216 + 4864]
    assert [point.output_filters for point in curve] == [5 + 3, 8 + 6]


def test_growth_by_width_leaves_absent_branches_out() -> None:
    spec = _two_modules(reduce=1, pool_proj=0)
    (point,) = growth_by_width(spec, (3,))
    assert point.output_filters == 3 + 6
