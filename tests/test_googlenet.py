"""`GoogLeNet(...)`: signature of keras.applications, shapes, weight files, refused arguments."""

import inspect
import subprocess
import sys
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from numpy.testing import assert_allclose, assert_array_equal

from keras_inception import GoogLeNet, model_preprocessing
from keras_inception.network.build import build_network
from keras_inception.spec.variants import VARIANTS

TINY = tiny_spec(norm="lrn")


def images(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape or (2, 32, 32, 3)).astype("float32")


def predict(model, x):
    return np.asarray(model(x, training=False))


def run_python(code, *arguments):
    """Return what a new interpreter prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# --- signature ----------------------------------------------------------------------------------


def test_signature_is_that_of_keras_applications():
    ours = list(inspect.signature(GoogLeNet).parameters.values())
    theirs = list(inspect.signature(keras.applications.VGG16).parameters.values())
    defaults = {p.name: p.default for p in theirs[:7]}
    assert defaults["classes"] == 1000
    # The number of the variant: 1000, or what its own images have.
    assert [(p.name, p.default) for p in ours[:7]] == list((defaults | {"classes": None}).items())
    assert (ours[7].name, theirs[7].name) == ("name", "name")
    assert ours[7].default == "googlenet"
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in ours[:8])
    assert [(p.name, p.kind) for p in ours[8:]] == [
        (name, inspect.Parameter.KEYWORD_ONLY)
        for name in ("variant", "spec", "auxiliary", "include_preprocessing")
    ]


def test_the_default_network_is_the_papers():
    model = GoogLeNet(weights=None)
    assert model.name == "googlenet"
    assert model.count_params() == 6_998_552
    assert (model.input_shape, model.output_shape) == ((None, 224, 224, 3), (None, 1000))
    assert model_preprocessing(model) == "caffe"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_builds_with_its_own_classes_and_input(variant):
    model = GoogLeNet(weights=None, variant=variant)
    small = variant in ("medium", "small", "tiny", "nano", "nano_96")
    classes = 10 if small else {"inception5h": 1008}.get(variant, 1000)
    assert model.output_shape == (None, classes)
    shape = {"nano_96": (96, 96, 3)}.get(variant, (28, 28, 1) if small else (224, 224, 3))
    assert model.input_shape == (None, *shape)


def test_classes_and_name():
    model = GoogLeNet(weights=None, variant="nano", classes=7, name="mine")
    assert (model.name, model.output_shape) == ("mine", (None, 7))


def test_without_the_top_any_size_and_both_poolings():
    grid = GoogLeNet(include_top=False, weights=None, spec=TINY)
    assert grid.input_shape == (None, None, None, 3)
    features = predict(grid, images(1, 40, 24, 3))
    assert features.shape == (1, 5, 3, 11)
    for pooling, reduce in (("avg", np.mean), ("max", np.max)):
        pooled = GoogLeNet(include_top=False, weights=None, pooling=pooling, spec=TINY)
        pooled.set_weights(grid.get_weights())
        expected = reduce(features, axis=(1, 2))
        assert_allclose(predict(pooled, images(1, 40, 24, 3)), expected, rtol=1e-5)


# conv1 halves and rounds up, pools of 3 by 2 leave ceil((n - 3) / 2) + 1, torchvision's last one of
# 2 by 2 ceil(n / 2). Paper: 31, 16, 8, 4, 2, 1. torchvision: 15, 8, 4, 2, 1, 1. Pools that round
# down leave floor((n - 3) / 2) + 1: 61, 31, 15, 7, 3, 1.
@pytest.mark.parametrize(
    ("variant", "size"), [("paper", 31), ("torchvision", 15), ("paper_floor", 61)]
)
def test_the_smallest_inputs(variant, size):
    build = partial(GoogLeNet, include_top=False, weights=None, variant=variant)
    model = build(input_shape=(size, size, 3))
    assert predict(model, images(1, size, size, 3)).shape == (1, 1, 1, 1024)
    with pytest.raises(ValueError, match=rf"at least {size}x{size} .*Received: input_shape="):
        build(input_shape=(size - 1, 80, 3))


def test_padded_pools_take_any_size():
    """TF-Slim's and inception5h's convolutions and pools are all "same"."""
    for variant in ("slim", "inception5h"):
        model = GoogLeNet(False, None, variant=variant, input_shape=(None, None, 3))
        assert predict(model, images(1, 15, 1, 3)).shape == (1, 1, 1, 1024)


def test_the_top_takes_images_of_any_size():
    fixed = GoogLeNet(weights=None, spec=tiny_spec(), input_shape=(40, 48, 3))
    open_size = GoogLeNet(weights=None, spec=tiny_spec(), input_shape=(None, None, 3))
    open_size.set_weights(fixed.get_weights())
    pixels = images(2, 40, 48, 3)
    assert_allclose(predict(open_size, pixels), predict(fixed, pixels), rtol=1e-5)


def test_default_classes_are_the_spec_s_and_a_given_number_counts():
    sizes = [GoogLeNet(weights=None, variant="nano").output_shape[-1]]
    sizes += [
        GoogLeNet(weights=None, variant="nano", classes=n).output_shape[-1] for n in (1000, 3)
    ]
    assert sizes == [10, 1000, 3]


def test_a_layer_of_the_user_s_with_keras_s_own_name_does_not_clash():
    keras.utils.clear_session(free_memory=False)
    model = GoogLeNet(weights=None, spec=tiny_spec())
    x = keras.layers.Dropout(0.5)(model.get_layer("avg_pool").output)
    assert x is not None
    both = keras.Model(model.input, [model.output, x])
    assert len({layer.name for layer in both.layers}) == len(both.layers)


def test_input_shape_channels_first(channels_first):
    model = GoogLeNet(weights=None, input_shape=(1, 32, 40), spec=TINY)
    assert model.input_shape == (None, 1, 32, 40)
    assert model.get_layer("3a").output.shape == (None, 11, 8, 10)
    features = GoogLeNet(include_top=False, weights=None, spec=TINY)
    assert features.input_shape == (None, 3, None, None)


def test_auxiliary_outputs_are_a_dict_of_classifiers():
    model = GoogLeNet(weights=None, spec=tiny_spec(aux=True), auxiliary=True, classes=4)
    assert {name: tensor.shape for name, tensor in model.output.items()} == {
        "main": (None, 4),
        "aux_1": (None, 4),
        "aux_2": (None, 4),
    }
    logits = GoogLeNet(
        weights=None, spec=tiny_spec(aux=True), auxiliary=True, classifier_activation=None
    )
    assert all(
        logits.get_layer(name).activation.__name__ == "linear" for name in ("aux_1", "predictions")
    )


# --- input tensors ------------------------------------------------------------------------------


def test_input_tensor_gives_the_shape():
    inputs = keras.Input((24, 40, 2), name="mine")
    model = GoogLeNet(weights=None, input_tensor=inputs, spec=TINY)
    assert model.input is inputs
    assert model.get_layer("3a").output.shape == (None, 6, 10, 11)


def test_a_layers_output_as_input_tensor():
    inputs = keras.Input((32, 32, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    model = GoogLeNet(weights=None, input_tensor=scaled, spec=TINY)
    assert model.input is inputs
    plain = build_network(TINY)
    plain.set_weights(model.get_weights())
    x = images() * 100
    assert_allclose(predict(model, x), predict(plain, x / 127.5 - 1), rtol=1e-5)
    with pytest.raises(ValueError, match="Expected an input named"):
        model_preprocessing(model)


# --- weight files -------------------------------------------------------------------------------


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_from_a_file(tmp_path, suffix, as_text):
    path = tmp_path / f"tiny{suffix}"
    saved = GoogLeNet(weights=None, spec=TINY)
    saved.save(path) if suffix == ".keras" else saved.save_weights(path)
    loaded = GoogLeNet(weights=str(path) if as_text else path, spec=TINY)
    for old, new in zip(saved.get_weights(), loaded.get_weights(), strict=True):
        assert_array_equal(new, old)


def test_the_file_of_a_classifier_loads_without_the_top(tmp_path):
    saved = GoogLeNet(weights=None, spec=TINY)
    saved.save_weights(tmp_path / "tiny.weights.h5")
    loaded = GoogLeNet(include_top=False, weights=tmp_path / "tiny.weights.h5", spec=TINY)
    names = [layer.name for layer in loaded.layers if layer.weights]
    assert len(names) == 2 + 1 + 3 * 6
    for name in names:
        for old, new in zip(
            saved.get_layer(name).get_weights(), loaded.get_layer(name).get_weights(), strict=True
        ):
            assert_array_equal(new, old)


FOREIGN = {
    "classes": (tiny_spec(classes=6), False),
    "widths": (tiny_spec(naive=True), False),
    "kernels": (tiny_spec(kernels=(3, 3)), False),
    "batch normalization": (tiny_spec(norm="bn"), False),
    "auxiliary": (tiny_spec(aux=True), True),
}


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("difference", FOREIGN)
def test_the_weights_of_another_network(tmp_path, difference, suffix):
    spec, auxiliary = FOREIGN[difference]
    path = tmp_path / f"other{suffix}"
    other = build_network(spec, auxiliary=auxiliary)
    other.save(path) if suffix == ".keras" else other.save_weights(path)
    with pytest.raises(
        ValueError, match=r"(?s)Expected the weights of 'googlenet'.*Received: '.*other.*Give the"
    ):
        GoogLeNet(weights=path, spec=tiny_spec())


@pytest.mark.parametrize("name", ["broken.weights.h5", "broken.keras"])
def test_a_file_without_weights(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(ValueError, match=rf"Expected a `\.weights\.h5` or `\.keras`.*{name}"):
        GoogLeNet(weights=tmp_path / name, spec=TINY)


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"Expected a file of weights.*none\.keras'.*not there"):
        GoogLeNet(weights=tmp_path / "none.keras", spec=TINY)


@pytest.mark.parametrize("name", ["ImageNet", "model.h5", "model.txt"])
def test_a_file_of_another_kind(tmp_path, name):
    with pytest.raises(ValueError, match=rf"Expected a file of weights.*{name}.*not there"):
        GoogLeNet(weights=tmp_path / name, spec=TINY)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"`?\.weights\.h5 or \.keras.*Received: '.*{name}"):
        GoogLeNet(weights=tmp_path / name, spec=TINY)


def test_lrn_models_load_after_importing_the_package(tmp_path):
    model = GoogLeNet(weights=None, spec=TINY)
    model.save(tmp_path / "lrn.keras")
    np.save(tmp_path / "x.npy", images())
    code = (
        "import sys, keras, numpy as np, keras_inception\n"
        "model = keras.models.load_model(sys.argv[1] + '/lrn.keras')\n"
        "y = model(np.load(sys.argv[1] + '/x.npy'), training=False)\n"
        "np.save(sys.argv[1] + '/y.npy', y)"
    )
    run_python(code, tmp_path)
    assert_allclose(np.load(tmp_path / "y.npy"), predict(model, images()), rtol=1e-5)


# --- refusals -----------------------------------------------------------------------------------

REFUSALS = {
    "variant": ({"variant": "v3"}, r"a variant among paper, .*Received: 'v3'"),
    "variant and spec": (
        {"variant": "bn", "spec": TINY},
        r"not both\. Received: variant='bn', spec='tiny_for_tests'\. Leave one out",
    ),
    "variant by position": (
        {"include_top": "bn"},
        r"True or False\. Received: 'bn'\. Name a variant by `variant`",
    ),
    "no spec": ({"spec": "tiny"}, r"to be a NetworkSpec .*Received: str"),
    "classes": ({"classes": 0, "spec": TINY}, r"`classes`.*Received: classes=0"),
    "small": ({"input_shape": (28, 28, 3)}, r"at least 31x31 pixels.*\(28, 28, 3\).*small"),
    "two numbers": ({"input_shape": (32, 32)}, r"three numbers.*Received: input_shape=\(32, 32\)"),
    "one number": ({"input_shape": 32}, r"three numbers.*Received: input_shape=32"),
    "open size": (
        {"input_shape": (None, None, 3), "auxiliary": True},
        r"a fixed input size for the auxiliary",
    ),
    "pooling": ({"pooling": "avg"}, r"include_top=False.*pooling='avg'"),
    "array": ({"input_tensor": images()}, r"Keras tensor.*Received: ndarray"),
    "two shapes": (
        {"input_tensor": keras.Input((32, 32, 3)), "input_shape": (40, 40, 3)},
        r"agree\. Received: input_shape=\(40, 40, 3\), input_tensor of shape \(32, 32, 3\)",
    ),
    "auxiliary grid": (
        {"input_shape": (64, 64, 3), "auxiliary": True},
        r"at least 5x5 under 'aux_1'\. Received: 4x4 after '4a'\. Use a larger input_shape",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_wrong_arguments(case):
    arguments, message = REFUSALS[case]
    with pytest.raises(ValueError, match=message):
        GoogLeNet(weights=None, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "bn"}, r"paper, slim, torchvision.*variant='bn'.*Use weights=None"),
        ({"spec": TINY}, r"variants only\. Received: .*spec='tiny_for_tests'"),
        ({"classes": 10}, r"classes among \[1000\] .*Received: classes=10\. Use include_top=False"),
        ({"input_shape": (224, 224, 1)}, r"3 channels.*\(224, 224, 1\).*Use weights=None"),
        (
            {"input_shape": (256, 256, 3), "auxiliary": True},
            r"224 x 224.*\(256, 256, 3\).*Use auxiliary=False",
        ),
    ],
)
def test_imagenet_weights_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GoogLeNet(**arguments)


# --- side effects -------------------------------------------------------------------------------


def test_importing_and_building_change_no_global_state():
    code = """
import random, numpy as np, keras
def state():
    config = keras.config
    return (config.floatx(), config.epsilon(), config.image_data_format(),
            config.dtype_policy().name, config.is_traceback_filtering_enabled(),
            config.is_interactive_logging_enabled(), keras.backend.backend(),
            np.geterr(), np.get_printoptions())
def draws():
    return random.random(), np.random.rand(), float(keras.random.uniform(()))
keras.config.set_epsilon(1e-5)
keras.utils.set_random_seed(3)
expected, before = draws(), state()
keras.utils.set_random_seed(3)
import keras_inception
assert draws() == expected, 'random state'
assert state() == before, (state(), before)
keras_inception.GoogLeNet(weights=None, variant='nano', input_shape=(32, 32, 3))
assert state() == before, (state(), before)
print('untouched')
"""
    assert run_python(code).strip() == "untouched"


def test_the_given_spec_is_unchanged():
    spec = replace(TINY)
    GoogLeNet(weights=None, spec=spec, classes=9, input_shape=(40, 40, 1))
    assert spec == tiny_spec(norm="lrn")
