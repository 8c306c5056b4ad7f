"""Multiply-adds of functional Keras models, against published counts and hand computation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import pytest
from conftest import tiny_spec
from keras import layers, ops

from keras_inception.cost.keras_model import CountedLayer, ModelCost, model_cost
from keras_inception.cost.layers import network_cost
from keras_inception.network.build import build_network


def _cost(shape: tuple[int | None, ...], apply: Callable[[Any], Any]) -> ModelCost:
    inputs = keras.Input(shape, name="pixels")
    return model_cost(keras.Model(inputs, apply(inputs)))


# --- Published counts ---


@pytest.mark.parametrize(
    ("application", "macs"),
    [
        # torchvision's table says 15.47 and 0.301 GFLOPS (multiply-adds, by fvcore).
        (keras.applications.VGG16, 15_470_264_320),
        (keras.applications.MobileNetV2, 300_774_272),
    ],
)
def test_published_networks(application: Callable[..., keras.Model], macs: int) -> None:
    cost = model_cost(application(weights=None))
    assert cost.uncounted == ()
    assert cost.macs == macs


# --- Layers by hand ---

BY_HAND: list[tuple[str, tuple[int, ...], Callable[[], layers.Layer], int]] = [
    # 10 -> 8 positions, kernel 3, 4 -> 5 channels.
    ("conv1d", (10, 4), lambda: layers.Conv1D(5, 3), 8 * 3 * 4 * 5),
    # "causal" pads: 10 positions.
    ("causal", (10, 4), lambda: layers.Conv1D(5, 3, padding="causal"), 10 * 3 * 4 * 5),
    # 9 x 9 -> 5 x 5 by stride 2 and "same".
    ("conv2d", (9, 9, 4), lambda: layers.Conv2D(6, 3, 2, "same"), 25 * 9 * 4 * 6),
    # Dilation spreads the taps (5 wide: 9 -> 5) without changing their number.
    ("dilated", (9, 9, 4), lambda: layers.Conv2D(6, 3, dilation_rate=2), 25 * 9 * 4 * 6),
    ("conv3d", (4, 4, 4, 2), lambda: layers.Conv3D(3, 2), 27 * 8 * 2 * 3),
    # 3 groups: each filter sees 6 / 3 channels.
    ("grouped", (8, 8, 6), lambda: layers.Conv2D(9, 3, padding="same", groups=3), 64 * 9 * 2 * 9),
    # 5 channels with 2 filters each.
    ("depthwise1d", (10, 5), lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), 8 * 3 * 10),
    ("depthwise", (8, 8, 5), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), 36 * 9 * 10),
    # 36 positions: 9 taps for 5 * 2 channels, then 1x1 from 10 to 7.
    (
        "separable",
        (8, 8, 5),
        lambda: layers.SeparableConv2D(7, 3, depth_multiplier=2),
        36 * (9 * 10 + 10 * 7),
    ),
    ("separable1d", (10, 5), lambda: layers.SeparableConv1D(7, 3), 8 * (3 * 5 + 5 * 7)),
    # A transposed convolution uses its whole kernel for every input position.
    ("transposed1d", (10, 4), lambda: layers.Conv1DTranspose(5, 3, 2), 10 * 3 * 4 * 5),
    (
        "transposed",
        (6, 6, 4),
        lambda: layers.Conv2DTranspose(5, 3, 2, "same"),
        36 * 9 * 4 * 5,
    ),
    ("transposed3d", (2, 2, 2, 3), lambda: layers.Conv3DTranspose(4, 2, 2), 8 * 8 * 3 * 4),
    ("dense", (7,), lambda: layers.Dense(3), 7 * 3),
    # Dense acts on the last axis, once per position of 5 x 6.
    ("dense_on_a_grid", (5, 6, 7), lambda: layers.Dense(3), 30 * 7 * 3),
    # Attention's projection: b 10 tokens, c 8 -> 2 heads x 4.
    (
        "einsum",
        (10, 8),
        lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 4)),
        10 * 8 * 2 * 4,
    ),
    # Two axes summed: 2 heads x 4 -> 8.
    (
        "einsum_two_axes",
        (10, 2, 4),
        lambda: layers.EinsumDense("abcd,cde->abe", output_shape=(None, 8)),
        10 * 2 * 4 * 8,
    ),
    (
        "einsum_ellipsis",
        (5, 6, 7),
        lambda: layers.EinsumDense("...x,xy->...y", output_shape=3),
        30 * 7 * 3,
    ),
    # Weights per position: 5 positions, each 7 -> 3.
    (
        "einsum_by_position",
        (5, 7),
        lambda: layers.EinsumDense("abc,bcd->abd", output_shape=(5, 3)),
        5 * 7 * 3,
    ),
]


@pytest.mark.parametrize(
    ("shape", "layer", "macs"), [row[1:] for row in BY_HAND], ids=[row[0] for row in BY_HAND]
)
def test_layers_by_hand(
    shape: tuple[int, ...], layer: Callable[[], layers.Layer], macs: int
) -> None:
    cost = _cost(shape, layer())
    assert cost.uncounted == ()
    assert cost.macs == macs


def test_biases_count_nothing() -> None:
    assert _cost((7,), layers.Dense(3, use_bias=False)).macs == 21
    assert _cost((7,), layers.Dense(3, use_bias=True)).macs == 21


def test_free_layers_are_listed_with_zero() -> None:
    def apply(x: Any) -> Any:
        x = layers.ZeroPadding2D(1)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D(2)(x)
        x = layers.Add()([x, x])
        x = layers.GlobalAveragePooling2D()(x)
        return layers.Softmax()(x)

    cost = _cost((6, 6, 3), apply)
    assert cost.uncounted == ()
    assert cost.macs == 0
    assert len(cost.layers) == 8  # the input too


def test_operations_that_only_move_or_add_are_free() -> None:
    def apply(x: Any) -> Any:
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = ops.transpose(x + x, (0, 2, 1, 3))
        return ops.concatenate([x[:, :4], ops.relu(x)], axis=1)

    cost = _cost((6, 6, 3), apply)
    assert cost.uncounted == ()
    assert cost.macs == 0


def test_every_call_has_its_name_kind_and_shape() -> None:
    def apply(x: Any) -> Any:
        return layers.Dense(3, name="first")(layers.Flatten(name="flat")(x))

    assert _cost((2, 4), apply).layers == (
        CountedLayer("pixels", "InputLayer", (None, 2, 4), 0),
        CountedLayer("flat", "Flatten", (None, 8), 0),
        CountedLayer("first", "Dense", (None, 3), 24),
    )


# --- Models ---


def test_a_shared_layer_counts_once_per_call() -> None:
    shared = layers.Dense(4, name="shared")
    # 4 * 4 twice in sequence and once in parallel.
    cost = _cost((4,), lambda x: layers.Add()([shared(shared(x)), shared(layers.ReLU()(x))]))
    assert [layer.name for layer in cost.layers].count("shared") == 3
    assert cost.macs == 3 * 16


def test_several_inputs_and_outputs() -> None:
    left, right = keras.Input((4,)), keras.Input((6,))
    outputs = {"sum": layers.Concatenate()([left, right]), "own": layers.Dense(2)(left)}
    outputs["dense"] = layers.Dense(3)(outputs["sum"])
    assert model_cost(keras.Model([left, right], outputs)).macs == 4 * 2 + 10 * 3


def test_nested_models_count_at_each_call_under_their_name() -> None:
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, layers.Dense(4, name="d")(inner_input), name="inner")
    cost = _cost((4,), lambda x: layers.Dense(2)(inner(inner(x))))
    assert [layer.name for layer in cost.layers].count("inner/d") == 2
    assert cost.macs == 16 + 16 + 8


def test_sequential_models_alone_and_nested() -> None:
    head = keras.Sequential(
        [layers.Dense(4, name="d"), layers.ReLU(), layers.Dense(2)], name="head"
    )
    cost = _cost((3,), head)
    assert cost.uncounted == ()
    assert "head/d" in [layer.name for layer in cost.layers]
    assert cost.macs == 3 * 4 + 4 * 2
    assert model_cost(head).macs == 3 * 4 + 4 * 2
    given = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    assert model_cost(given).macs == 10


def test_a_convolution_in_channels_first() -> None:
    # 8 x 6 -> 6 x 4 positions; 2 -> 5 channels.
    cost = _cost((2, 8, 6), layers.Conv2D(5, 3, data_format="channels_first"))
    assert cost.macs == 24 * 9 * 2 * 5


def test_a_network_of_this_package_with_all_its_layers() -> None:
    spec = replace(tiny_spec(norm="lrn", aux=True, kernels=(3, 3, 7)), input_shape=(61, 46, 3))
    counted = model_cost(build_network(spec, auxiliary=True))
    assert counted.uncounted == ()
    assert counted.macs == network_cost(spec, auxiliary=True).total.macs


# --- What cannot be counted is returned ---


class Doubled(layers.Dense):
    """Applies a dense layer twice, so its base class's count is wrong."""

    def call(self, inputs: Any) -> Any:
        return super().call(inputs) + super().call(-inputs)


