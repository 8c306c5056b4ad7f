"""The training step and its recipe fields, against hand computation and Keras."""

from dataclasses import replace
from itertools import islice

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from training_steps import noise, one_module_spec

from keras_inception.data.stream import padded_evaluation_batches, training_batches
from keras_inception.network.build import build_network
from keras_inception.spec.recipe import Recipe
from keras_inception.training.averaging import WeightAverage
from keras_inception.training.fine_tune import initialize
from keras_inception.training.losses import image_losses, is_correct
from keras_inception.training.optimizer import learning_rate_schedule
from keras_inception.training.step import STATISTICS_BATCHES
from keras_inception.training.tensorflow_engine import TensorFlowTrainer

SGD = Recipe(
    name="sgd",
    epochs=1,
    batch_size=8,
    optimizer="sgd",
    base_learning_rate=1.0,
    warmup=0.0,
    momentum=0.0,
    weight_decay=0.0,
)


def trainer_of(recipe: Recipe, *, total_steps: int = 10, **spec: bool) -> TensorFlowTrainer:
    keras.utils.set_random_seed(3)
    return TensorFlowTrainer(one_module_spec(**spec), recipe, total_steps=total_steps)


def sharded_batches_of(trainer: TensorFlowTrainer, **spec: bool):
    return lambda index, count: training_batches(
        noise().train, one_module_spec(**spec), trainer.recipe
    )


def batches_of(trainer: TensorFlowTrainer, **spec: bool):
    return trainer.batches(sharded_batches_of(trainer, **spec))


def weights_of(model: keras.Model) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.trainable_weights]


# Schedule and losses


def test_the_staircase_decays_by_its_factor_every_n_epochs():
    recipe = replace(
        SGD, epochs=6, schedule="staircase", decay_factor=0.5, decay_epochs=2, batch_size=256
    )
    schedule = learning_rate_schedule(recipe, total_steps=60)  # ten steps per epoch
    expected = {0: 1, 19: 1, 20: 0.5, 39: 0.5, 40: 0.25, 59: 0.25}
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate), step


# Their softmax is [.5, .25, .25] and [.2, .2, .6].
LOGITS = np.log(np.array([[2, 1, 1], [1, 1, 3]], np.float32))


def test_class_weights_scale_the_loss_of_their_images():
    losses = image_losses(tf.constant([0, 2]), LOGITS, class_weights=(3.0, 1.0, 0.0))
    assert_allclose(losses, [3 * np.log(2), 0], rtol=1e-6)


def test_mixed_labels_have_the_weighted_loss_of_their_parts():
    labels = np.array([[0.5, 0.5, 0], [0, 0.25, 0.75]], np.float32)
    plain = [0.5 * np.log(2) + 0.5 * np.log(4), -0.25 * np.log(0.2) - 0.75 * np.log(0.6)]
    assert_allclose(image_losses(labels, LOGITS), plain, rtol=1e-6)
    weighted = image_losses(labels, LOGITS, class_weights=(2.0, 1.0, 1.0))
    assert_allclose(weighted, [1.5 * plain[0], plain[1]], rtol=1e-6)
    assert_array_equal(is_correct(tf.constant(labels), LOGITS), [1, 1])
    assert_array_equal(is_correct(tf.constant([1, 2]), LOGITS), [0, 1])


# The step


def gradients_by_hand(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> list:
    """Gradients of the mean main loss plus .3 of the mean auxiliary loss, with Keras's losses."""
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        parts = {
            name: tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
            for name, logits in outputs.items()
        }
        loss = parts["main"] + 0.3 * parts["aux_1"]
    return tape.gradient(loss, [weight.value for weight in model.trainable_weights])


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_a_step_is_the_gradient_of_the_three_losses_times_the_rate(clip_norm):
    trainer = trainer_of(replace(SGD, clip_norm=clip_norm))
    images, labels = next(iter(batches_of(trainer)))
    gradients = gradients_by_hand(trainer.model, images, labels)
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients))
    assert norm > 0.02
    factor = clip_norm / norm if clip_norm else 1.0
    rate = 8 / 256  # of the first step: the cosine has not decreased yet
    expected = [
        weight - rate * factor * gradient
        for weight, gradient in zip(weights_of(trainer.model), gradients, strict=True)
    ]
    trainer.step((images, labels))
    for weight, value in zip(weights_of(trainer.model), expected, strict=True):
        assert_allclose(weight, value, atol=1e-6)


