"""Convolutions, pools, modules and classifiers against NumPy and hand-computed values."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import reference
from conftest import tiny_module, tiny_spec
from numpy.testing import assert_allclose, assert_array_equal

from keras_inception.network import blocks
from keras_inception.spec.network import AuxSpec, BatchNormSpec, ConvSpec, PoolSpec
from keras_inception.spec.variants import VARIANTS


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def model_of(block, *shape):
    """A model of one block with random weights: no bias, gamma or statistic is a constant."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, block(inputs))
    generator = np.random.default_rng(1)
    for weight in model.weights:
        positive = weight.name in ("gamma", "moving_variance")
        low, high = (0.5, 1.5) if positive else (-1.0, 1.0)
        weight.assign(generator.uniform(low, high, weight.shape))
    return model


def predict(model, image):
    return np.asarray(model(image[None], training=False))[0]


def unit(model, name, x):
    """Compute a convolution unit in NumPy from the weights of the model's layers."""
    weights = model.get_layer(f"{name}_conv").get_weights()
    y = reference.convolution(x, *weights)
    if not any(layer.name == f"{name}_bn" for layer in model.layers):
        return reference.relu(y)
    gamma, beta, mean, variance = model.get_layer(f"{name}_bn").get_weights()
    return reference.relu((y - mean) / np.sqrt(variance + 1e-3) * gamma + beta)


