"""Fine-tuned models in every form of Keras's transfer-learning guide, loaded as by the commands.

The expected scores are those of the user's own model, called on the pixels that it was built for.
"""

import json
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_spec
from keras import layers
from PIL import Image
from test_cli import run

from keras_inception import GoogLeNet, export, freeze_until, preprocess_input
from keras_inception.evaluation.visualize import class_activation_maps
from keras_inception.exporters.inference_graph import fold_batch_norm, merge_parallel_convs
from keras_inception.network.nested import flat_classifier
from keras_inception.runtimes.keras_model import keras_network, load_keras


def network(**options) -> keras.Model:
    spec = tiny_spec(norm="bn")
    return GoogLeNet(include_top=False, weights=None, input_shape=(32, 32, 3), spec=spec, **options)


def sequential() -> keras.Model:
    return keras.Sequential([network(pooling="avg"), layers.Dense(3, activation="softmax")])


def flat() -> keras.Model:
    features = network(pooling="avg")
    return keras.Model(features.input, layers.Dense(3, "softmax")(features.output))


def flat_with_a_nested_head() -> keras.Model:
    features = network(pooling="avg")
    head = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(3), layers.Softmax()])
    return keras.Model(features.input, head(features.output))


def guide() -> keras.Model:
    """https://keras.io/guides/transfer_learning: rescaling, frozen base, one logit for two."""
    base = network()
    base.trainable = False
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(scale=1 / 127.5, offset=-1)(inputs)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(inputs, layers.Dense(1)(x))


def augmented() -> keras.Model:
    base = network()
    inputs = keras.Input((32, 32, 3))
    x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])(inputs)
    x = preprocess_input(x, model=base)
    x = layers.GlobalAveragePooling2D()(base(x, training=False))
    x = layers.Dense(7, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def augmented_in_the_networks_own_convention() -> keras.Model:
    return keras.Sequential(
        [keras.Input((32, 32, 3)), layers.RandomFlip(), network(pooling="avg"), layers.Dense(3)]
    )


def raw_sequential() -> keras.Model:
    base = network(pooling="avg", include_preprocessing=True)
    return keras.Sequential([keras.Input((32, 32, 3)), base, layers.Dense(1, "sigmoid")])


def probabilities(outputs: np.ndarray) -> np.ndarray:
    return outputs


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def second_of_two(share: np.ndarray) -> np.ndarray:
    return np.concatenate([1 - share, share], axis=1)


def logit_of_two(logit: np.ndarray) -> np.ndarray:
    return second_of_two(1 / (1 + np.exp(-logit)))


# Each form, whether it takes pixels in [0, 255], and what its outputs mean.
FORMS = [
    (sequential, False, probabilities),
    (flat, False, probabilities),
    (flat_with_a_nested_head, False, probabilities),
    (guide, True, logit_of_two),
    (augmented, True, probabilities),
    (augmented_in_the_networks_own_convention, False, softmax),
    (raw_sequential, True, second_of_two),
]


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("float32")


@pytest.fixture(params=FORMS, ids=lambda form: form[0].__name__)
def saved(request, tmp_path) -> tuple[keras.Model, np.ndarray, str]:
    """A model of a form after a step of training and saving, its scores of the images, its path."""
    build, raw, scores = request.param
    keras.utils.set_random_seed(3)
    model = build()
    for weight in model.trainable_weights:  # every weight matters
        weight.assign(weight + 0.05 * keras.random.normal(weight.shape, seed=1))
    path = tmp_path / "tuned.keras"
    model.save(path)
    inputs = pixels() if raw else pixels() / 127.5 - 1
    return model, scores(model.predict(inputs, verbose=0)), path


def test_the_flat_graph_gives_the_models_scores(saved):
    model, expected, path = saved
    for loaded in (flat_classifier(model), load_keras(path)):
        found = keras_network(loaded, ("a", "b", "c")[: expected.shape[1]]).scores(pixels())
        np.testing.assert_allclose(found, expected, atol=1e-6)
        # The scores depend on the image, so equality is meaningful.
        assert np.ptp(expected, axis=0).max() > 1e-4


def test_exports_fold_and_merge_it(saved):
    _, expected, path = saved
    for graph in (fold_batch_norm, merge_parallel_convs):
        found = keras_network(graph(load_keras(path)), ()).scores(pixels())
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_class_maps_average_to_the_logits(saved):
    _, _, path = saved
    model = load_keras(path)
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    if len(dense) > 1:  # a map of each class needs a head of one layer
        with pytest.raises(ValueError, match=r"one dense layer.*keras\.Model\(features\.input"):
            class_activation_maps(model, pixels())
        return
    bias = model.get_layer("predictions_logits").get_weights()[1]
    logits = class_activation_maps(model, pixels()).mean(axis=(1, 2)) + bias
    np.testing.assert_allclose(
        softmax(logits), keras_network(model, ()).scores(pixels()), atol=1e-5
    )


def test_freezing_applies_to_the_nested_network(saved):
    model, _, _ = saved
    freeze_until(model, "4a")
    names = {weight.path.split("/")[-2] for weight in model.trainable_weights}
    inside = {name for name in names if name[:2] in ("3a", "3b", "4a", "co")}
    assert {name[:2] for name in inside} == {"4a"}
    assert names - inside  # the head stays trainable


def test_every_command_takes_it(saved, tmp_path):
    """`predict`, `serve`, `export` and `evaluate` give the scores of the user's model."""
    _, expected, path = saved
    names = "abc"[: expected.shape[1]]
    path.with_name("labels.txt").write_text("\n".join(names) + "\n")
    files = []
    for number, image in enumerate(pixels()):
        for part, folders in (("train", names), ("val", names[expected[number].argmax()])):
            for name in folders:  # in `val` each image lies in the folder of its first class
                folder = tmp_path / "data" / part / name
                folder.mkdir(parents=True, exist_ok=True)
                file = folder / f"{number}.png"
                Image.fromarray(image.astype(np.uint8)).save(file)
        files.append(file)

    def in_order(labels) -> list[float]:
        scores = {row["label"]: row["score"] for row in labels}
        return [scores[name] for name in names]

    result = run("predict", path, *files, "--json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    found = [in_order(row["labels"]) for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-5)

    pytest.importorskip("fastapi", reason="needs the extra serve")
    from served import post, running

    from keras_inception.inference.server_limits import Limits

    with running(path, Limits()) as url:
        for file, own in zip(files, expected, strict=True):
            status, answer = post(url, file.read_bytes())
            assert status == 200, answer
            np.testing.assert_allclose(in_order(answer["labels"]), own, atol=1e-5)

    export(path, tmp_path / "out", images=pixels().astype(np.uint8), features=("avg_pool", "4a"))
    signatures = tf.saved_model.load(str(tmp_path / "out" / "saved_model")).signatures
    scores = signatures["images"](pixels=tf.constant(pixels()))["scores"]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    answer = signatures["serving_default"](
        images=tf.constant([file.read_bytes() for file in files])
    )
    assert answer["valid"].numpy().all()
    np.testing.assert_allclose(answer["scores"], -np.sort(-expected), atol=1e-5)
    assert [name.decode() for name in answer["classes"].numpy()[:, 0]] == [
        names[row.argmax()] for row in expected
    ]
    features = signatures["features"](pixels=tf.constant(pixels()))
    assert features["4a"].shape[0] == 3
    np.testing.assert_allclose(
        np.mean(features["4a"], axis=(1, 2)), features["avg_pool"], atol=1e-5
    )

    result = run("evaluate", path, "--data", f"dir:{tmp_path / 'data'}", "--out", tmp_path / "new")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "new" / "metrics.json").read_text())["rows"]
    assert (row["images"], row["top_1"]) == (3, 1.0)