def test_each_step_uses_its_rate_in_the_schedule():
    trainer = trainer_of(replace(SGD, warmup=0.5), total_steps=8)
    before = weights_of(trainer.model)
    for step, batch in zip(range(4), batches_of(trainer), strict=False):
        trainer.step(batch)
        assert float(trainer.optimizer.learning_rate) == pytest.approx(step / 4 * 8 / 256)
        if step == 0:  # its rate is 0
            assert all(map(np.array_equal, weights_of(trainer.model), before))
    assert not any(map(np.array_equal, weights_of(trainer.model), before))


def cosines(function: tf.types.experimental.ConcreteFunction) -> int:
    """Count the cosines of a function, including the functions that it calls."""
    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return sum(node.op == "Cos" for node in nodes)


def test_a_step_computes_its_rate_once():
    trainer = trainer_of(replace(SGD, weight_decay=1e-4))
    batch = next(iter(batches_of(trainer)))
    step = trainer._compiled_step.get_concrete_function(*batch, tf.constant(0.0))
    assert cosines(step) == 1


def test_keras_still_computes_the_schedule_for_each_decayed_weight():
    """If this fails, `Trainer` may give the optimizer the schedule (Keras 3.15)."""
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    optimizer = keras.optimizers.SGD(schedule, weight_decay=1e-4)
    weights = [keras.Variable(np.ones(2, np.float32)) for _ in range(3)]
    optimizer.build(weights)

    @tf.function
    def step() -> None:
        optimizer.apply([tf.ones(2)] * 3, weights)

    assert cosines(step.get_concrete_function()) > 3


def test_all_processes_stop_when_one_receives_a_signal():
    trainer = trainer_of(SGD)
    batch = next(iter(batches_of(trainer)))
    assert trainer.step(batch, stop=False)[1] is False
    assert trainer.step(batch, stop=True)[1] is True


