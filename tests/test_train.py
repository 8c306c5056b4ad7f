"""Training: the folder of a run, its metrics, the recipe's optimizer and losses, refusals."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import RUN_FILES, tiny_module, tiny_spec
from PIL import Image

from keras_inception.data.splits import ImageData, Split
from keras_inception.exporters import parity
from keras_inception.network.build import build_network, inference_model
from keras_inception.spec.network import (
    AuxSpec,
    BatchNormSpec,
    ConvSpec,
    LRNSpec,
    NetworkSpec,
    PoolSpec,
    StageSpec,
)
from keras_inception.spec.recipe import Recipe
from keras_inception.spec.variants import variant_spec
from keras_inception.training.keras_fit import compile_model
from keras_inception.training.losses import with_class_weights
from keras_inception.training.progress import TrainingInterruptedError
from keras_inception.training.run import TrainResult, fitted_to_data, prepare_run, train

RECIPE = Recipe(name="for_tests", epochs=2, batch_size=16, base_learning_rate=0.2, shift=1)


def one_module_spec(**changes: Any) -> NetworkSpec:
    """The smallest network, which traces quickly: one convolution, one pool, one module."""
    spec = NetworkSpec(
        name="one_module",
        input_shape=(16, 16, 1),
        stem=(ConvSpec(name="conv1", filters=8, kernel_size=3), PoolSpec(name="pool1")),
        stages=(StageSpec(name="3", downsample=None, modules=(tiny_module("3a"),)),),
        batch_norm=BatchNormSpec(momentum=0.5),
        dropout_rate=0.1,
        classes=4,
    )
    return replace(spec, **changes)


def patterns() -> ImageData:
    """16 x 16 noise in four classes: dark, bright, horizontal stripes, vertical stripes."""
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = np.arange(count) % 4
        images = random.integers(0, 60, (count, 16, 16, 1), np.uint8)
        images[labels == 1] += 150
        images[labels == 2, ::4] += 150
        images[labels == 3, :, ::4] += 150
        return Split(images, labels)

    return ImageData("patterns", split(96), split(43), ("dark", "bright", "gestreift", "längs"))


DATA = patterns()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run without auxiliary classifiers, with smoothed labels."""
    folder = tmp_path_factory.mktemp("runs") / "größe" / "run"
    return train(one_module_spec(), DATA, replace(RECIPE, label_smoothing=0.1), folder)


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


# The folder of a run


def test_a_run_writes_exactly_these_files(result):
    assert {path.name for path in result.folder.iterdir()} == RUN_FILES
    assert (result.folder / "saved_model" / "saved_model.pb").is_file()


def test_spec_recipe_and_labels_round_trip(result):
    folder = result.folder
    spec = NetworkSpec.from_json((folder / "spec.json").read_text(encoding="utf-8"))
    recipe = Recipe.from_json((folder / "recipe.json").read_text(encoding="utf-8"))
    assert spec == one_module_spec()
    assert recipe == replace(RECIPE, label_smoothing=0.1)
    labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert tuple(labels) == DATA.class_names


def test_plots_open(result):
    sizes = {}
    for name in ("training_curve.png", "confusion_matrix.png"):
        with Image.open(result.folder / name) as image:
            image.verify()
            assert image.format == "PNG"
            sizes[name] = image.size
    assert sizes == {"training_curve.png": (1080, 432), "confusion_matrix.png": (540, 540)}


