"""Class activation maps, branches, and gradient ascent on an endpoint."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from numpy.testing import assert_allclose, assert_array_equal

from keras_inception.evaluation import visualize
from keras_inception.evaluation.visualize import Ascent, branch_names
from keras_inception.images.decode import fit_image
from keras_inception.images.resize import resize_floats
from keras_inception.network.build import build_network
from keras_inception.runtimes.keras_model import network_input
from keras_inception.spec.network import ModuleSpec

ONCE = Ascent(steps=3, step_size=2.0, octaves=1, jitter=0)


@pytest.fixture(scope="module", params=["lrn", "bn"])
def network(request):
    """A network with five logits and random weights and biases."""
    keras.utils.set_random_seed(1)
    model = build_network(
        tiny_spec(norm=request.param, aux=True), auxiliary=True, classifier_activation=None
    )
    random = np.random.default_rng(0)
    for name in ("predictions_logits", "aux_1_logits"):
        layer = model.get_layer(name)
        layer.set_weights([random.normal(size=w.shape) for w in layer.get_weights()])
    return model


def pixels(count=2, size=32, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), np.uint8)


def one_layer(weight, channels=1, size=16):
    """conv1: a 1x1 convolution that multiplies each pixel less 117 by `weight`, without ReLU."""
    inputs = keras.Input((size, size, channels), name="pixels_inception5h")
    layer = keras.layers.Conv2D(channels, 1, use_bias=False, name="conv1")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([weight * np.eye(channels)[None, None]])
    return model


# --- class activation maps ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [(7, 5), (20, 31)])
def test_octaves_are_resized_as_photographs_are(size):
    """Pillow's filter: whole levels as `fit_image` gives them, before it rounds."""
    image = np.random.default_rng(0).integers(0, 256, (2 * size[0], 2 * size[1], 3), np.uint8)
    (resized,) = resize_floats(image[None], size)
    expected = fit_image(image, height=size[0], width=size[1])
    np.testing.assert_allclose(resized, expected, atol=1)
    assert np.abs(resized - expected).mean() < 0.4  # rounding, and nothing else
    np.testing.assert_allclose(
        resize_floats(-image[None].astype(float), size)[0], -resized, atol=1e-3
    )
    larger = resize_floats(resized[None], (40, 40))
    assert larger.shape == (1, 40, 40, 3)


def test_a_class_map_averages_to_its_logit_less_the_bias(network):
    """Exact: the weighting of channels and the average over positions commute."""
    maps = visualize.class_activation_maps(network, pixels())
    assert maps.shape == (2, 4, 4, 5)
    logits = network.predict_on_batch(network_input(network, pixels()))["main"]
    bias = network.get_layer("predictions_logits").get_weights()[1]
    assert_allclose(maps.mean(axis=(1, 2)) + bias, logits, rtol=1e-5, atol=1e-5)
    assert np.ptp(maps, axis=(1, 2)).min() > 0  # and it varies over positions


def test_a_class_map_worked_by_hand():
    """Grid [[1, 2], [3, 4]] in one channel, and classes with weights 10 and -1."""
    inputs = keras.Input((2, 2, 1), name="pixels_inception5h")
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(inputs)
    head = keras.layers.Dense(2, name="predictions_logits")
    model = keras.Model(inputs, head(x))
    head.set_weights([np.array([[10.0, -1.0]]), np.array([7.0, 7.0])])
    grid = np.array([[1, 2], [3, 4]])
    maps = visualize.class_activation_maps(model, (grid + 117)[None, ..., None])
    assert_array_equal(maps[0, ..., 0], 10 * grid)
    assert_array_equal(maps[0, ..., 1], -grid)


def test_class_maps_need_a_classifier():
    model = build_network(tiny_spec(), include_top=False, pooling="avg")
    with pytest.raises(ValueError, match=r"Expected a classifier.*include_top=True"):
        visualize.class_activation_maps(model, pixels())


# --- branches -----------------------------------------------------------------------------------


def test_branches_in_the_order_in_which_a_module_aggregates_them(network):
    names = visualize.branch_names(network)
    assert names[:4] == ("3a_1x1", "3a_3x3", "3a_5x5", "3a_pool_proj")
    assert [name.partition("_")[0] for name in names] == ["3a"] * 4 + ["3b"] * 4 + ["4a"] * 4
    found = visualize.activations(network, pixels(), [*names[:4], "inception3a", "avg_pool"])
    assert_array_equal(
        np.concatenate([found[name] for name in names[:4]], axis=-1), found["inception3a"]
    )
    assert found["inception3a"].shape == (2, 8, 8, 2 + 3 + 4 + 2)
    assert found["inception3a"].dtype == np.float32
    assert found["avg_pool"].shape == (2, 2 + 3 + 4 + 2)


