"""Specs: refused values and the reasons, output sizes, JSON round trip."""

import json
import re
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from conftest import tiny_module, tiny_spec

from keras_inception.spec.network import (
    AuxSpec,
    BatchNormSpec,
    BranchSpec,
    ConvSpec,
    LRNSpec,
    NetworkSpec,
    PoolSpec,
    StageSpec,
)
from keras_inception.spec.variants import BN, NAIVE, PAPER, SLIM, VARIANTS

CONV = ConvSpec(name="conv1", filters=4, kernel_size=3)
POOL = PoolSpec(name="pool1")
LRN = LRNSpec(name="norm1")
BRANCH = BranchSpec(kernel_size=3, reduce=2, filters=4)
MODULE = tiny_module("3a")
STAGE = StageSpec(name="3", downsample=None, modules=(MODULE,))
AUX = AuxSpec(name="aux_1", after="3a")
NORM = BatchNormSpec()
NETWORK = tiny_spec(norm="lrn", aux=True)
LETTERS = "to be ASCII letters, digits and underscores"

REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (CONV, {"filters": 0}, "`filters` of ConvSpec 'conv1' to be a positive integer. Received: f"),
    (CONV, {"filters": 4.0}, "a positive integer. Received: filters=4.0"),
    (CONV, {"filters": True}, "a positive integer. Received: filters=True"),
    (CONV, {"filters": "4"}, "a positive integer. Received: filters='4'"),
    (CONV, {"kernel_size": 2}, "to be odd, so that the window has a centre. Received: kernel_"),
    (CONV, {"kernel_size": -1}, "a positive integer. Received: kernel_size=-1"),
    (CONV, {"stride": None}, "a positive integer. Received: stride=None"),
    (CONV, {"padding": "valid"}, "one of ('same', 'symmetric'). Received: padding='valid'"),
    (CONV, {"padding": ["same"]}, "Received: padding=['same']"),
    (CONV, {"name": "a/b"}, f"{LETTERS}, since Keras layers are named after it. Received: name"),
    (CONV, {"name": ""}, LETTERS),
    (CONV, {"name": "é"}, LETTERS),
    (CONV, {"name": 1}, LETTERS),
    (POOL, {"size": 0}, "a positive integer. Received: size=0"),
    (POOL, {"stride": 0}, "a positive integer. Received: stride=0"),
    (POOL, {"size": 1}, "at least its stride, 2, to cover all pixels. Received: size=1"),
    (POOL, {"padding": "full"}, "one of ('same', 'ceil', 'valid')"),
    (POOL, {"name": "pool 1"}, LETTERS),
    (LRN, {"window_size": 4}, "to be odd, so that the window has a centre. Received: window_size"),
    (LRN, {"window_size": 5.0}, "a positive integer. Received: window_size=5.0"),
    (LRN, {"alpha_per_window": 0.0}, "a positive finite number. Received: alpha_per_window=0.0"),
    (LRN, {"beta": "x"}, "a positive finite number. Received: beta='x'"),
    (LRN, {"beta": float("nan")}, "a positive finite number. Received: beta=nan"),
    (LRN, {"bias": float("inf")}, "a positive finite number. Received: bias=inf"),
    (LRN, {"name": None}, LETTERS),
    (BRANCH, {"kernel_size": 4}, "to be odd"),
    (BRANCH, {"kernel_size": 1}, "a kernel of 3 or more. Received: kernel_size=1"),
    (BRANCH, {"reduce": 0}, "a positive integer. Received: reduce=0"),
    (BRANCH, {"filters": 0}, "a positive integer. Received: filters=0"),
    (MODULE, {"name": "3-a"}, LETTERS),
    (MODULE, {"filters_1x1": -1}, "an integer of 0 or more. Received: filters_1x1=-1"),
    (MODULE, {"filters_1x1": None}, "an integer of 0 or more. Received: filters_1x1=None"),
    (MODULE, {"filters_pool_proj": 1.5}, "an integer of 0 or more. Received: filters_pool_proj"),
    (MODULE, {"spatial": [BRANCH]}, "`spatial` of ModuleSpec '3a' to be a tuple of BranchSpec"),
    (MODULE, {"spatial": (3,)}, "a tuple of BranchSpec. Received: spatial=(3,)"),
    (
        MODULE,
        {"filters_1x1": 0, "spatial": (), "filters_pool_proj": 0},
        "module '3a' to have at least one branch",
    ),
    (MODULE, {"spatial": (BRANCH,) * 27}, "at most 26 branches of one kernel size"),
    (STAGE, {"name": ""}, LETTERS),
    (STAGE, {"name": "stem"}, "another name than ('stem', 'aux', 'head')"),
    (STAGE, {"modules": ()}, "stage '3' to have at least one module. Received: modules=()"),
    (STAGE, {"modules": [MODULE]}, "a tuple of ModuleSpec"),
    (STAGE, {"downsample": CONV}, "to be a PoolSpec or None"),
    (AUX, {"name": "aux/1"}, LETTERS),
    (AUX, {"pool": "max"}, "one of ('valid', 'adaptive'). Received: pool='max'"),
    (AUX, {"pool_size": 0}, "a positive integer. Received: pool_size=0"),
    (AUX, {"pool_stride": 0}, "a positive integer. Received: pool_stride=0"),
    (AUX, {"filters": 0}, "a positive integer. Received: filters=0"),
    (AUX, {"units": 0}, "a positive integer. Received: units=0"),
    (AUX, {"dropout_rate": 1.0}, "from 0 up to, not including, 1. Received: dropout_rate=1.0"),
    (NORM, {"scale": 1}, "True or False. Received: scale=1"),
    (NORM, {"momentum": 1}, "from 0 up to, not including, 1. Received: momentum=1"),
    (NORM, {"momentum": "x"}, "from 0 up to, not including, 1. Received: momentum='x'"),
    (NORM, {"epsilon": 0}, "a positive finite number. Received: epsilon=0"),
    (NETWORK, {"name": "a/b"}, "text without slashes"),
    (NETWORK, {"name": " "}, "text without slashes"),
    (NETWORK, {"name": None}, "text without slashes"),
    (NETWORK, {"classes": 0}, "a positive integer. Received: classes=0"),
    (NETWORK, {"dropout_rate": -0.1}, "from 0 up to, not including, 1"),
    (NETWORK, {"pixels": "rgb"}, "one of ('tf', 'caffe', 'torch', 'inception5h')"),
    (NETWORK, {"initializer": "zeros"}, "one of ('caffe_xavier', 'he')"),
    (NETWORK, {"bias_initial_value": "0"}, "a finite number. Received: bias_initial_value='0'"),
    (NETWORK, {"input_shape": (32, 32)}, "a tuple (height, width, channels) of positive integers"),
    (NETWORK, {"input_shape": [32, 32, 3]}, "Received: input_shape=[32, 32, 3]"),
    (NETWORK, {"input_shape": 32}, "Received: input_shape=32"),
    (NETWORK, {"input_shape": (32, 0, 3)}, "Received: input_shape=(32, 0, 3)"),
    (NETWORK, {"input_shape": (32, 32.0, 3)}, "Received: input_shape=(32, 32.0, 3)"),
    (NETWORK, {"input_shape": (None, None, None)}, "a tuple with a number of channels"),
    (NETWORK, {"stem": (MODULE,)}, "a tuple of ConvSpec or PoolSpec or LRNSpec"),
    (NETWORK, {"stages": ()}, "at least one stage of modules. Received: stages=()"),
    (NETWORK, {"stages": STAGE}, "a tuple of StageSpec"),
    (NETWORK, {"aux": AUX}, "a tuple of AuxSpec"),
    (NETWORK, {"batch_norm": True}, "a BatchNormSpec or None. Received: batch_norm=True"),
    (NETWORK, {"aux": (replace(AUX, after="9z"),)}, "['3a', '3b', '4a']. Received: after='9z'"),
    (
        NETWORK,
        {"aux": (AUX, replace(AUX, name="aux_2"))},
        "at most one auxiliary classifier after a module. Received more than one after: ['3a']",
    ),
    (NETWORK, {"stem": (CONV, CONV)}, "Received more than once: ['conv1']"),
    (NETWORK, {"stem": (replace(CONV, name="3a"),)}, "Received more than once: ['3a']"),
    (NETWORK, {"stem": (replace(CONV, name="main"),)}, "none of the network's own (main, stem"),
    (NETWORK, {"stem": (replace(CONV, name="predictions"),)}, "more than once: ['predictions']"),
    (NETWORK, {"stem": (replace(CONV, name="pixels_tf"),)}, "more than once: ['pixels_tf']"),
    (
        NETWORK,
        {"stem": (replace(CONV, name="3a_1x1"),)},
        "prefix '3a_', which is that of the layers of module '3a'. Received: ['3a_1x1']",
    ),
    (
        NETWORK,
        {"stages": (STAGE, replace(STAGE, modules=(tiny_module("3b"),)))},
        "Received more than once: ['3']",
    ),
]


