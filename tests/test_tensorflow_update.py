"""The fused kernels take the steps of Keras's own optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_inception.spec.recipe import Recipe
from keras_inception.training.optimizer import make_optimizer
from keras_inception.training.tensorflow_update import fused_update

SHAPES = {"kernel": (3, 4), "bias": (4,), "gamma": (5,)}
GRADIENTS = np.random.default_rng(0).standard_normal((6, 21)).astype("float32")


def optimizer_and_weights(**fields):
    recipe = Recipe(name="test", epochs=1, **fields)
    values = np.random.default_rng(1).standard_normal(21).astype("float32")
    weights = [
        keras.Variable(tf.reshape(part, shape), name=name)
        for part, (name, shape) in zip(np.split(values, [12, 16]), SHAPES.items(), strict=True)
    ]
    return make_optimizer(recipe, weights, 0.1), weights


def gradients(step):
    parts = np.split(GRADIENTS[step], [12, 16])
    return [tf.reshape(part, shape) for part, shape in zip(parts, SHAPES.values(), strict=True)]


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "weight_decay": 0.0},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd", "weight_decay": 0.0},
    ],
)
def test_steps_and_state_are_those_of_keras(fields):
    own, own_weights = optimizer_and_weights(**fields)
    kerass, kerass_weights = optimizer_and_weights(**fields)
    update = tf.function(lambda values: fused_update(own, own_weights, values))
    for step in range(len(GRADIENTS)):
        # The rate changes between steps, as the trainer changes it.
        for optimizer in (own, kerass):
            optimizer.learning_rate.assign(0.1 / (step + 1))
        update(gradients(step))
        kerass.apply(gradients(step), kerass_weights)
    for mine, expected in zip(
        [*own_weights, *own.variables], [*kerass_weights, *kerass.variables], strict=True
    ):
        assert_allclose(mine, expected, rtol=1e-5, atol=1e-6, err_msg=expected.path)
    assert int(own.iterations) == len(GRADIENTS)
