"""The functional model: endpoints and their shapes, feature extraction, freezing, the outputs."""

import json
import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import tiny_module, tiny_spec
from numpy.testing import assert_allclose, assert_array_equal

from keras_inception import endpoints, feature_extractor, freeze_until, inference_model
from keras_inception.network.build import build_network
from keras_inception.spec.network import ConvSpec, PoolSpec, StageSpec
from keras_inception.spec.variants import VARIANTS

# Table 1: grid, then filters of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
TABLE_1 = {
    "3a": (28, 64, 96, 128, 16, 32, 32),
    "3b": (28, 128, 128, 192, 32, 96, 64),
    "4a": (14, 192, 96, 208, 16, 48, 64),
    "4b": (14, 160, 112, 224, 24, 64, 64),
    "4c": (14, 128, 128, 256, 24, 64, 64),
    "4d": (14, 112, 144, 288, 32, 64, 64),
    "4e": (14, 256, 160, 320, 32, 128, 128),
    "5a": (7, 256, 160, 320, 32, 128, 128),
    "5b": (7, 384, 192, 384, 48, 128, 128),
}
BRANCHES = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
# Table 1's column "output size", and the endpoints between its rows.
OTHERS = {
    "conv1": (112, 112, 64),
    "pool1": (56, 56, 64),
    "norm1": (56, 56, 64),
    "conv2_reduce": (56, 56, 64),
    "conv2": (56, 56, 192),
    "norm2": (56, 56, 192),
    "pool2": (28, 28, 192),
    "3a_pool": (28, 28, 192),
    "3a": (28, 28, 256),
    "3b_pool": (28, 28, 256),
    "3b": (28, 28, 480),
    "pool3": (14, 14, 480),
    "4a_pool": (14, 14, 480),
    "4a": (14, 14, 512),
    "4b_pool": (14, 14, 512),
    "4b": (14, 14, 512),
    "4c_pool": (14, 14, 512),
    "4c": (14, 14, 512),
    "4d_pool": (14, 14, 512),
    "4d": (14, 14, 528),
    "4e_pool": (14, 14, 528),
    "4e": (14, 14, 832),
    "pool4": (7, 7, 832),
    "5a_pool": (7, 7, 832),
    "5a": (7, 7, 832),
    "5b_pool": (7, 7, 832),
    "5b": (7, 7, 1024),
    "avg_pool": (1024,),
    "predictions": (1000,),
    "aux_1_pool": (4, 4, 512),
    "aux_1_proj": (4, 4, 128),
    "aux_1_dense": (1024,),
    "aux_1": (1000,),
    "aux_2_pool": (4, 4, 528),
    "aux_2_proj": (4, 4, 128),
    "aux_2_dense": (1024,),
    "aux_2": (1000,),
}


@pytest.fixture(scope="module")
def paper():
    return build_network(VARIANTS["paper"], auxiliary=True)


def images(count=2, size=32):
    return np.random.default_rng(0).uniform(-1, 1, (count, size, size, 3)).astype("float32")


def predict(model, x):
    return keras.tree.map_structure(np.asarray, model(x, training=False))


# --- the paper's network ------------------------------------------------------------------------


def test_every_endpoint_of_the_paper_and_its_shape(paper):
    expected = dict(OTHERS)
    for module, (grid, *filters) in TABLE_1.items():
        for branch, width in zip(BRANCHES, filters, strict=True):
            expected[f"{module}_{branch}"] = (grid, grid, width)
    assert {name: paper.get_layer(name).output.shape[1:] for name in endpoints(paper)} == expected


def test_parameters_of_the_paper(paper):
    assert paper.count_params() == 13_378_280
    assert inference_model(paper).count_params() == 6_998_552


def test_layer_names_have_no_slash(paper):
    assert not [layer.name for layer in paper.layers if "/" in layer.name]