@pytest.mark.parametrize("pool", [layers.Flatten, layers.GlobalMaxPooling2D])
def test_exports_offer_the_endpoint_before_the_classifier(pool, tmp_path):
    features = network()
    pooled = pool(name="pooled")(features.output)
    model = keras.Model(features.input, layers.Dense(3, "softmax")(pooled))
    model.save(tmp_path / "tuned.keras")
    export(tmp_path / "tuned.keras", tmp_path / "out", images=pixels().astype(np.uint8))
    signatures = tf.saved_model.load(str(tmp_path / "out" / "saved_model")).signatures
    found = signatures["features"](pixels=tf.constant(pixels()))
    expected = keras.Model(features.input, pooled)(pixels() / 127.5 - 1)
    assert [*found] == ["pooled"]
    np.testing.assert_allclose(found["pooled"], expected, atol=1e-5)


# Refused forms: one line that names the supported form


def other(build: Callable[[], keras.Model]) -> pytest.RaisesExc:
    with pytest.raises(ValueError, match=r"keras\.Model\(features\.input") as caught:
        flat_classifier(build())
    assert "\n" not in str(caught.value)
    return caught


def on_an_input_tensor() -> keras.Model:
    inputs = keras.Input((32, 32, 3))
    base = network(input_tensor=layers.Rescaling(1 / 127.5, -1)(inputs), pooling="avg")
    return keras.Model(inputs, layers.Dense(3, "softmax")(base.output))


def two_networks() -> keras.Model:
    inputs = keras.Input((32, 32, 3))
    features = [network(pooling="avg", name=name)(inputs) for name in ("one", "two")]
    return keras.Model(inputs, layers.Dense(3, "softmax")(layers.Concatenate()(features)))


def two_outputs() -> keras.Model:
    inputs = keras.Input((32, 32, 3))
    x = network(pooling="avg")(inputs)
    return keras.Model(inputs, [layers.Dense(3, "softmax")(x), layers.Dense(2, "softmax")(x)])


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.features = network(pooling="avg")

    def call(self, pixels):
        return self.features(pixels)


def inside_a_subclass() -> keras.Model:
    model = Subclassed()
    model(np.zeros((1, 32, 32, 3), "float32"))
    return model


@pytest.mark.parametrize(
    "build", [on_an_input_tensor, two_networks, two_outputs, inside_a_subclass]
)
def test_other_forms_are_refused_and_the_flat_form_is_named(build):
    other(build)


def test_a_model_that_was_never_called_has_no_head():
    with pytest.raises(ValueError, match="never called"):
        flat_classifier(
            keras.Sequential([layers.RandomFlip(), network(pooling="avg"), layers.Dense(3)])
        )


def test_a_network_of_this_package_is_unchanged():
    model = GoogLeNet(weights=None, spec=tiny_spec(), classes=5)
    assert flat_classifier(model) is model
    logits = GoogLeNet(weights=None, spec=tiny_spec(), classes=5, classifier_activation=None)
    logits.set_weights(model.get_weights())
    inputs = pixels() / 127.5 - 1
    found = flat_classifier(logits).predict(inputs, verbose=0)
    np.testing.assert_allclose(found, model.predict(inputs, verbose=0), atol=1e-6)
