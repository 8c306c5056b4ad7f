"""Folding batch normalization and merging convolutions, against the model without either."""

from typing import Any

import keras
import numpy as np
import pytest
from conftest import lean_spec, tiny_spec

from keras_inception.exporters.inference_graph import fold_batch_norm, merge_parallel_convs
from keras_inception.network.build import build_network
from keras_inception.network.endpoints import endpoints, feature_extractor


def with_statistics(model: keras.Model) -> keras.Model:
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


PIXELS = np.random.default_rng(1).uniform(-1, 1, (3, 32, 32, 3)).astype("float32")


def test_every_endpoint_is_unchanged() -> None:
    keras.utils.set_random_seed(0)
    model = with_statistics(build_network(tiny_spec(norm="bn")))

    network = fold_batch_norm(model)

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

    kernel, bias = fold_batch_norm(model).get_layer("a").get_weights()

    np.testing.assert_allclose(kernel.ravel(), [7.0])
    np.testing.assert_allclose(bias, [-2.0])


def test_a_norm_whose_input_has_another_consumer_is_not_folded() -> None:
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(2, 1, name="a")(inputs)
    outputs = keras.layers.Add()([x, keras.layers.BatchNormalization(name="b")(x)])
    model = with_statistics(keras.Model(inputs, outputs))
    pixels = np.ones((1, 4, 4, 1), "float32")

    network = fold_batch_norm(model)

    assert isinstance(network.get_layer("b"), keras.layers.BatchNormalization)
    np.testing.assert_allclose(network(pixels), model(pixels), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
def test_a_half_precision_model_becomes_float32(policy: str) -> None:
    model = build_network(tiny_spec(norm="bn", aux=True), auxiliary=True)

    network = fold_batch_norm(model)

    assert network.output.shape == (None, 5)
    assert {layer.compute_dtype for layer in network.layers[1:]} == {"float32"}
    assert {weight.dtype for weight in network.weights} == {"float32"}


def test_bfloat16_keeps_the_scores_in_float32() -> None:
    network = fold_batch_norm(build_network(tiny_spec(norm="bn")), "bfloat16")

    assert network.get_layer("3a_3x3").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in network.weights} == {"bfloat16"}
    assert network.output.dtype == "float32"


def convolutions(model: keras.Model) -> list[keras.layers.Conv2D]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def test_branches_of_one_convolution_each_become_one() -> None:
    spec = lean_spec()
    first, other = spec.modules[0].name, spec.modules[1].name
    keras.utils.set_random_seed(0)
    model = with_statistics(build_network(spec))

    network = merge_parallel_convs(model)

    assert len(convolutions(network)) == len(convolutions(model)) - 2
    convolution = network.get_layer(f"{first}_conv")
    assert (convolution.kernel_size, convolution.filters) == ((5, 5), 4 + 3 + 5)
    gone = {f"{first}_{branch}" for branch in ("1x1", "3x3", "5x5")}
    assert set(endpoints(network)) == set(endpoints(model)) - gone
    names = [first, f"{other}_3x3", other, "predictions"]
    expected = feature_extractor(model, names).predict_on_batch(PIXELS)
    for name, value in feature_extractor(network, names).predict_on_batch(PIXELS).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def concatenated(**changes: Any) -> keras.Model:
    """A 1x1 convolution (weight 2, bias 1) in parallel with a 3x3 one of ones without bias."""
    inputs = keras.Input((3, 3, 1), name="pixels")
    one = keras.layers.Conv2D(1, 1, padding="same", name="one")(inputs)
    three = keras.layers.Conv2D(1, 3, padding="same", use_bias=False, name="three", **changes)
    model = keras.Model(inputs, keras.layers.Concatenate(name="both")([one, three(inputs)]))
    model.get_layer("one").set_weights([np.full((1, 1, 1, 1), 2.0), np.ones(1)])
    three.set_weights([np.ones((3, 3, 1, 1))])
    return model


def test_a_smaller_kernel_is_centred_in_zeros() -> None:
    kernel, bias = merge_parallel_convs(concatenated()).get_layer("both").get_weights()

    np.testing.assert_array_equal(kernel[:, :, 0, 0], [[0, 0, 0], [0, 2, 0], [0, 0, 0]])
    np.testing.assert_array_equal(kernel[:, :, 0, 1], np.ones((3, 3)))
    np.testing.assert_array_equal(bias, [1, 0])


@pytest.mark.parametrize("change", [{"dilation_rate": 2}, {"activation": "tanh"}])
def test_branches_of_several_layers_are_not_merged(change: dict[str, Any]) -> None:
    model = concatenated(**change)
    pixels = np.arange(9, dtype="float32").reshape(1, 3, 3, 1) / 9

    network = merge_parallel_convs(model)

    assert [layer.name for layer in convolutions(network)] == ["one", "three"]
    np.testing.assert_array_equal(network(pixels), model(pixels))


def test_branches_with_other_inputs_or_activations_are_not_merged() -> None:
    inputs = keras.Input((3, 3, 1))

    def convolution(tensor: Any) -> Any:
        return keras.layers.Conv2D(1, 1, padding="same")(tensor)

    relu = keras.layers.ReLU()
    deeper = keras.layers.Concatenate()([convolution(inputs), convolution(convolution(inputs))])
    bent = keras.layers.Concatenate()([convolution(inputs), relu(convolution(inputs))])
    leaky = keras.layers.ReLU(negative_slope=0.1)(convolution(inputs))
    otherwise = keras.layers.Concatenate()([keras.layers.ReLU()(convolution(inputs)), leaky])
    for outputs in (deeper, bent, otherwise):
        model = keras.Model(inputs, outputs)
        assert len(convolutions(merge_parallel_convs(model))) == len(convolutions(model))