# Each module under the names of the paper, TF-Slim, torchvision and Caffe.
MODULE_NAMES = (
    ("3a", "Mixed_3b", "inception3a", "inception_3a"),
    ("3b", "Mixed_3c", "inception3b", "inception_3b"),
    ("4a", "Mixed_4b", "inception4a", "inception_4a"),
    ("4b", "Mixed_4c", "inception4b", "inception_4b"),
    ("4c", "Mixed_4d", "inception4c", "inception_4c"),
    ("4d", "Mixed_4e", "inception4d", "inception_4d"),
    ("4e", "Mixed_4f", "inception4e", "inception_4e"),
    ("5a", "Mixed_5b", "inception5a", "inception_5a"),
    ("5b", "Mixed_5c", "inception5b", "inception_5b"),
)
OTHER_NAMES = (
    ("conv1", "Conv2d_1a_7x7"),
    ("pool1", "MaxPool_2a_3x3", "maxpool1"),
    ("conv2_reduce", "Conv2d_2b_1x1"),
    ("conv2", "Conv2d_2c_3x3", "conv3"),
    ("pool2", "MaxPool_3a_3x3", "maxpool2"),
    ("pool3", "MaxPool_4a_3x3", "maxpool3"),
    ("pool4", "MaxPool_5a_2x2", "maxpool4"),
    ("avg_pool", "AvgPool_0a_7x7", "avgpool"),
    ("predictions_logits", "Logits", "fc"),
    ("predictions", "Predictions"),
)


@pytest.mark.parametrize("names", MODULE_NAMES + OTHER_NAMES, ids=lambda names: names[0])
def test_every_name_of_an_endpoint_gives_the_same_tensor(paper, names):
    extracted = feature_extractor(paper, names).output
    assert tuple(extracted) == names
    assert all(tensor is paper.get_layer(names[0]).output for tensor in extracted.values())


# --- feature extraction -------------------------------------------------------------------------


def test_concatenated_branches_equal_the_module():
    model = build_network(tiny_spec(norm="lrn"))
    branches = ("3a_1x1", "3a_3x3", "3a_5x5", "3a_pool_proj")
    features = predict(feature_extractor(model, ["inception3a", *branches]), images())
    joined = np.concatenate([features[name] for name in branches], axis=-1)
    assert joined.shape == (2, 8, 8, 2 + 3 + 4 + 2)
    assert_array_equal(features["inception3a"], joined)


def test_extractor_shares_the_weights_of_its_model():
    model = build_network(tiny_spec())
    extractor = feature_extractor(model, ["conv1"])
    model.get_layer("conv1_conv").set_weights([np.zeros((7, 7, 3, 4)), np.arange(4.0)])
    expected = np.broadcast_to(np.arange(4.0), (2, 16, 16, 4))
    assert_array_equal(predict(extractor, images())["conv1"], expected)


def test_extractor_of_a_loaded_model(tmp_path):
    model = build_network(tiny_spec(norm="lrn"))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    names = ["4a", "3b_5x5_reduce"]
    before, after = (predict(feature_extractor(m, names), images()) for m in (model, loaded))
    for name in names:
        assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-6)


def test_unknown_endpoint_lists_what_exists():
    with pytest.raises(ValueError, match=r"conv1, .*3a_3x3, .*predictions.*Received: 'Mixed_9z'"):
        feature_extractor(build_network(tiny_spec()), ["3a", "Mixed_9z"])


@pytest.mark.parametrize("names", ["3a", []])
def test_endpoints_must_be_a_list(names):
    with pytest.raises(ValueError, match=r"Expected a list of endpoints.*Received: names="):
        feature_extractor(build_network(tiny_spec()), names)


def test_a_stem_unit_may_be_named_like_an_inner_layer():
    stem = (ConvSpec(name="first_conv", filters=4, kernel_size=3, stride=8),)
    model = build_network(replace(tiny_spec(norm="bn"), stem=stem))
    assert endpoints(model)[0] == "first_conv"
    assert not [name for name in endpoints(model) if name.endswith(("_bn", "_conv_conv"))]


# --- freezing -----------------------------------------------------------------------------------

CONVOLUTIONS = {
    "conv1": ["conv1"],
    "conv2_reduce": ["conv2_reduce"],
    "conv2": ["conv2"],
    "3a": ["3a_1x1", "3a_3x3_reduce", "3a_3x3", "3a_5x5_reduce", "3a_5x5", "3a_pool_proj"],
    "3b": ["3b_1x1", "3b_3x3_reduce", "3b_3x3", "3b_5x5_reduce", "3b_5x5", "3b_pool_proj"],
    "4a": ["4a_1x1", "4a_3x3_reduce", "4a_3x3", "4a_5x5_reduce", "4a_5x5", "4a_pool_proj"],
}