class Mixed(layers.Identity):
    """Has multiply-adds, while its base class has none."""

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, inputs)


class Pad(keras.Operation):
    """Has the name of one of Keras's free operations, but computes something else."""

    def call(self, x: Any) -> Any:
        return ops.matmul(x, x)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape)


@pytest.mark.parametrize(
    ("shape", "layer", "kind"),
    [
        ((4,), lambda: Doubled(3, name="odd_one"), "Doubled"),
        ((5, 4), lambda: layers.LSTM(3, name="odd_one"), "LSTM"),
        ((4, 4), lambda: Mixed(name="odd_one"), "Mixed"),
        (
            (5, 4),
            lambda: layers.TimeDistributed(layers.Dense(3), name="odd_one"),
            "TimeDistributed",
        ),
        ((4, 4), lambda: Pad(name="odd_one"), "Pad"),
    ],
)
def test_layers_without_a_rule_are_returned(
    shape: tuple[int, ...], layer: Callable[[], Any], kind: str
) -> None:
    cost = _cost(shape, lambda x: layers.Dense(2)(layers.Flatten()(layer()(x))))
    (uncounted,) = cost.uncounted
    assert uncounted == ("odd_one", kind, "no rule for this kind of layer")
    assert "odd_one" not in [counted.name for counted in cost.layers]
    assert cost.macs > 0  # the dense layer after it