@pytest.mark.parametrize(("spec", "change", "message"), REFUSED)
def test_refused_values_say_what_was_expected(
    spec: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        replace(spec, **change)
    assert str(caught.value).startswith("Expected ")
    assert "Received" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "change"),
    [
        (BRANCH, {"reduce": None}),
        (BRANCH, {"kernel_size": 11}),
        (MODULE, {"filters_1x1": 0, "spatial": ()}),
        (MODULE, {"filters_1x1": 0, "spatial": (), "filters_pool_proj": None}),
        (MODULE, {"spatial": (BRANCH,) * 26}),
        (AUX, {"dropout_rate": 0}),
        (NETWORK, {"stem": ()}),
        (NETWORK, {"stem": (CONV,)}),  # modules right after the first convolution
        (NETWORK, {"aux": ()}),
        (NETWORK, {"input_shape": (None, None, 3)}),
        (NETWORK, {"bias_initial_value": -0.1}),
    ],
)
def test_allowed_values(spec: Any, change: dict[str, Any]) -> None:
    changed = replace(spec, **change)
    assert {label: getattr(changed, label) for label in change} == change


def test_specs_are_frozen_and_hashable() -> None:
    with pytest.raises(FrozenInstanceError):
        PAPER.classes = 10  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        PAPER.modules[0].filters_1x1 = 1  # type: ignore[misc]
    assert len({PAPER, replace(PAPER), BN}) == 2


