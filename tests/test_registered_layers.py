"""Local response normalization against TensorFlow, Caffe's formula and a hand computation."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from conftest import tiny_spec
from numpy.testing import assert_allclose

from keras_inception.network import blocks
from keras_inception.network.registered_layers import LocalResponseNormalization
from keras_inception.spec.network import LRNSpec

LRN = {"window_size": 5, "alpha_per_window": 0.7, "beta": 0.6, "bias": 1.3}


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_lrn_is_tensorflows_with_alpha_divided_by_the_window():
    x = random(2, 3, 4, 9)
    expected = tf.nn.local_response_normalization(x, 2, bias=1.3, alpha=0.7 / 5, beta=0.6)
    assert_allclose(LocalResponseNormalization(**LRN)(x), expected, rtol=1e-5)


@pytest.mark.parametrize("window_size", [1, 3, 5, 11])
def test_lrn_is_caffes_formula_even_if_the_window_exceeds_the_channels(window_size):
    arguments = {**LRN, "window_size": window_size}
    x = random(2, 3, 4, 7)
    expected = reference.local_response_normalization(x, **arguments)
    assert_allclose(LocalResponseNormalization(**arguments)(x), expected, rtol=1e-5)


def test_lrn_worked_out_by_hand():
    # Channels 1, 2, 3 with window 3, alpha 3, beta 1, k 1: sums of squares 5, 14, 13.
    layer = LocalResponseNormalization(window_size=3, alpha_per_window=3.0, beta=1.0, bias=1.0)
    normalized = layer(np.array([[[[1.0, 2.0, 3.0]]]]))
    assert_allclose(normalized, [[[[1 / 6, 2 / 15, 3 / 14]]]], rtol=1e-6)


def test_lrn_channels_first(channels_first):
    x = random(2, 7, 3, 4)
    expected = reference.local_response_normalization(np.moveaxis(x, 1, -1), **LRN)
    actual = LocalResponseNormalization(**LRN)(x)
    assert_allclose(np.moveaxis(actual, 1, -1), expected, rtol=1e-5)


def test_lrn_keeps_its_axis_when_loaded_under_the_other_data_format(channels_first):
    config = LocalResponseNormalization(**LRN).get_config()
    keras.config.set_image_data_format("channels_last")
    x = random(2, 7, 3, 4)
    expected = reference.local_response_normalization(np.moveaxis(x, 1, -1), **LRN)
    actual = LocalResponseNormalization.from_config(config)(x)
    assert_allclose(np.moveaxis(actual, 1, -1), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_lrn_squares_do_not_overflow_in_half_precision(dtype):
    # 60000 is a float16, its square is not; float16 keeps 11 bits, bfloat16 8.
    x = np.array([[[[300.0, -60000.0, 2.0]]]])
    layer = LocalResponseNormalization(**LRN, dtype=f"mixed_{dtype}")
    y = layer(keras.ops.cast(x, dtype))
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    seen = keras.ops.convert_to_numpy(keras.ops.cast(x, dtype)).astype("float64")
    expected = reference.local_response_normalization(seen, **LRN)
    assert_allclose(keras.ops.cast(y, "float32"), expected, rtol=2**-8)


def test_lrn_takes_any_grid_and_keeps_its_shape():
    inputs = keras.Input((None, None, 6))
    assert LocalResponseNormalization()(inputs).shape == (None, None, None, 6)


def test_lrn_defaults_are_bvlcs():
    config = LocalResponseNormalization().get_config()
    assert {key: config[key] for key in LRN} == {
        "window_size": 5,
        "alpha_per_window": 1e-4,
        "beta": 0.75,
        "bias": 1.0,
    }


@pytest.mark.parametrize("window_size", [0, 4, -1])
def test_lrn_refuses_a_window_without_a_centre(window_size):
    with pytest.raises(ValueError, match=f"odd window.*Received: window_size={window_size}"):
        LocalResponseNormalization(window_size=window_size)


def test_lrn_of_the_spec_reaches_the_layer():
    norm = LRNSpec(name="norm1", window_size=3, alpha_per_window=0.2, beta=0.5, bias=2.0)
    spec = replace(tiny_spec(), stem=(norm,))
    x = random(1, 2, 2, 5)
    expected = reference.local_response_normalization(
        x, window_size=3, alpha_per_window=0.2, beta=0.5, bias=2.0
    )
    assert_allclose(blocks.stem(keras.ops.convert_to_tensor(x), spec), expected, rtol=1e-5)
