"""Folding batch normalization, against the model that still has it."""

import keras
import numpy as np
import pytest
from conftest import tiny_spec

from keras_inception.export import folded
from keras_inception.network import build_network, endpoints, feature_extractor


def with_statistics(model: keras.Model) -> keras.Model:
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


PIXELS = np.random.default_rng(1).uniform(-1, 1, (3, 32, 32, 3)).astype("float32")


def test_every_endpoint_stays_the_same() -> None:
    keras.utils.set_random_seed(0)
    model = with_statistics(build_network(tiny_spec(norm="bn")))

    network = folded(model)

    assert not any(isinstance(x, keras.layers.BatchNormalization) for x in network.layers)
    assert endpoints(network) == endpoints(model)
    names = endpoints(model)
    expected = feature_extractor(model, names).predict_on_batch(PIXELS)
    for name, value in feature_extractor(network, names).predict_on_batch(PIXELS).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_one_unit_by_hand() -> None:
    """gamma 2, beta 3, mean 5, variance 3 with epsilon 1: y = 2 (x - 5) / 2 + 3 = x - 2."""
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(1, 1, use_bias=False, name="a")(inputs)
    outputs = keras.layers.BatchNormalization(epsilon=1.0, name="b")(x)
    model = keras.Model(inputs, outputs)
    model.get_layer("a").set_weights([np.full((1, 1, 1, 1), 7.0)])
    model.get_layer("b").set_weights([np.array([value]) for value in (2.0, 3.0, 5.0, 3.0)])

    kernel, bias = folded(model).get_layer("a").get_weights()

    np.testing.assert_allclose(kernel.ravel(), [7.0])
    np.testing.assert_allclose(bias, [-2.0])


def test_a_norm_that_something_else_reads_beside_is_left_alone() -> None:
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(2, 1, name="a")(inputs)
    outputs = keras.layers.Add()([x, keras.layers.BatchNormalization(name="b")(x)])
    model = with_statistics(keras.Model(inputs, outputs))
    pixels = np.ones((1, 4, 4, 1), "float32")

    network = folded(model)

    assert isinstance(network.get_layer("b"), keras.layers.BatchNormalization)
    np.testing.assert_allclose(network(pixels), model(pixels), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
def test_a_half_precision_model_becomes_float32(policy: str) -> None:
    model = build_network(tiny_spec(norm="bn", aux=True), auxiliary=True)

    network = folded(model)

    assert network.output.shape == (None, 5)
    assert {layer.compute_dtype for layer in network.layers[1:]} == {"float32"}
    assert {weight.dtype for weight in network.weights} == {"float32"}


def test_bfloat16_keeps_the_scores_in_float32() -> None:
    network = folded(build_network(tiny_spec(norm="bn")), "bfloat16")

    assert network.get_layer("3a_3x3").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in network.weights} == {"bfloat16"}
    assert network.output.dtype == "float32"