def test_branches_of_a_naive_module():
    names = visualize.branch_names(build_network(tiny_spec(naive=True)))
    assert names[:4] == ("3a_1x1", "3a_3x3", "3a_5x5", "3a_pool")


def test_activations_are_channels_last_for_every_model(channels_first):
    """TensorFlow on a CPU has no channels-first convolution, so the model is a pool."""
    inputs = keras.Input((1, 4, 2), name="pixels_inception5h")
    model = keras.Model(inputs, keras.layers.MaxPooling2D(2, name="pool1")(inputs))
    image = np.arange(8.0).reshape(1, 4, 2, 1) + 117
    keras.config.set_image_data_format("channels_last")  # the model keeps its own
    found = visualize.activations(model, image, ["pool1"])["pool1"]
    assert_array_equal(found, np.array([3.0, 7.0]).reshape(1, 2, 1, 1))


# --- gradient ascent ----------------------------------------------------------------------------


def test_octave_sizes():
    """224 / 1.4 = 160, 160 / 1.4 = 114.29; 100 / 1.4 = 71.43, / 1.4 = 51.02."""
    ascent = Ascent(octaves=3, octave_scale=1.4)
    assert visualize.octave_sizes(224, 100, ascent) == [(114, 51), (160, 71), (224, 100)]
    assert visualize.octave_sizes(16, 16, Ascent(octaves=2, octave_scale=2)) == [(8, 8), (16, 16)]
    with pytest.raises(ValueError, match=r"the first is 7 x 4\. Use fewer octaves"):
        visualize.octave_sizes(28, 16, Ascent(octaves=3, octave_scale=2))


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("octaves", 0), ("step_size", 0.0), ("octave_scale", 1.0), ("jitter", -1)],
)
def test_refused_ascents(field, value):
    with pytest.raises(ValueError, match=f"Expected `{field}`.*Received: {field}={value}"):
        Ascent(**{field: value})


@pytest.mark.parametrize(
    ("weight", "ascent", "change"),
    [
        (1.0, ONCE, 6),  # the slope is the same everywhere: 3 steps of 2 levels
        (-5.0, ONCE, -6),
        (1.0, replace(ONCE, octaves=2), 12),  # the first octave's change is carried over
        (0.0, replace(ONCE, octaves=2), 0),  # no slope: the image is unchanged in all detail
    ],
)
def test_a_feature_image_worked_by_hand(weight, ascent, change):
    """For a channel that grows, or falls, equally with every pixel."""
    model = one_layer(weight)
    images = visualize.feature_images(model, "conv1", [0, 0], 20, ascent)
    start = visualize.feature_images(one_layer(0.0), "conv1", [0, 0], 20, ascent)
    assert images.shape == (2, 20, 20, 1)
    assert images.dtype == np.uint8
    assert np.ptp(start.astype(int)) > 15  # noise of up to 10 levels around grey
    assert abs(start.mean() - 127.5) < 2
    assert_allclose(images.astype(int) - start, change, atol=1)  # each is rounded
    assert_allclose((images.astype(int) - start).mean(), change, atol=0.1)


def test_an_inactive_channel_is_maximized_before_its_relu():
    inputs = keras.Input((16, 16, 1), name="pixels_inception5h")
    layer = keras.layers.Conv2D(1, 1, name="conv1_conv")
    model = keras.Model(inputs, keras.layers.ReLU(name="conv1")(layer(inputs)))
    layer.set_weights([np.ones((1, 1, 1, 1)), np.array([-1e4])])
    start = visualize.feature_images(one_layer(0.0), "conv1", [0], 16, ONCE)
    assert visualize.activations(model, start, ["conv1"])["conv1"].max() == 0
    climbed = visualize.feature_images(model, "conv1", [0], 16, ONCE)
    assert_allclose(climbed.astype(int) - start, 6, atol=1)


def test_each_image_maximizes_its_own_channel():
    """The first image maximizes blue, the second red.

    Of the three slopes one is not 0, so 2 as root mean square is 2 * 3^.5 there: 10.4 in 3 steps.
    """
    images = visualize.feature_images(one_layer(1.0, channels=3), "conv1", [2, 0], 16, ONCE)
    start = visualize.feature_images(one_layer(0.0, channels=3), "conv1", [2, 0], 16, ONCE)
    change = (images.astype(int) - start).mean(axis=(1, 2))
    assert_allclose(change, [[0, 0, 6 * 3**0.5], [6 * 3**0.5, 0, 0]], atol=0.1)