def test_spatial_names_number_repeated_kernels_with_letters() -> None:
    sizes = (3, 5, 3, 7, 3, 11)
    branches = tuple(BranchSpec(kernel_size=size, reduce=1, filters=1) for size in sizes)
    names = replace(MODULE, spatial=branches).spatial_names
    assert names == ("3x3", "5x5", "3x3_b", "7x7", "3x3_c", "11x11")


def test_output_filters_add_the_branches() -> None:
    # 2 of the 1x1, 3 and 4 of the spatial ones, then the pool branch.
    assert MODULE.output_filters(10) == 2 + 3 + 4 + 2
    assert replace(MODULE, filters_pool_proj=None).output_filters(10) == 2 + 3 + 4 + 10
    assert replace(MODULE, filters_pool_proj=0).output_filters(10) == 2 + 3 + 4


def test_output_filters_of_the_papers_modules() -> None:
    # Table 1, column "output size".
    outputs = {module.name: module.output_filters(1) for module in PAPER.modules}
    expected = [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    names = ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
    assert outputs == dict(zip(names, expected, strict=True))


def test_branches_in_the_order_of_concatenation() -> None:
    """Table 1's 3a on 192 channels, and the naive module, each convolution by hand."""
    module = PAPER.modules[0]
    assert [tuple(branch) for branch in module.branches(192)] == [
        ("1x1", False, (("3a_1x1", "1x1", 1, 192, 64),), 64),
        (
            "3x3",
            False,
            (("3a_3x3_reduce", "3x3_reduce", 1, 192, 96), ("3a_3x3", "3x3", 3, 96, 128)),
            128,
        ),
        (
            "5x5",
            False,
            (("3a_5x5_reduce", "5x5_reduce", 1, 192, 16), ("3a_5x5", "5x5", 5, 16, 32)),
            32,
        ),
        ("pool", True, (("3a_pool_proj", "pool_proj", 1, 192, 32),), 32),
    ]
    assert [tuple(branch) for branch in NAIVE.modules[0].branches(192)] == [
        ("1x1", False, (("3a_1x1", "1x1", 1, 192, 64),), 64),
        ("3x3", False, (("3a_3x3", "3x3", 3, 192, 128),), 128),
        ("5x5", False, (("3a_5x5", "5x5", 5, 192, 32),), 32),
        ("pool", True, (), 192),
    ]
    only_3x3 = replace(MODULE, filters_1x1=0, spatial=(BRANCH,), filters_pool_proj=0)
    assert [branch.name for branch in only_3x3.branches(5)] == ["3x3"]


def test_widths_by_suffix_and_back() -> None:
    assert PAPER.modules[0].widths() == {
        "1x1": 64,
        "3x3_reduce": 96,
        "3x3": 128,
        "5x5_reduce": 16,
        "5x5": 32,
        "pool_proj": 32,
    }
    assert NAIVE.modules[0].widths() == {"1x1": 64, "3x3": 128, "5x5": 32}
    table_1_3b = {
        **{"1x1": 128, "3x3_reduce": 128, "3x3": 192},
        **{"5x5_reduce": 32, "5x5": 96, "pool_proj": 64},
    }
    first, second = PAPER.modules[:2]
    assert replace(first.with_widths(table_1_3b), name="3b") == second
    assert first.with_widths({"3x3": 130}).spatial[0].filters == 130
    for module in (*PAPER.modules, *NAIVE.modules, *SLIM.modules):
        assert module.with_widths({}) == module
    with pytest.raises(ValueError, match=re.escape("among 1x1, 3x3, 5x5. Received: ['pool_proj']")):
        NAIVE.modules[0].with_widths({"pool_proj": 3})


def test_input_channels_of_the_modules() -> None:
    # Table 1: conv2 gives 192, then the column "output size" of the module before.
    inputs = PAPER.module_inputs()
    assert [*inputs.values()] == [192, 256, 480, 512, 512, 512, 528, 832, 832]
    assert inputs["4a"] == 480
    assert replace(PAPER, stem=PAPER.stem[1:2]).stem_filters == 3  # a pool keeps the channels


def _windows(size: int, window: int, stride: int, before: int, after: int) -> int:
    """Count the windows that fit into a padded row, by sliding one along."""
    starts = range(-before, size + after - window + 1, stride)
    return len(starts)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolution_sizes(kernel_size: int, stride: int) -> None:
    for size in range(1, 40):
        half = kernel_size // 2
        symmetric = ConvSpec(
            name="c", filters=1, kernel_size=kernel_size, stride=stride, padding="symmetric"
        )
        assert symmetric.output_size(size) == _windows(size, kernel_size, stride, half, half)
        # TensorFlow's "same": one window per `stride` pixels, including a partial last one.
        same = replace(symmetric, padding="same")
        assert same.output_size(size) == len(range(0, size, stride))


@pytest.mark.parametrize(("window", "stride"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (5, 2)])
def test_pool_sizes(window: int, stride: int) -> None:
    for size in range(window, 40):
        ceil = PoolSpec(name="p", size=window, stride=stride, padding="ceil")
        # Caffe's rounding: windows start at the first pixel, until one reaches the last pixel.
        starts = [0]
        while starts[-1] + window < size:
            starts.append(starts[-1] + stride)
        assert ceil.output_size(size) == len(starts)
        same = replace(ceil, padding="same")
        assert same.output_size(size) == len(range(0, size, stride))


def test_ceil_and_same_pools_differ_for_odd_sizes_only() -> None:
    ceil, same = (PoolSpec(name="p", padding=padding) for padding in ("ceil", "same"))
    assert [ceil.output_size(n) for n in (112, 56, 28, 14)] == [56, 28, 14, 7]
    assert [same.output_size(n) for n in (112, 56, 28, 14)] == [56, 28, 14, 7]
    assert (ceil.output_size(113), same.output_size(113)) == (56, 57)
    assert ceil.output_size(1) < 1  # no window of 3 has a pixel: too small


def test_auxiliary_pool_sizes() -> None:
    # Section 5: 14 x 14 -> windows of 5 at 0, 3, 6, 9 -> 4 x 4.
    assert AUX.output_size(14) == 4
    assert AUX.output_size(5) == 1
    assert AUX.output_size(4) < 1
    adaptive = replace(AUX, pool="adaptive", pool_size=4)
    assert [adaptive.output_size(size) for size in (3, 14, 20)] == [4, 4, 4]


def test_total_stride_and_input_name() -> None:
    assert PAPER.total_stride == 2 * 2 * 2 * 2 * 2  # conv1 and four pools
    assert replace(PAPER, stem=PAPER.stem[:1]).total_stride == 8  # without pool1 and pool2
    assert PAPER.input_name == "pixels_caffe"


def test_map_modules_replaces_only_the_named_ones() -> None:
    wider = replace(NETWORK.modules[1], filters_1x1=7)
    changed = NETWORK.map_modules({"3b": wider})
    assert changed.modules == (NETWORK.modules[0], wider, NETWORK.modules[2])
    assert replace(changed, stages=NETWORK.stages) == NETWORK


@pytest.mark.parametrize(
    "spec",
    [
        *VARIANTS.values(),
        NETWORK,
        tiny_spec(naive=True, kernels=(3, 3, 7)),
        replace(PAPER, stem=PAPER.stem[:1], input_shape=(None, None, 1)),
    ],
    ids=lambda spec: spec.name,
)
def test_json_round_trip(spec: NetworkSpec) -> None:
    text = spec.to_json()
    assert NetworkSpec.from_json(text) == spec
    assert NetworkSpec.from_json(json.dumps(json.loads(text))) == spec


def test_json_is_plain_and_versioned() -> None:
    data = json.loads(PAPER.to_json())
    assert data["schema_version"] == 1
    assert data["input_shape"] == [224, 224, 3]
    assert data["stem"][1] == {
        "kind": "pool",
        "name": "pool1",
        "size": 3,
        "stride": 2,
        "padding": "ceil",
    }
    branch = data["stages"][0]["modules"][0]["spatial"][1]
    assert branch == {"kernel_size": 5, "reduce": 16, "filters": 32}


# The objects of a document, and the keys that have no default.
PLACES: dict[tuple[str | int, ...], set[str]] = {
    (): {"schema_version", "name", "input_shape", "stem", "stages"},
    ("stem", 0): {"kind", "name", "filters", "kernel_size"},
    ("stem", 1): {"kind", "name"},  # pool
    ("stem", 2): {"kind", "name"},  # LRN
    ("stages", 0): {"name", "downsample", "modules"},
    ("stages", 1, "downsample"): {"kind", "name"},
    ("stages", 0, "modules", 0): {"name", "filters_1x1", "spatial", "filters_pool_proj"},
    ("stages", 0, "modules", 0, "spatial", 0): {"kernel_size", "reduce", "filters"},
    ("aux", 0): {"name", "after"},
    ("batch_norm",): set(),
}


def _document(spec: NetworkSpec = NETWORK) -> dict[str, Any]:
    return json.loads(spec.to_json())


def _at(data: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        data = data[key]
    return data


@pytest.mark.parametrize("place", PLACES)
def test_json_unknown_and_missing_keys_are_named(place: tuple[str | int, ...]) -> None:
    spec = replace(NETWORK, batch_norm=NORM)
    data = _document(spec)
    _at(data, place)["width"] = 3
    with pytest.raises(ValueError, match=r"missing keys \[\], unknown keys \['width'\]"):
        NetworkSpec.from_json(json.dumps(data))
    for key in _at(_document(spec), place):
        data = _document(spec)
        del _at(data, place)[key]
        if key in PLACES[place]:
            with pytest.raises(ValueError, match=key):
                NetworkSpec.from_json(json.dumps(data))
        else:
            assert key in _at(_document(NetworkSpec.from_json(json.dumps(data))), place)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '"spec"', "{}", '{"name": "x"}', "[" * 10]
)
def test_other_json_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Expected the JSON of a spec"):
        NetworkSpec.from_json(text)


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        *((version, "Write it again with `to_json`") for version in (0, "1", None, [1], 1.0, True)),
        (2, "Install a newer keras-inception"),
    ],
)
def test_other_schema_versions_are_refused(version: Any, remedy: str) -> None:
    text = json.dumps(_document() | {"schema_version": version})
    message = f"a spec with schema_version 1. Received: schema_version={version!r}. {remedy}."
    with pytest.raises(ValueError, match=re.escape(message)):
        NetworkSpec.from_json(text)