def layers_of(*parts):
    names = [name for part in parts for name in CONVOLUTIONS[part]]
    return {f"{name}_{kind}" for name in names for kind in ("conv", "bn")} | {"predictions_logits"}


def trainable(model):
    return {layer.name for layer in model.layers if layer.trainable_weights}


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("3b", layers_of("3b", "4a")),
        ("Mixed_3c", layers_of("3b", "4a")),
        ("pool3", layers_of("4a")),
        ("conv2", layers_of("conv2", "3a", "3b", "4a")),
        ("conv1", layers_of("conv1", "conv2_reduce", "conv2", "3a", "3b", "4a")),
        ("predictions", {"predictions_logits"}),
        # In 4a, only the inputs of the branch are below it.
        ("4a_3x3", layers_of("4a") - {"4a_3x3_reduce_conv", "4a_3x3_reduce_bn"}),
    ],
)
def test_freeze_until_leaves_exactly_these_layers_trainable(endpoint, expected):
    model = build_network(tiny_spec(norm="bn"))
    freeze_until(model, endpoint)
    assert trainable(model) == expected


def test_freeze_until_unfreezes_the_layers_above():
    model = build_network(tiny_spec(norm="bn"))
    freeze_until(model, "predictions")
    freeze_until(model, "4a")
    assert trainable(model) == layers_of("4a")
    model.trainable = False
    freeze_until(model, "pool3")
    assert trainable(model) == layers_of("4a")
    assert len(model.trainable_weights) == 6 * 3 + 2  # kernel, gamma, beta; kernel, bias


def test_freeze_until_a_module_of_one_branch():
    only_1x1 = replace(tiny_module("3b", kernels=()), filters_pool_proj=0)
    stage = StageSpec(name="3", downsample=None, modules=(tiny_module("3a"), only_1x1))
    model = build_network(replace(tiny_spec(), stages=(stage,)))
    freeze_until(model, "3b")
    assert trainable(model) == {"3b_1x1_conv", "predictions_logits"}


def test_auxiliary_classifiers_above_the_frozen_part_are_trainable():
    model = build_network(tiny_spec(aux=True), auxiliary=True)
    freeze_until(model, "3b")
    heads = {"proj_conv", "dense", "logits"}
    assert {name for name in trainable(model) if name.startswith("aux_")} == {
        f"aux_{number}_{layer}" for number in (1, 2) for layer in heads
    }