def test_metrics_are_those_of_the_file_loaded_with_keras_alone(result, tmp_path):
    """A new process that does not import this package loads model.keras and evaluates it."""
    np.savez(tmp_path / "test.npz", images=DATA.test.images, labels=DATA.test.labels)
    script = """
import json, sys
import keras, numpy as np
data = np.load(sys.argv[2])
model = keras.models.load_model(sys.argv[1])
scores = model.predict(data["images"].astype("float32") / 127.5 - 1, verbose=0)
assert "keras_inception" not in sys.modules
assert getattr(model, "optimizer", None) is None
own = scores[np.arange(len(scores)), data["labels"]]
right = scores.argmax(axis=1) == data["labels"]
print(json.dumps({
    "top_1": right.mean().item(),
    "loss": -np.log(own).mean().item(),
    "per_class": [right[data["labels"] == label].mean().item() for label in range(4)],
    "params": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
}))
"""
    command = [sys.executable, "-c", script, result.folder / "model.keras", tmp_path / "test.npz"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    counted = json.loads(ended.stdout)
    metrics = metrics_of(result.folder)
    assert metrics == result.metrics
    assert metrics["images"] == 43
    assert metrics["top_1"] == counted["top_1"]
    assert metrics["loss"] == pytest.approx(counted["loss"], rel=1e-5)
    assert list(metrics["per_class"]) == list(DATA.class_names)
    assert list(metrics["per_class"].values()) == counted["per_class"]
    assert metrics["params"] == counted["params"]
    assert metrics["top_5"] == 1  # of four classes
    assert metrics["seconds"] > 0


def test_the_last_history_entry_is_the_final_accuracy(result):
    history = metrics_of(result.folder)["history"]
    assert {key: len(values) for key, values in history.items()} == dict.fromkeys(
        ("accuracy", "loss", "val_accuracy", "val_loss"), 2
    )
    assert history["val_accuracy"][-1] == pytest.approx(result.metrics["top_1"])


def test_history_csv_is_the_history_of_the_metrics(result):
    with (result.folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("epoch") for row in rows] == [str(n + 1) for n in range(RECIPE.epochs)]
    columns = {name: [float(row[name]) for row in rows] for name in rows[0]}
    assert columns == metrics_of(result.folder)["history"]


def test_it_learns(result):
    assert result.metrics["history"]["loss"][1] < result.metrics["history"]["loss"][0]
    assert result.metrics["top_1"] > 0.4  # chance is a quarter


def test_macs_by_hand(result):
    """conv1 16x16x9x8; 3a on 8x8: 1x1 8x2, 3x3 8x2 and 9x2x3, 5x5 8x2 and 25x2x4, proj 8x2."""
    conv1 = 16 * 16 * 9 * 8
    module = 8 * 8 * (8 * 2 + 8 * 2 + 9 * 2 * 3 + 8 * 2 + 25 * 2 * 4 + 8 * 2)
    linear = (2 + 3 + 4 + 2) * 4
    assert result.metrics["macs"] == conv1 + module + linear


# Auxiliary classifiers, normalization, sizes


def test_auxiliary_classifiers_are_trained_but_not_saved(tmp_path):
    """Each image has one label; the saved file has one output and no auxiliary layer."""
    spec = one_module_spec(
        stem=(
            ConvSpec(name="conv1", filters=8, kernel_size=3),
            PoolSpec(name="pool1"),
            LRNSpec(name="norm1"),
        ),
        batch_norm=None,
        aux=(AuxSpec(name="aux_1", after="3a", filters=3, units=6),),
    )
    run = train(spec, DATA, replace(RECIPE, epochs=1), tmp_path / "run")
    assert {path.name for path in run.folder.iterdir()} == RUN_FILES
    saved = keras.models.load_model(run.folder / "model.keras")
    assert saved.output_shape == (None, 4)
    assert not [layer.name for layer in saved.layers if layer.name.startswith("aux")]
    history = run.metrics["history"]
    assert {"loss", "aux_1_loss", "main_loss", "accuracy", "val_loss", "val_accuracy"} == set(
        history
    )
    assert history["loss"][0] == pytest.approx(
        history["main_loss"][0] + 0.3 * history["aux_1_loss"][0], rel=1e-5
    )
    assert history["val_accuracy"][-1] == pytest.approx(run.metrics["top_1"])
    # Keras averages an output's own loss over batches, however short the last one is.
    assert history["val_loss"][-1] == pytest.approx(run.metrics["loss"], rel=0.05)


def test_an_unknown_endpoint_to_freeze_is_refused_before_the_folder_is_created(tmp_path):
    with pytest.raises(ValueError, match=r"Received: .*'9z'"):
        prepare_run(one_module_spec(), DATA, replace(RECIPE, freeze_until="9z"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_of_another_size_are_resized(tmp_path):
    run = train(
        one_module_spec(input_shape=(12, 20, 1)), DATA, replace(RECIPE, epochs=1), tmp_path / "run"
    )
    served = tf.saved_model.load(str(run.folder / "saved_model")).signatures["images"]
    assert served(pixels=tf.zeros((2, 12, 20, 1)))["scores"].shape == (2, 4)


# Seeds


def test_the_same_seed_gives_the_same_weights(result, tmp_path):
    again = train(one_module_spec(), DATA, replace(RECIPE, label_smoothing=0.1), tmp_path / "again")
    for weight, expected in zip(again.model.weights, result.model.weights, strict=True):
        np.testing.assert_array_equal(weight, expected, err_msg=weight.path)


class BegunError(Exception):
    """Raised when training begins."""


def first_weights(folder: Path, seed: int) -> dict[str, np.ndarray]:
    """The initial kernels of a run."""
    kernels = {}

    class StopAtOnce(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            for weight in self.model.weights:
                if weight.name == "kernel":
                    kernels[weight.path] = np.array(weight)
            raise BegunError

    with pytest.raises(BegunError):
        train(one_module_spec(), DATA, replace(RECIPE, seed=seed), folder, callbacks=[StopAtOnce()])
    return kernels


def test_another_seed_gives_other_initial_weights(tmp_path):
    weights = [first_weights(tmp_path / str(run), seed) for run, seed in enumerate((0, 0, 1))]
    assert len(weights[0]) == 8  # conv1, six in the module, the classifier
    for path, weight in weights[0].items():
        np.testing.assert_array_equal(weight, weights[1][path])
        assert not np.array_equal(weight, weights[2][path])


# Optimizer, schedule, losses


def logits_model(outputs: int = 1) -> keras.Model:
    """Return the input; with several outputs main, aux_1, aux_2, each larger."""
    inputs = keras.Input((4,))
    same = keras.layers.Dense(4, kernel_initializer="identity")(inputs)
    heads = {
        name: keras.layers.Rescaling(scale + 1, name=name)(same)
        for scale, name in enumerate(("main", "aux_1", "aux_2")[:outputs])
    }
    return keras.Model(inputs, heads if outputs > 1 else heads["main"])


def test_the_schedule_rises_to_its_peak_and_falls_to_zero():
    """Peak .012 x 64 / 256 = .003 after 10 of 100 steps, then (1 + cos(pi t)) / 2 over 90."""
    recipe = Recipe(name="r", epochs=1, batch_size=64, base_learning_rate=0.012, warmup=0.1)
    model = logits_model()
    compile_model(model, recipe, total_steps=100)
    expected = {0: 0, 5: 0.0015, 10: 0.003, 40: 0.00225, 55: 0.0015, 70: 0.00075, 100: 0}
    for step, rate in expected.items():
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == pytest.approx(rate, abs=1e-9), step


def test_without_warmup_the_schedule_starts_at_its_peak():
    recipe = Recipe(name="r", epochs=1, batch_size=256, base_learning_rate=0.5, warmup=0)
    model = logits_model()
    compile_model(model, recipe, total_steps=8)
    for step, rate in {0: 0.5, 4: 0.25, 8: 0}.items():
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == pytest.approx(rate, abs=1e-7), step


@pytest.mark.parametrize("total_steps", [1, 2])
def test_the_shortest_run_has_a_schedule(total_steps):
    model = logits_model()
    compile_model(model, Recipe(name="r", epochs=1, warmup=0.9), total_steps=total_steps)
    assert math.isfinite(float(model.optimizer.learning_rate))


def test_optimizers():
    model = logits_model()
    compile_model(model, Recipe(name="r", epochs=1, weight_decay=0.05), total_steps=9)
    assert isinstance(model.optimizer, keras.optimizers.AdamW)
    assert model.optimizer.weight_decay == 0.05
    sgd = Recipe(name="r", epochs=1, optimizer="sgd", momentum=0.8, weight_decay=2e-4)
    compile_model(model, sgd, total_steps=9)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert (model.optimizer.momentum, model.optimizer.weight_decay) == (0.8, 2e-4)


def cross_entropy(logits: np.ndarray, labels: list[int], smoothing: float = 0.0) -> float:
    """The mean over images from the definition, with part of the target spread evenly."""
    losses = []
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        log_probabilities = row - np.log(np.exp(row).sum())
        target = np.full(4, smoothing / 4)
        target[label] += 1 - smoothing
        losses.append(-(target * log_probabilities).sum())
    return float(np.mean(losses))


LOGITS = np.array([[1, 2, 0, -1], [0.5, 0, 3, 1], [0, 0, 0, 4]], np.float32)
LABELS = [1, 2, 0]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_by_hand(smoothing):
    """The rate of the first step is 0: validation sees the same weights."""
    recipe = Recipe(name="r", epochs=1, label_smoothing=smoothing, class_weights=(2, 2, 2, 2))
    model = logits_model()
    compile_model(model, recipe, total_steps=9)
    arrays = (LOGITS, np.array(LABELS))
    history = model.fit(*arrays, validation_data=arrays, batch_size=3, verbose=0).history
    assert history["loss"] == pytest.approx(
        [2 * cross_entropy(LOGITS, LABELS, smoothing)], rel=1e-5
    )
    assert history["val_loss"] == pytest.approx([cross_entropy(LOGITS, LABELS)], rel=1e-5)
    assert history["accuracy"] == pytest.approx([2 / 3])


def test_auxiliary_losses_weigh_as_the_recipe_says():
    model = logits_model(outputs=3)
    recipe = Recipe(name="r", epochs=1, label_smoothing=0.1, aux_loss_weight=0.25)
    compile_model(model, recipe, total_steps=9)
    labels = dict.fromkeys(("main", "aux_1", "aux_2"), np.array(LABELS))
    numbers = model.fit(LOGITS, labels, verbose=0).history
    parts = [cross_entropy(scale * LOGITS, LABELS, 0.1) for scale in (1, 2, 3)]
    assert numbers["loss"] == pytest.approx([parts[0] + 0.25 * (parts[1] + parts[2])], rel=1e-5)
    assert numbers["main_accuracy"] == pytest.approx([2 / 3])


def test_a_model_of_probabilities_is_refused():
    """At a gap of 30 nothing is left of the loss's gradient in float32."""
    model = build_network(one_module_spec())
    with pytest.raises(ValueError, match="Build with classifier_activation=None"):
        compile_model(model, RECIPE, total_steps=9)


# Early stopping, class weights


def test_patience_ends_the_run_with_the_best_epoch(tmp_path):
    """At a rate of 1e-9 nothing gets better after the first epoch."""
    recipe = replace(RECIPE, epochs=9, patience=2, base_learning_rate=1e-9)
    run = train(one_module_spec(), DATA, recipe, tmp_path / "run", verbose=0)
    accuracies = run.metrics["history"]["val_accuracy"]
    best = accuracies.index(max(accuracies)) + 1
    assert len(accuracies) == best + 2 < 9
    assert run.metrics["best_epoch"] == best
    model, kept = (
        keras.models.load_model(run.folder / name) for name in ("model.keras", "best.keras")
    )
    for weight, expected in zip(model.weights, kept.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_balanced_class_weights_by_hand():
    """Of 12 images: 6, 4, 2, 0 in four classes, so 12 / 4 = 3 over each count."""
    labels = np.repeat([0, 1, 2], [6, 4, 2])
    split = Split(np.zeros((12, 16, 16, 1), np.uint8), labels)
    data = ImageData("d", split, split, ("a", "b", "c", "d"))
    weights = with_class_weights(replace(RECIPE, class_weights="balanced"), data).class_weights
    assert weights == pytest.approx((0.5, 0.75, 1.5, 0))


# Failures


def test_a_failed_export_leaves_no_partial_files(tmp_path, monkeypatch):
    """The epoch's model is kept; there is no SavedModel, plot, metrics or temporary file."""
    monkeypatch.setattr(parity, "FLOAT32_TOLERANCE", -1)
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="expected scores within"):
        train(one_module_spec(), DATA, replace(RECIPE, epochs=1), folder)
    left = {path.name for path in folder.iterdir() if path.name != ".lock"}
    texts = {"spec.json", "recipe.json", "data.json", "labels.txt", "history.csv"}
    assert left == texts | {"model.keras", "best.keras", "snapshots"}
    assert keras.models.load_model(folder / "model.keras").output_shape == (None, 4)


def test_an_interrupted_save_keeps_the_last_complete_model(tmp_path, monkeypatch):
    """The second epoch's save is interrupted in the middle of its file."""
    whole = keras.Model.save
    saves = []

    def save(model: keras.Model, path: Path) -> None:
        saves.append(path)
        if len(saves) == 2:
            path.write_bytes(b"half a model")
            raise KeyboardInterrupt
        whole(model, path)

    monkeypatch.setattr(keras.Model, "save", save)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(one_module_spec(), DATA, RECIPE, folder)
    left = {path.name for path in folder.iterdir() if path.name != ".lock"}
    texts = {"spec.json", "recipe.json", "data.json", "labels.txt", "history.csv"}
    assert left == texts | {"model.keras", "best.keras", "snapshots"}
    assert keras.models.load_model(folder / "model.keras").output_shape == (None, 4)


def test_ctrl_c_before_the_first_step_stops_the_run(tmp_path):
    """TensorFlow may lose a KeyboardInterrupt while it builds the graph, so none is raised."""

    class StopEarly(keras.callbacks.Callback):
        def set_model(self, model: keras.Model) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterruptedError, match="Stopped after step 0") as caught:
        train(one_module_spec(), DATA, RECIPE, tmp_path / "run", callbacks=[StopEarly()])
    assert caught.value.by_hand
    assert signal.getsignal(signal.SIGINT) == before


def test_a_non_finite_loss_ends_the_run(tmp_path):
    """At a rate of 1e30 the weights overflow in the first epoch, so it is not kept."""
    recipe = replace(RECIPE, optimizer="sgd", base_learning_rate=1e30, warmup=0)
    with pytest.raises(FloatingPointError, match=r"at step \d, in epoch 1\. Lower base_learning"):
        train(one_module_spec(batch_norm=None), DATA, recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "model.keras").exists()


# Refused arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 5}, "4 classes and 1 channel. Received: classes=5"),
        ({"input_shape": (16, 16, 3)}, r"1 channel. Received: .*\(16, 16, 3\)"),
        ({"input_shape": (None, None, 1)}, "Expected a fixed input size"),
        ({"pixels": "caffe"}, "Expected 3 channels for the convention 'caffe'"),
        (
            {
                "stem": (
                    ConvSpec(name="conv1", filters=8, kernel_size=3),
                    PoolSpec(name="pool1", size=20, padding="valid"),
                )
            },
            "at least 20x20 pixels for 'one_module'",
        ),
        ({"aux": (AuxSpec(name="aux_1", after="3a", pool_size=9),)}, "at least 9x9 under 'aux_1'"),
    ],
)
def test_specs_that_do_not_fit_are_refused_before_anything_is_created(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        prepare_run(one_module_spec(**changes), DATA, RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    prepare_run(one_module_spec(), DATA, replace(RECIPE, batch_size=96), tmp_path / "run")
    with pytest.raises(ValueError, match=r"at most 96, .*Received: batch_size=97"):
        prepare_run(one_module_spec(), DATA, replace(RECIPE, batch_size=97), tmp_path / "run")


def test_unusable_output_folders_are_refused(tmp_path):
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(ValueError, match=r"new or empty folder\. .*holds files"):
        prepare_run(one_module_spec(), DATA, RECIPE, tmp_path)
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="Expected a folder that can be written"):
            prepare_run(one_module_spec(), DATA, RECIPE, path)
    assert (tmp_path / "file").read_text() == "keep me"
    prepare_run(one_module_spec(), DATA, RECIPE, tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


def test_fitted_to_data():
    spec = fitted_to_data(tiny_spec(size=64, channels=3, classes=7), DATA)
    assert spec == tiny_spec(size=16, channels=1, classes=4)
    assert fitted_to_data(variant_spec("small"), DATA).input_shape == (16, 16, 1)


def test_inference_model_shares_the_weights():
    """The network that `train` saves each epoch is the one in training."""
    network = build_network(
        one_module_spec(aux=(AuxSpec(name="aux_1", after="3a"),)), auxiliary=True
    )
    deployed = inference_model(network)
    assert all(any(own is weight for weight in network.weights) for own in deployed.weights)