def _places(data: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every value in a JSON document, below its root."""
    if isinstance(data, dict):
        inner: list[tuple[str | int, Any]] = list(data.items())
    else:
        inner = list(enumerate(data)) if isinstance(data, list) else []
    below = [found for key, value in inner for found in _places(value, (*place, key))]
    return [place, *below] if place else below


WRONG: tuple[Any, ...] = (
    None,
    True,
    3,
    -1.5,
    "x",
    "3",
    [],
    {},
    [[]],
    [3],
    [{}],
    {"kind": "conv"},
    {"kind": []},
)


def test_a_wrong_value_anywhere_is_a_value_error() -> None:
    full = replace(NETWORK, batch_norm=NORM)
    outcomes = {"refused": 0, "read": 0}
    for place in _places(_document(full)):
        for wrong in WRONG:
            data = _document(full)
            _at(data, place[:-1])[place[-1]] = wrong
            try:
                spec = NetworkSpec.from_json(json.dumps(data))
            except ValueError:
                outcomes["refused"] += 1
            else:  # for example 3 instead of 4 filters
                default = {"scale": True, "momentum": 0.99, "epsilon": 0.001}
                expected = default if (place, wrong) == (("batch_norm",), {}) else wrong
                assert _at(_document(spec), place) == expected
                outcomes["read"] += 1
    assert outcomes["refused"] > 10 * outcomes["read"] > 0


def test_the_smallest_input_of_many_large_strides_by_hand() -> None:
    """Nothing is tried out, pixel by pixel: a crafted spec would take for ever."""
    pools = [PoolSpec(name=f"p{n}", size=1000, stride=1000, padding="valid") for n in range(5)]
    first = ConvSpec(name="conv1", filters=4, kernel_size=3, stride=2)
    spec = replace(tiny_spec(), stem=(first, *pools), input_shape=(None, None, 3))
    # The pool of 3 x 3 behind them, padded as "ceil", needs 2 pixels for its first window; the
    # pools 2 * 1000^5 for these, since their windows lie side by side.
    assert spec.min_size == (2 * 1000**5 - 1) * 2 + 1


@pytest.mark.parametrize(
    ("padding", "expected"),
    # Windows of 3 at 0, 2 and 4: the last begins at 4, and ends at 6 if it must be whole; "ceil"
    # needs one pixel of it beyond the window before, which ends at 4.
    [("same", 5), ("valid", 7), ("ceil", 6)],
)
def test_the_fewest_pixels_of_three_positions_by_hand(padding: Any, expected: int) -> None:
    pool = PoolSpec(name="pool", size=3, stride=2, padding=padding)
    assert pool.least_input(3) == expected
    assert (pool.output_size(expected), pool.output_size(expected - 1)) == (3, 2)