def test_a_dream_worked_by_hand():
    """The squares of (pixel - 117) grow outwards: 117 +- 20 by 2 in each of 3 steps.

    With a step of 200 all leave [0, 255], and stay at its ends.
    """
    image = np.tile(np.array([[97, 137], [137, 97]], np.uint8), (4, 4))[..., None]
    dream = visualize.deep_dream(one_layer(1.0, size=8), image, "conv1", ONCE)
    assert_array_equal(dream[..., 0], np.tile([[91, 143], [143, 91]], (4, 4)))
    far = visualize.deep_dream(one_layer(1.0), image, "conv1", replace(ONCE, step_size=200.0))
    assert_array_equal(far[..., 0], np.tile([[0, 255], [255, 0]], (4, 4)))


def test_jitter_is_undone():
    """A 1x1 convolution does not depend on the position of the image."""
    image = pixels(1, 24, 1)[0] // 4 + 100
    model = one_layer(1.0)
    still, moved = (
        visualize.deep_dream(model, image, "conv1", replace(ONCE, jitter=jitter))
        for jitter in (0, 7)
    )
    assert_allclose(still.astype(int), moved, atol=1)
    assert abs(still.astype(int) - image).max() > 3


SMALL_STEP = Ascent(steps=1, step_size=0.5, octaves=1, jitter=0)
FAR = Ascent(steps=8, octaves=2, jitter=2)


@pytest.mark.parametrize(
    ("endpoint", "ascent"),
    [
        ("conv1", FAR),
        ("3a_3x3", FAR),
        ("Mixed_4b", SMALL_STEP),
        ("predictions", SMALL_STEP),  # far away, random classifiers oscillate
    ],
)
def test_a_feature_image_raises_the_activation(network, endpoint, ascent):
    """Compared with the initial noise, on the unmodified network."""
    climbed = visualize.feature_images(network, endpoint, [1, 2], 32, ascent)
    noise = np.random.default_rng(ascent.seed).uniform(-10, 10, (1, 32, 32, 1)) + 127.5
    start = np.round(np.broadcast_to(noise, climbed.shape))
    before, after = (
        visualize.activations(network, images, [endpoint])[endpoint] for images in (start, climbed)
    )
    for image, channel in enumerate([1, 2]):
        assert after[image, ..., channel].mean() > before[image, ..., channel].mean() + 1e-3


def test_a_dream_raises_the_activation(network):
    image = pixels(1, 32)[0] // 2 + 64
    dream = visualize.deep_dream(network, image, "3b", Ascent(steps=8, octaves=2, jitter=2))
    before, after = (
        np.square(visualize.activations(network, picture[None], ["3b"])["3b"]).mean()
        for picture in (image, dream)
    )
    assert after > 1.2 * before


def test_dreams_and_feature_images_have_any_size(network):
    image = pixels(1, 60)[0][:, :45]
    dream = visualize.deep_dream(network, image, "4a", Ascent(steps=1, octaves=2))
    assert dream.shape == (60, 45, 3)
    images = visualize.feature_images(network, "3a_3x3", range(3), 50, Ascent(steps=1))
    assert images.shape == (3, 50, 50, 3)


def test_the_model_is_unchanged(network):
    before = network.get_weights()
    visualize.feature_images(network, "3a_3x3", [0], 32, Ascent(steps=1, octaves=1))
    assert all((a == b).all() for a, b in zip(before, network.get_weights(), strict=True))


@pytest.mark.parametrize("channels", [[], [3], [-1]])
def test_unknown_channels_are_refused(network, channels):
    with pytest.raises(ValueError, match=r"Expected channels of '3a_3x3' from 0 to 2\. Received"):
        visualize.feature_images(network, "3a_3x3", channels, 32)


def test_unsuitable_endpoints_and_images_are_refused(network):
    with pytest.raises(ValueError, match="Expected endpoints among conv1"):
        visualize.deep_dream(network, pixels(1)[0], "aux_1")  # in training only
    with pytest.raises(ValueError, match=r"Expected an image of shape h x w x 3. Received.*32, 1"):
        visualize.deep_dream(network, pixels(1, channels=1)[0], "3a")


def test_other_backends_are_refused(network, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"Expected the TensorFlow backend.*Received: 'jax'"):
        visualize.deep_dream(network, pixels(1)[0], "3a")


def test_the_branch_of_a_module_with_one_branch():
    spec = tiny_spec()
    name = spec.modules[-1].name
    only = ModuleSpec(name=name, filters_1x1=8, spatial=(), filters_pool_proj=0)
    names = branch_names(build_network(spec.map_modules({name: only})))
    assert [own for own in names if own.startswith(f"{name}_")] == [f"{name}_1x1"]
