"""Pixel conventions against keras.applications and sums on paper."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from numpy.testing import assert_allclose, assert_array_equal

from keras_inception import model_preprocessing, preprocess_input
from keras_inception.images.conventions import CONVENTIONS
from keras_inception.network.build import build_network

PIXEL = np.array([[[10, 20, 200]]], "uint8")  # red, green, blue
# Worked out by hand: x / 127.5 - 1; BGR minus (104, 117, 123);
# (x / 255 - mean) / deviation with ImageNet's (.485, .456, .406) and (.229, .224, .225); x - 117.
BY_HAND = {
    "tf": [-0.921569, -0.843137, 0.568627],
    "caffe": [96.0, -97.0, -113.0],
    "torch": [-1.946656, -1.685574, 1.681394],
    "inception5h": [-107.0, -97.0, 83.0],
    "raw": [10.0, 20.0, 200.0],
}


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")


# --- conventions --------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", BY_HAND)
def test_one_pixel_by_hand(convention):
    actual = preprocess_input(PIXEL, convention=convention)
    assert_allclose(actual, [[BY_HAND[convention]]], rtol=1e-5)


def test_every_convention_is_tested():
    assert set(CONVENTIONS) == set(BY_HAND)


def test_preprocess_input_has_no_default_convention():
    with pytest.raises(ValueError, match=r"Expected `model`.*'caffe'.*Received: neither"):
        preprocess_input(PIXEL)
    network = build_network(tiny_spec())
    with pytest.raises(ValueError, match="Received: both"):
        preprocess_input(PIXEL, model=network, convention="tf")


@pytest.mark.parametrize("convention", sorted(BY_HAND.keys() - {"raw"}))
def test_a_models_own_convention(convention):
    network = build_network(replace(tiny_spec(), pixels=convention))
    actual = preprocess_input(PIXEL, model=network)
    assert_allclose(actual, [[BY_HAND[convention]]], rtol=1e-5)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("convention", ["tf", "torch"])
def test_conventions_shared_with_keras(convention, data_format):
    x = pixels(2, 3, 4, 3) if data_format == "channels_last" else pixels(2, 3, 4, 5)
    expected = keras.applications.imagenet_utils.preprocess_input(
        x.astype("float32"), data_format, mode=convention
    )
    actual = preprocess_input(x, data_format, convention=convention)
    assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("convention", BY_HAND)
def test_channels_first_is_channels_last_transposed(convention):
    x = pixels(2, 5, 6, 3)
    last = preprocess_input(x, "channels_last", convention=convention)
    first = preprocess_input(np.moveaxis(x, -1, 1), "channels_first", convention=convention)
    assert_array_equal(np.moveaxis(first, 1, -1), last)


def test_the_global_data_format_is_the_default(channels_first):
    x = np.broadcast_to(PIXEL.reshape(3, 1, 1), (3, 2, 2))
    assert_array_equal(preprocess_input(x, convention="caffe")[:, 0, 0], BY_HAND["caffe"])


@pytest.mark.parametrize("convention", BY_HAND)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
def test_numpy_in_numpy_out_and_the_input_is_unchanged(convention, dtype):
    x = pixels(2, 5, 6, 3).astype(dtype)
    before = x.copy()
    actual = preprocess_input(x, convention=convention)
    assert type(actual) is np.ndarray
    assert actual.dtype == "float32"
    assert not np.shares_memory(actual, x)
    assert_array_equal(x, before)


@pytest.mark.parametrize("convention", BY_HAND)
def test_tensors_and_symbolic_tensors(convention):
    x = pixels(2, 5, 6, 3)
    tensor = preprocess_input(keras.ops.convert_to_tensor(x), convention=convention)
    assert keras.ops.is_tensor(tensor)
    assert_array_equal(tensor, preprocess_input(x, convention=convention))
    inputs = keras.Input((5, 6, 3), dtype="uint8")
    model = keras.Model(inputs, preprocess_input(inputs, convention=convention))
    assert_allclose(model(x), tensor, rtol=1e-6, atol=1e-6)


def test_grey_where_all_channels_are_alike():
    grey = np.array([[[0], [51], [255]]], "uint8")
    assert_allclose(preprocess_input(grey, convention="tf"), [[[-1], [-0.6], [1]]], rtol=1e-6)
    assert_array_equal(preprocess_input(grey, convention="inception5h"), [[[-117], [-66], [138]]])


@pytest.mark.parametrize("convention", ["caffe", "torch"])
def test_grey_where_the_channels_differ(convention):
    with pytest.raises(ValueError, match=rf"3 channels.*{convention}.*shape=\(2, 2, 1\)"):
        preprocess_input(np.zeros((2, 2, 1)), "channels_last", convention=convention)


def test_wrong_names():
    with pytest.raises(ValueError, match=r"'caffe', .*'tf'.*Received: .*'imagenet'"):
        preprocess_input(PIXEL, convention="imagenet")
    with pytest.raises(ValueError, match=r"\"channels_last\".*Received: data_format='NHWC'"):
        preprocess_input(PIXEL, "NHWC", convention="tf")


# --- the convention of a model ------------------------------------------------------------------


@pytest.mark.parametrize("convention", sorted(BY_HAND.keys() - {"raw"}))
def test_a_saved_model_knows_its_convention(convention, tmp_path):
    model = build_network(replace(tiny_spec(), pixels=convention))
    assert model_preprocessing(model) == convention
    model.save(tmp_path / "model.keras")
    assert model_preprocessing(keras.models.load_model(tmp_path / "model.keras")) == convention


def test_a_model_that_does_not_name_its_convention():
    inputs = keras.Input((4, 4, 3), name="image")
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    with pytest.raises(ValueError, match=r"Expected an input named pixels_.*\['image'\]"):
        model_preprocessing(model)