def test_operations_that_multiply_matrices_are_returned() -> None:
    cost = _cost((4, 4), lambda x: ops.matmul(x, x))
    assert [(call.kind, call.reason) for call in cost.uncounted] == [
        ("Matmul", "no rule for this kind of layer")
    ]


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((None, None, 3), lambda: layers.Conv2D(4, 3, name="free")),
        ((None, 3), lambda: layers.Conv1DTranspose(4, 3, name="free")),
        ((None, 3), lambda: layers.Dense(4, name="free")),
        ((None, 3), lambda: layers.SeparableConv1D(4, 3, name="free")),
        ((None, 3), lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 4), name="free")),
    ],
)
def test_unknown_sizes_are_returned(
    shape: tuple[int | None, ...], layer: Callable[[], layers.Layer]
) -> None:
    cost = _cost(shape, layer())
    assert cost.macs == 0
    (uncounted,) = cost.uncounted
    assert uncounted.name == "free"
    assert uncounted.reason.startswith(f"unknown sizes: input (None, {', '.join(map(str, shape))})")


def test_unknown_sizes_that_do_not_matter_are_counted() -> None:
    cost = _cost((None, None, 3), lambda x: layers.Dense(4)(layers.GlobalMaxPooling2D()(x)))
    assert (cost.macs, cost.uncounted) == (12, ())


class Subclassed(keras.Model):
    """A model that does not record its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def test_subclassed_models_are_refused_alone_and_returned_when_nested() -> None:
    with pytest.raises(ValueError, match="Expected a functional or Sequential model that is built"):
        model_cost(Subclassed())
    with pytest.raises(ValueError, match="Expected a functional or Sequential model that is built"):
        model_cost(keras.Sequential([layers.Dense(3)]))
    (uncounted,) = _cost((4,), Subclassed()).uncounted
    assert uncounted.kind == "Subclassed"


# --- LoRA and unknown sizes ---


def test_lora_adds_the_product_of_its_factors() -> None:
    inputs = keras.Input((9, 9, 4))
    x = layers.Conv2D(6, 3, name="conv")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(5, name="dense")(x))
    assert model_cost(model).macs == 49 * 9 * 4 * 6 + 6 * 5
    model.get_layer("conv").enable_lora(2)
    model.get_layer("dense").enable_lora(3)
    by_name = {layer.name: layer.macs for layer in model_cost(model).layers}
    # (3 x 3 x 4 by 2) times (2 by 6), and (6 by 3) times (3 by 5).
    assert by_name["conv"] == 49 * 9 * 4 * 6 + 36 * 2 * 6
    assert by_name["dense"] == 6 * 5 + 6 * 3 * 5


def test_a_model_of_unknown_size_is_counted_for_a_given_one() -> None:
    spec = replace(tiny_spec(norm="lrn"), input_shape=(None, None, 3))
    model = build_network(spec)
    assert model_cost(model).uncounted  # convolutions without positions
    nested = keras.Sequential([keras.Input((None, None, 3)), layers.Rescaling(2.0), model])
    expected = network_cost(replace(spec, input_shape=(40, 56, 3))).total.macs
    for counted in (model, nested):
        cost = model_cost(counted, input_shape=(40, 56, 3))
        assert (cost.macs, cost.uncounted) == (expected, ())
    assert model.get_layer("conv1").output.shape == (None, None, None, 4)  # unchanged


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 1), (32, 40, 3)])
def test_sizes_that_the_model_does_not_take(shape: tuple[int, ...]) -> None:
    model = keras.Sequential([keras.Input((40, None, 3)), layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match=r"input_shape=.*inputs of shape \[\(40, None, 3\)\]"):
        model_cost(model, input_shape=shape)


def test_attention_and_recurrent_layers_are_returned_uncounted() -> None:
    inputs = keras.Input((6, 4))
    x = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    cost = model_cost(keras.Model(inputs, layers.LSTM(3, name="lstm")(x)))
    assert {layer.name for layer in cost.uncounted} == {"attention", "lstm"}