def test_evaluation_counts_each_image_once():
    """21 images in batches of 8: three rows of the last batch have weight 0."""
    trainer = trainer_of(SGD)
    spec, split = one_module_spec(), noise().test
    evaluation = trainer.evaluate(
        lambda index, count: padded_evaluation_batches(split, spec, 8, index, count)
    )
    scores = trainer.deployed().predict(split.images / 127.5 - 1.0, verbose=0)
    own = scores[np.arange(21), split.labels]
    assert evaluation["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)
    assert evaluation["accuracy"] == pytest.approx((scores.argmax(axis=1) == split.labels).mean())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_shard_has_as_many_padded_batches(count):
    spec, split = one_module_spec(), noise().test
    shards = [
        list(padded_evaluation_batches(split, spec, 8, index, count)) for index in range(count)
    ]
    assert [len(shard) for shard in shards] == [3] * count
    weights = np.concatenate([weights for shard in shards for _, _, weights in shard])
    labels = np.concatenate([labels for shard in shards for _, labels, _ in shard])
    assert weights.shape == (24,)
    assert_array_equal(labels[weights == 1], split.labels)


# Averages


def test_averages_by_hand():
    """Weights 1, 2, 3, ... after steps 1, 2, 3, ..."""
    weight = keras.Variable([0.0])
    uniform = WeightAverage([weight], replace(SGD, average="uniform", average_start=0.4), 5)
    # Momentum .5: rates 1, 1/2, 1/2, ... give 1, 1.5, 2.25, 3.125, 4.0625.
    recipe = replace(SGD, average="exponential", average_momentum=0.5)
    exponential = WeightAverage([weight], recipe, 5)
    # Uniform from step 3 on: 3, 3.5, 4; before that the weight itself.
    expected = [(1, 1), (2, 1.5), (3, 2.25), (3.5, 3.125), (4, 4.0625)]
    for step, averages in enumerate(expected, start=1):
        weight.assign([float(step)])
        for average, value in zip((uniform, exponential), averages, strict=True):
            average.update(tf.constant(step))
            assert_allclose(average.variables[0], [value], rtol=1e-6)


def test_averaged_weights_get_separate_statistics():
    """After one pass with momentum 0, moving mean and variance are the means over the batches."""
    trainer = trainer_of(replace(SGD, average="uniform"), batch_norm=True, aux=False)
    iterator = iter(batches_of(trainer, batch_norm=True, aux=False))
    for _ in range(4):
        trainer.step(next(iterator))
    before = trainer.state()
    with trainer.averaged(sharded_batches_of(trainer, batch_norm=True, aux=False)):
        for weight, average in zip(
            trainer.model.trainable_weights, trainer.average.variables, strict=True
        ):
            assert_array_equal(weight, average)
        layer = trainer.model.get_layer("conv1_bn")
        conv = keras.Model(trainer.model.input, trainer.model.get_layer("conv1_conv").output)
        seen = [
            np.array(conv(images)) for images, _ in islice(batches_of(trainer), STATISTICS_BATCHES)
        ]
        means = np.mean([x.mean(axis=(0, 1, 2)) for x in seen], axis=0)
        variances = np.mean([x.var(axis=(0, 1, 2)) for x in seen], axis=0)
        assert_allclose(layer.moving_mean, means, atol=1e-5)
        assert_allclose(layer.moving_variance, variances, rtol=1e-4)
    after = trainer.state()
    for name, values in before.items():
        assert_array_equal(after[name], values)
    assert layer.momentum == 0.9


def test_a_state_of_another_network_is_refused():
    state = trainer_of(SGD).state()
    with pytest.raises(ValueError, match=r"one that differs in .*'model/"):
        trainer_of(SGD, batch_norm=True).restore(state)


# Precision, compilation, fine-tuning


def test_bfloat16_computes_in_half_precision_and_deploys_in_float32():
    recipe = replace(SGD, precision="mixed_bfloat16")
    trainer = trainer_of(recipe, batch_norm=True)
    assert trainer.model.get_layer("conv1_conv").compute_dtype == "bfloat16"
    trainer.step(next(iter(batches_of(trainer, batch_norm=True))))
    deployed = trainer.deployed()
    assert {layer.compute_dtype for layer in deployed.layers} == {"float32"}
    assert {weight.dtype for weight in deployed.weights} == {"float32"}
    own = trainer.model.get_layer("conv1_conv").kernel
    assert_array_equal(deployed.get_layer("conv1_conv").kernel, own)
    assert keras.config.dtype_policy().name == "float32"


def test_the_compiled_step_equals_the_step():
    plain, compiled = trainer_of(SGD), trainer_of(replace(SGD, jit_compile=True))
    batch = next(iter(batches_of(plain)))
    assert_allclose(
        list(plain.step(batch)[0].values()), list(compiled.step(batch)[0].values()), rtol=1e-5
    )
    for one, two in zip(weights_of(plain.model), weights_of(compiled.model), strict=True):
        assert_allclose(one, two, atol=1e-6)


def test_frozen_layers_and_their_statistics_are_unchanged():
    recipe = replace(SGD, freeze_until="3a")
    trainer = trainer_of(recipe, batch_norm=True)
    before = {layer.name: layer.get_weights() for layer in trainer.model.layers}
    trainer.step(next(iter(batches_of(trainer, batch_norm=True))))
    changed = {
        layer.name
        for layer in trainer.model.layers
        if any(
            not np.array_equal(old, new)
            for old, new in zip(before[layer.name], layer.get_weights(), strict=True)
        )
    }
    assert not changed & {"conv1_conv", "conv1_bn"}
    assert {"3a_1x1_conv", "3a_1x1_bn", "predictions_logits"} <= changed


def test_initial_weights_from_a_file_except_for_other_classes(tmp_path):
    spec = one_module_spec(aux=False)
    source = build_network(spec)
    source.save(tmp_path / "source.keras")
    other = replace(one_module_spec(), classes=5)
    model = build_network(other, auxiliary=True)
    initialization = initialize(model, tmp_path / "source.keras", other)
    assert set(initialization.reinitialized) == {
        "predictions_logits",
        "aux_1_proj_conv",
        "aux_1_dense",
        "aux_1_logits",
    }
    for name in ("conv1_conv", "3a_3x3_conv", "3a_pool_proj_conv"):
        assert_array_equal(model.get_layer(name).kernel, source.get_layer(name).kernel)


def test_initial_weights_of_another_network_are_refused(tmp_path):
    build_network(one_module_spec(aux=False)).save(tmp_path / "source.keras")
    spec = one_module_spec(batch_norm=True, aux=False)
    with pytest.raises(ValueError, match=r"Expected initial weights .*\n - conv1_conv: "):
        initialize(build_network(spec), tmp_path / "source.keras", spec)
    with pytest.raises(ValueError, match=r"Expected a \.keras file"):
        initialize(build_network(spec), tmp_path / "none.keras", spec)