def test_frozen_batch_normalization_runs_in_inference_mode():
    model = build_network(tiny_spec(norm="bn"))
    freeze_until(model, "3b")
    statistics = {
        layer.name: [value.copy() for value in layer.get_weights()[2:]]
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    below = feature_extractor(model, ["3a"])
    x = images(8) * 5 + 3
    assert_array_equal(np.asarray(below(x, training=True)["3a"]), predict(below, x)["3a"])
    model.compile(loss="sparse_categorical_crossentropy")
    model.fit(x, np.arange(8) % 5, batch_size=8, verbose=0)
    moved = {
        name
        for name, before in statistics.items()
        if any(
            (new != old).any()
            for new, old in zip(model.get_layer(name).get_weights()[2:], before, strict=True)
        )
    }
    assert moved == {name for name in layers_of("3b", "4a") if name.endswith("_bn")}


def test_freeze_until_an_unknown_endpoint():
    with pytest.raises(ValueError, match="Received: '4z'"):
        freeze_until(build_network(tiny_spec()), "4z")


# --- outputs and arguments ----------------------------------------------------------------------


def test_inference_model_is_the_main_output():
    model = build_network(tiny_spec(aux=True), auxiliary=True)
    outputs = predict(model, images())
    assert {name: output.shape for name, output in outputs.items()} == {
        "main": (2, 5),
        "aux_1": (2, 5),
        "aux_2": (2, 5),
    }
    deployed = inference_model(model)
    assert_array_equal(predict(deployed, images()), outputs["main"])
    assert not [layer.name for layer in deployed.layers if layer.name.startswith("aux")]
    assert inference_model(deployed) is deployed


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"], indirect=True)
def test_classifiers_are_float32_under_half_precision(policy):
    model = build_network(tiny_spec(norm="lrn", aux=True), auxiliary=True)
    half = policy.removeprefix("mixed_")
    assert model.get_layer("norm1").compute_dtype == model.get_layer("4a").compute_dtype == half
    outputs = predict(model, images())
    for scores in outputs.values():
        assert scores.dtype == "float32"
        assert_allclose(scores.sum(axis=-1), [1, 1], rtol=1e-5)  # in half precision: 1e-3
    weights = [weight.numpy() for weight in model.weights]
    keras.config.set_dtype_policy("float32")
    exact = build_network(tiny_spec(norm="lrn", aux=True), auxiliary=True)
    exact.set_weights(weights)
    expected = predict(exact, images())
    for name, scores in outputs.items():
        assert_allclose(scores, expected[name], atol=0.01)


@pytest.mark.parametrize(
    ("pooling", "reduce"), [("avg", np.mean), ("max", np.max)], ids=["avg", "max"]
)
def test_pooling_without_the_top(pooling, reduce):
    model = build_network(tiny_spec(), include_top=False, pooling=pooling)
    grid = predict(feature_extractor(model, ["4a"]), images())["4a"]
    assert grid.shape == (2, 4, 4, 11)
    assert_allclose(predict(model, images()), reduce(grid, axis=(1, 2)), rtol=1e-5)


def test_without_the_top_any_size():
    model = build_network(tiny_spec(size=None), include_top=False)
    # conv1, pool1, pool3: 8 -> 4, 2, 1; 14 -> 7, 3, 1; 15 -> 8, 4, 2; 33 -> 17, 8, 4;
    # 40 -> 20, 10, 5.
    for size, grid in ((8, 1), (14, 1), (15, 2), (33, 4), (40, 5)):
        assert predict(model, images(1, size)).shape == (1, grid, grid, 11)


def test_logits_are_what_softmax_takes():
    model = build_network(tiny_spec(), classifier_activation=None)
    softmax = build_network(tiny_spec())
    softmax.set_weights(model.get_weights())
    powers = np.exp(predict(model, images()))
    assert_allclose(predict(softmax, images()), powers / powers.sum(-1, keepdims=True), rtol=1e-5)


def test_name_defaults_to_the_specs():
    assert build_network(tiny_spec()).name == "tiny_for_tests"
    assert build_network(tiny_spec(), name="mine").name == "mine"


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        (tiny_spec(), {"pooling": "sum"}, r"Received: pooling='sum'"),
        (tiny_spec(), {"pooling": "avg"}, r"include_top=False.*Received: include_top=True"),
        (
            tiny_spec(aux=True),
            {"auxiliary": True, "include_top": False},
            r"auxiliary=True only.*Received: include_top=False",
        ),
        (tiny_spec(), {"auxiliary": True}, r"Received: 'tiny_for_tests'.*auxiliary=False"),
        (tiny_spec(size=6), {}, r"at least 7x7 .*Received: input_shape=\(6, 6, 3\)"),
        (tiny_spec(size=16, aux=True), {"auxiliary": True}, r"at least 5x5.*Received: 4x4"),
        (
            tiny_spec(size=None, aux=True),
            {"auxiliary": True},
            r"fixed input size.*\(None, None, 3\)",
        ),
    ],
)
def test_arguments_that_exclude_each_other(spec, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_network(spec, **arguments)


# --- Names of other sources ---

# Per source, as `get_graph_node_names` of torchvision and the scopes of TF-Slim print them.
FULL_NAMES = {
    "inception4a.branch1": "4a_1x1",
    "inception4a.branch2.0.conv": "4a_3x3_reduce_conv",
    "inception4a.branch2.1": "4a_3x3",
    "inception4a.branch2.1.bn": "4a_3x3_bn",
    "inception4a.branch3.0.relu": "4a_3x3_b_reduce",
    "inception4a.branch3.1.relu": "4a_3x3_b",
    "inception4a.branch4.0": "4a_pool",
    "inception4a.branch4.1": "4a_pool_proj",
    "inception4a.branch4": "4a_pool_proj",
    "inception4a.cat": "4a",
    "conv1.relu": "conv1",
    "conv2.conv": "conv2_reduce_conv",
    "conv2.relu": "conv2_reduce",
    "conv2": "conv2",
    "conv3.relu": "conv2",
    "flatten": "avg_pool",
    "dropout": "predictions_dropout",
    "aux1": "aux_1",
    "aux2.conv.relu": "aux_2_proj",
    "aux1.fc1": "aux_1_dense",
    "InceptionV1/Mixed_4b": "4a",
    "InceptionV1/Mixed_4b/Branch_0": "4a_1x1",
    "InceptionV1/Mixed_4b/Branch_0/Conv2d_0a_1x1": "4a_1x1",
    "InceptionV1/InceptionV1/Mixed_4b/Branch_1/Conv2d_0a_1x1/Relu": "4a_3x3_reduce",
    "InceptionV1/Mixed_4b/Branch_1": "4a_3x3",
    "InceptionV1/Mixed_4b/Branch_1/Conv2d_0b_3x3": "4a_3x3",
    "Mixed_5b/Branch_2/Conv2d_0a_3x3": "5a_3x3_b",  # the one odd scope
    "Mixed_4b/Branch_3/MaxPool_0a_3x3": "4a_pool",
    "InceptionV1/Mixed_4b/Branch_3": "4a_pool_proj",
    "InceptionV1/Conv2d_2b_1x1": "conv2_reduce",
    "InceptionV1/Mixed_4b/concat:0": "4a",
    "InceptionV1/InceptionV1/Mixed_4b/Branch_1/Conv2d_0b_3x3/Conv2D": "4a_3x3_conv",
    "InceptionV1/InceptionV1/Mixed_4b/Branch_1/Conv2d_0b_3x3/BatchNorm/FusedBatchNorm": "4a_3x3_bn",
    "InceptionV1/InceptionV1/Mixed_4b/Branch_3/MaxPool_0a_3x3/MaxPool:0": "4a_pool",
    "InceptionV1/InceptionV1/MaxPool_2a_3x3/MaxPool": "pool1",
    "InceptionV1/Logits/AvgPool_0a_7x7/AvgPool": "avg_pool",
    "global_pool": "avg_pool",
    "InceptionV1/Logits/Dropout_0b": "predictions_dropout",
    "InceptionV1/Logits/Conv2d_0c_1x1/BiasAdd": "predictions_logits",
    "InceptionV1/Logits/SpatialSqueeze": "predictions_logits",
    "InceptionV1/Logits/Predictions/Reshape_1": "predictions",
}


def test_full_names_of_torchvision_and_slim():
    model = build_network(VARIANTS["torchvision"], auxiliary=True)
    found = feature_extractor(model, list(FULL_NAMES))
    for name, own in FULL_NAMES.items():
        assert found.output[name] is model.get_layer(own).output, name


def test_the_branch_of_5x5_has_another_name():
    model = build_network(tiny_spec())
    names = ["inception3a.branch3.0", "Mixed_3b/Branch_2"]
    found = feature_extractor(model, names).output
    expected = [model.get_layer(name).output for name in ("3a_5x5_reduce", "3a_5x5")]
    assert [found[name] for name in names] == expected
    one_kernel = build_network(tiny_spec(kernels=(3,)))
    with pytest.raises(ValueError, match=r"Received: 'inception3a.branch3'"):
        feature_extractor(one_kernel, ["inception3a.branch3"])


# --- Unknown sizes ---


@pytest.mark.parametrize("inside", [False, True])
def test_networks_of_unknown_size_are_saved_in_every_format_of_keras(tmp_path, inside):
    """With BVLC's pixels inside too, for which channels are reversed."""
    spec = replace(tiny_spec(size=None), pixels="caffe")
    model = build_network(spec, include_top=False, pooling="avg", include_preprocessing=inside)
    pixels = np.random.default_rng(0).normal(size=(2, 40, 43, 3))
    expected = predict(model, pixels)
    text = model.to_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    rebuilt = keras.models.model_from_json(text)
    rebuilt.set_weights(model.get_weights())
    assert_array_equal(predict(rebuilt, pixels), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls the format legacy
        model.save(tmp_path / "model.h5")
    loaded = keras.saving.load_model(tmp_path / "model.h5", compile=False)
    assert_array_equal(predict(loaded, pixels), expected)


def test_padding_before_the_first_activation_never_wins_the_maximum():
    pool = PoolSpec(name="pool1", padding="ceil")
    spec = replace(tiny_spec(size=None), stem=(pool, *tiny_spec().stem[2:]))
    model = build_network(spec, include_top=False)
    pooled = keras.Model(model.input, model.get_layer("pool1").output)
    pixels = -1 - np.random.default_rng(0).random((1, 8, 8, 3))
    assert predict(pooled, pixels).max() <= -1