# --- convolutions -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 9])
def test_symmetric_padding_is_three_on_both_sides(size):
    conv1 = ConvSpec(name="conv1", filters=3, kernel_size=7, stride=2, padding="symmetric")
    model = model_of(lambda x: blocks.stem(x, replace(tiny_spec(), stem=(conv1,))), size, 10, 2)
    x = random(size, 10, 2)
    kernel, bias = model.get_layer("conv1_conv").get_weights()
    expected = reference.relu(reference.convolution(x, kernel, bias, stride=2, padding=3))
    assert_allclose(predict(model, x), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape[0] == conv1.output_size(size)


def test_same_padding_of_a_strided_convolution_starts_one_pixel_later():
    # TensorFlow pads an even size by (2, 3), which shifts the windows of padding 3 by one pixel.
    conv1 = ConvSpec(name="conv1", filters=3, kernel_size=7, stride=2, padding="same")
    model = model_of(lambda x: blocks.stem(x, replace(tiny_spec(), stem=(conv1,))), 8, 8, 2)
    x = random(8, 8, 2)
    kernel, bias = model.get_layer("conv1_conv").get_weights()
    expected = reference.relu(reference.convolution(x, kernel, bias, padding=3)[1::2, 1::2])
    assert_allclose(predict(model, x), expected, rtol=1e-4, atol=1e-5)


def test_batch_normalization_replaces_the_bias():
    spec = replace(tiny_spec(), batch_norm=BatchNormSpec(scale=False, momentum=0.7, epsilon=0.01))
    model = model_of(lambda x: blocks.conv_unit(x, spec, "unit", filters=3, kernel_size=3), 6, 6, 2)
    assert [layer.name for layer in model.layers[1:]] == ["unit_conv", "unit_bn", "unit"]
    (kernel,) = model.get_layer("unit_conv").get_weights()
    beta, mean, variance = model.get_layer("unit_bn").get_weights()
    assert model.get_layer("unit_bn").momentum == 0.7
    x = random(6, 6, 2)
    y = reference.convolution(x, kernel)
    expected = reference.relu((y - mean) / np.sqrt(variance + 0.01) + beta)
    assert_allclose(predict(model, x), expected, rtol=1e-4, atol=1e-5)


def test_caffes_initializer_and_bias():
    spec = replace(tiny_spec(), initializer="caffe_xavier", bias_initial_value=0.2)
    inputs = keras.Input((4, 4, 12))
    model = keras.Model(inputs, blocks.conv_unit(inputs, spec, "unit", filters=64, kernel_size=3))
    kernel, bias = model.get_layer("unit_conv").get_weights()
    limit = (3 / (12 * 9)) ** 0.5
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert_allclose(kernel.std(), limit / 3**0.5, rtol=0.03)  # of a uniform distribution
    assert_array_equal(bias, np.full(64, 0.2, "float32"))


def test_he_initializer():
    inputs = keras.Input((4, 4, 12))
    model = keras.Model(
        inputs, blocks.conv_unit(inputs, tiny_spec(), "unit", filters=64, kernel_size=3)
    )
    kernel, bias = model.get_layer("unit_conv").get_weights()
    assert_allclose(kernel.std(), (2 / (12 * 9)) ** 0.5, rtol=0.03)
    assert not bias.any()


# --- pools --------------------------------------------------------------------------------------

# Output sizes for inputs of 5 ... 16, counted by hand.
CEIL_SIZES = {
    3: (2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8),
    2: (3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8),
}
SAME_SIZES = (3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("pool_size", [2, 3])
def test_ceil_pool(pool_size, known):
    """Windows start at 0, 2, 4, ...; positions beyond the edge count as missing, not as zero."""
    pool = PoolSpec(name="pool", size=pool_size, padding="ceil")
    unknown = model_of(lambda x: blocks.max_pool(x, pool), None, None, 2)
    for height, rows in zip(range(5, 17), CEIL_SIZES[pool_size], strict=True):
        width, columns = 21 - height, CEIL_SIZES[pool_size][16 - height]  # an even and an odd size
        x = random(height, width, 2) - 10  # all negative: a padded zero would be the maximum
        model = model_of(lambda x: blocks.max_pool(x, pool), *x.shape) if known else unknown
        starts = [range(0, 2 * rows, 2), range(0, 2 * columns, 2)]
        assert_array_equal(predict(model, x), reference.window_maximum(x, starts, pool_size))


def test_ceil_pool_of_one_known_side():
    pool = PoolSpec(name="pool", padding="ceil")
    model = model_of(lambda x: blocks.max_pool(x, pool), None, 8, 1)
    x = random(7, 8, 1) - 10
    assert_array_equal(predict(model, x), reference.window_maximum(x, [(0, 2, 4), (0, 2, 4, 6)], 3))


def test_ceil_pool_of_unknown_size_survives_saving(tmp_path):
    pool = PoolSpec(name="pool", padding="ceil")
    model_of(lambda x: blocks.max_pool(x, pool), None, None, 1).save(tmp_path / "pool.keras")
    loaded = keras.models.load_model(tmp_path / "pool.keras")
    x = random(8, 9, 1) - 10
    starts = [(0, 2, 4, 6), (0, 2, 4, 6)]
    assert_array_equal(predict(loaded, x), reference.window_maximum(x, starts, 3))


def test_same_pool_differs_from_ceil_for_odd_sizes():
    pool = PoolSpec(name="pool", padding="same")
    for size, outputs in zip(range(5, 17), SAME_SIZES, strict=True):
        x = random(size, size, 2) - 10
        model = model_of(lambda x: blocks.max_pool(x, pool), *x.shape)
        first = -1 if size % 2 else 0  # padding by one pixel on both sides, or only at the end
        starts = range(first, first + 2 * outputs, 2)
        assert_array_equal(predict(model, x), reference.window_maximum(x, [starts, starts], 3))


# --- modules ------------------------------------------------------------------------------------


def module_by_hand(model, x, module):
    branches = [unit(model, "3a_1x1", x)] if module.filters_1x1 else []
    for branch, name in zip(module.spatial, module.spatial_names, strict=True):
        reduced = x if branch.reduce is None else unit(model, f"3a_{name}_reduce", x)
        branches.append(unit(model, f"3a_{name}", reduced))
    if module.filters_pool_proj != 0:
        starts = [range(-1, size - 1) for size in x.shape[:2]]
        pooled = reference.window_maximum(x, starts, 3)
        projected = module.filters_pool_proj is not None
        branches.append(unit(model, "3a_pool_proj", pooled) if projected else pooled)
    return np.concatenate(branches, axis=-1)


MODULES = {
    "reduced": tiny_module(),
    "naive": tiny_module(naive=True),
    "with 7x7": tiny_module(kernels=(3, 5, 7)),
    "3x3 twice": tiny_module(kernels=(3, 3)),
    "no 1x1": replace(tiny_module(), filters_1x1=0),
    "no pool": replace(tiny_module(), filters_pool_proj=0),
    "one branch": replace(tiny_module(kernels=(3,)), filters_1x1=0, filters_pool_proj=0),
}


@pytest.mark.parametrize("norm", [None, "bn"])
@pytest.mark.parametrize("kind", MODULES)
def test_inception_module(kind, norm):
    module = MODULES[kind]
    spec = tiny_spec(norm=norm)
    model = model_of(lambda x: blocks.inception_module(x, spec, module), 7, 6, 3)
    x = (
        random(7, 6, 3) - 1
    )  # mostly negative: a padded zero at the pool's edge would be the maximum
    expected = module_by_hand(model, x, module)
    assert_allclose(predict(model, x), expected, rtol=1e-4, atol=1e-4)
    assert model.layers[-1].name == "3a"


def test_module_filters_counted_by_hand():
    inputs = keras.Input((7, 6, 3))
    widths = {
        kind: blocks.inception_module(inputs, tiny_spec(), module).shape
        for kind, module in MODULES.items()
    }
    assert widths == {
        "reduced": (None, 7, 6, 2 + 3 + 4 + 2),
        "naive": (None, 7, 6, 2 + 3 + 4 + 3),
        "with 7x7": (None, 7, 6, 2 + 3 + 4 + 5 + 2),
        "3x3 twice": (None, 7, 6, 2 + 3 + 4 + 2),
        "no 1x1": (None, 7, 6, 3 + 4 + 2),
        "no pool": (None, 7, 6, 2 + 3 + 4),
        "one branch": (None, 7, 6, 3),
    }


# --- classifiers --------------------------------------------------------------------------------


def classifier(model, name, x):
    kernel, bias = model.get_layer(name).get_weights()
    return x @ kernel + bias


def test_auxiliary_classifier_by_hand():
    aux = AuxSpec(name="aux_1", after="3a", filters=3, units=6, dropout_rate=0.6)
    spec = tiny_spec(aux=True)
    model = model_of(lambda x: blocks.auxiliary_classifier(x, spec, aux, "softmax"), 8, 11, 2)
    x = random(8, 11, 2)
    # 5x5 windows of stride 3 start at 0, 3 (height 8) and 0, 3, 6 (width 11).
    pooled = [[x[i : i + 5, j : j + 5].mean(axis=(0, 1)) for j in (0, 3, 6)] for i in (0, 3)]
    projected = unit(model, "aux_1_proj", np.array(pooled))
    hidden = reference.relu(classifier(model, "aux_1_dense", projected.ravel()))
    expected = reference.softmax(classifier(model, "aux_1_logits", hidden))
    assert_allclose(predict(model, x), expected, rtol=1e-4)
    assert model.get_layer("aux_1_dropout").rate == 0.6


WINDOWS = {
    "valid": [(0, 5), (3, 8), (6, 11), (9, 14)],  # the paper's 5x5 of stride 3
    "adaptive": [(0, 4), (3, 7), (7, 11), (10, 14)],  # torch: floor(i * 14/4), ceil((i + 1) * 14/4)
}


@pytest.mark.parametrize(("variant", "windows"), [("paper", "valid"), ("torchvision", "adaptive")])
def test_auxiliary_pool_windows(variant, windows):
    spec = VARIANTS[variant]
    model = model_of(
        lambda x: blocks.auxiliary_classifier(x, spec, spec.aux[0], "softmax"), 14, 14, 1
    )
    x = random(14, 14, 1)
    means = [[x[a:b, c:d].mean() for c, d in WINDOWS[windows]] for a, b in WINDOWS[windows]]
    pool = keras.Model(model.input, model.get_layer("aux_1_pool").output)
    assert_allclose(predict(pool, x)[..., 0], means, rtol=1e-4, atol=1e-6)


def test_auxiliary_classifier_refuses_a_grid_below_its_window():
    aux = AuxSpec(name="aux_1", after="3a")
    with pytest.raises(
        ValueError, match=r"at least 5x5 .*'aux_1'.*Received: 4x9 after '3a'.*larger"
    ):
        blocks.auxiliary_classifier(keras.Input((4, 9, 2)), tiny_spec(), aux, "softmax")


@pytest.mark.parametrize("activation", ["softmax", None])
def test_head_by_hand(activation):
    model = model_of(lambda x: blocks.head(x, tiny_spec(), activation), 3, 4, 6)
    x = random(3, 4, 6)
    logits = classifier(model, "predictions_logits", x.mean(axis=(0, 1)))
    expected = reference.softmax(logits) if activation else logits
    assert_allclose(predict(model, x), expected, rtol=1e-4)
    assert model.get_layer("predictions_dropout").rate == 0.2


# --- input --------------------------------------------------------------------------------------


def test_input_is_named_after_the_pixel_convention():
    assert blocks.input_layer(replace(tiny_spec(), pixels="torch")).name == "pixels_torch"


def test_input_channels_first(channels_first):
    spec = replace(tiny_spec(), input_shape=(16, 24, 3))
    assert blocks.input_layer(spec).shape == (None, 3, 16, 24)


def test_input_tensor_must_have_the_shape_of_the_spec():
    with pytest.raises(
        ValueError, match=r"\(None, 32, 32, 3\).*Received: shape=\(None, 32, 31, 3\)"
    ):
        blocks.input_layer(tiny_spec(), keras.Input((32, 31, 3)))
