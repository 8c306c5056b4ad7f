"""The fused training step of batch normalization against that of Keras."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_inception import build_network
from keras_inception.network.batch_norm import BatchNormalization
from keras_inception.spec.variants import NANO

# One unit in the last place of bfloat16, as a relative error.
BFLOAT16 = 2.0**-8


def built(layer_class, shape, policy, **arguments):
    layer = layer_class(momentum=0.8, epsilon=1e-2, dtype=policy, **arguments)
    layer.build(shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.uniform(0.5, 2.0, weight.shape) for weight in layer.get_weights()])
    return layer


def training_step(layer, inputs, upstream):
    """Return outputs, gradients of inputs and weights, and the updated moving statistics."""

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
            total = tf.reduce_sum(tf.cast(outputs, tf.float32) * upstream)
        weights = [variable.value for variable in layer.trainable_variables]
        return outputs, tape.gradient(total, [x, *weights])

    outputs, gradients = step(tf.constant(inputs))
    return outputs, [
        tf.cast(outputs, tf.float32).numpy(),
        *(gradient.numpy() for gradient in gradients),
        *(variable.numpy() for variable in layer.non_trainable_variables),
    ]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("arguments", [{}, {"scale": False}, {"center": False}])
def test_a_training_step_equals_that_of_keras(policy, arguments):
    rng = np.random.default_rng(0)
    shape = (4, 5, 6, 7)
    inputs = rng.normal(3, 2, shape).astype("float32")
    upstream = rng.normal(size=shape).astype("float32")
    fused, found = training_step(
        built(BatchNormalization, shape, policy, **arguments), inputs, upstream
    )
    plain, expected = training_step(
        built(keras.layers.BatchNormalization, shape, policy, **arguments), inputs, upstream
    )
    assert fused.dtype == plain.dtype
    assert len(found) == len(expected)
    tolerance = 1e-5 if policy == "float32" else BFLOAT16
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=5 * tolerance)
    # The moving statistics are computed in float32 from the same inputs.
    for actual, wanted in zip(found[-2:], expected[-2:], strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5)


def test_the_variance_is_biased():
    """For the values 0 and 2 the biased variance is 1, the unbiased 2; momentum .5, initially 1."""
    layer = BatchNormalization(momentum=0.5)
    outputs = layer(np.array([0.0, 2.0], "float32").reshape(2, 1, 1, 1), training=True)
    assert layer.moving_mean.numpy() == pytest.approx([0.5])
    assert layer.moving_variance.numpy() == pytest.approx([1.0])
    np.testing.assert_allclose(np.ravel(outputs), [-1.0, 1.0], rtol=1e-3)  # epsilon is .001


def kernels_of(layer, shape, **call):
    function = tf.function(lambda x: layer(x, **call)).get_concrete_function(
        tf.TensorSpec(shape, tf.float32)
    )
    return {operation.type for operation in function.graph.get_operations()}


def test_the_fused_kernel_is_used_in_training_only():
    shape = (2, 4, 4, 3)
    assert "FusedBatchNormV3" in kernels_of(BatchNormalization(), shape, training=True)
    assert "FusedBatchNormV3" not in kernels_of(BatchNormalization(), shape, training=False)
    frozen = BatchNormalization(trainable=False)
    assert "FusedBatchNormV3" not in kernels_of(frozen, shape, training=True)
    synchronized = BatchNormalization(synchronized=True)
    assert "FusedBatchNormV3" not in kernels_of(synchronized, shape, training=True)
    assert "FusedBatchNormV3" not in kernels_of(BatchNormalization(), (2, 3), training=True)
    channels_first = BatchNormalization(axis=1)
    assert "FusedBatchNormV3" not in kernels_of(channels_first, shape, training=True)


def test_networks_use_it():
    layers = [
        layer
        for layer in build_network(NANO).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert layers
    assert {type(layer) for layer in layers} == {BatchNormalization}


def test_saved_files_load_with_keras_alone(tmp_path):
    network = build_network(NANO)
    network.save(tmp_path / "network.keras")
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 28, 28, 1)).astype("float32")
    np.save(tmp_path / "pixels.npy", pixels)
    script = """
import sys
sys.modules["keras_inception"] = None  # importing it fails
import keras, numpy as np
network = keras.saving.load_model("network.keras")
kinds = {type(layer) for layer in network.layers if "_bn" in layer.name}
assert kinds == {keras.layers.BatchNormalization}, kinds
np.save("scores.npy", network(np.load("pixels.npy"), training=False))
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "scores.npy"), network(pixels, training=False), rtol=1e-5, atol=1e-7
    )
