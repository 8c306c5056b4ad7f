"""The SavedModel serves without Keras and without this package, and gives the model's scores."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_spec

from keras_inception import export
from keras_inception.export import export_saved_model
from keras_inception.network import build_network, inference_model
from keras_inception.preprocessing import preprocess_input

PIXELS = np.random.default_rng(0).uniform(0, 255, (5, 32, 32, 3)).astype(np.float32)


def network(**options: Any) -> keras.Model:
    """A tiny network whose scores differ from image to image."""
    keras.utils.set_random_seed(0)
    model = build_network(tiny_spec(**options), auxiliary=options.get("aux", False))
    for weight in model.weights:
        if weight.name == "moving_mean":  # as if it had been trained
            weight.assign(keras.random.normal(weight.shape, stddev=0.1))
    return model


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("norm", ["lrn", "bn"])
def test_it_serves_where_neither_keras_nor_this_package_can_be_imported(tmp_path, norm):
    """Any batch size, raw pixels, in a process of TensorFlow alone."""
    model = network(norm=norm)
    folder = tmp_path / "größe" / "saved_model"
    export_saved_model(model, folder, samples=PIXELS)
    np.save(tmp_path / "pixels.npy", PIXELS)
    script = """
import sys
sys.modules.update({"keras": None, "keras_inception": None})
import numpy as np
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
pixels = np.load(sys.argv[2])
five = serve(pixels=tf.constant(pixels))["scores"].numpy()
one = serve(pixels=tf.constant(pixels[3:4]))["scores"].numpy()
np.save(sys.argv[3], np.concatenate([five, one]))
"""
    paths = (folder, tmp_path / "pixels.npy", tmp_path / "scores.npy")
    ended = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    scores = np.load(tmp_path / "scores.npy")
    expected = np.asarray(model(PIXELS / 127.5 - 1, training=False))
    np.testing.assert_allclose(scores[:5], expected, atol=1e-5)
    np.testing.assert_allclose(scores[5], expected[3], atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3  # images are told apart
    assert left_in(folder.parent) == ["saved_model"]


def test_the_signature_names_its_input_and_output(tmp_path):
    export_saved_model(network(), tmp_path / "saved", samples=PIXELS)
    signature = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    _, inputs = signature.structured_input_signature
    assert inputs == {"pixels": tf.TensorSpec((None, 32, 32, 3), tf.float32, name="pixels")}
    assert {name: spec.shape.as_list() for name, spec in signature.structured_outputs.items()} == {
        "scores": [None, 5]
    }


def test_auxiliary_classifiers_are_left_out(tmp_path):
    model = network(aux=True)
    export_saved_model(model, tmp_path / "saved", samples=PIXELS)
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    scores = served(pixels=tf.constant(PIXELS))["scores"]
    expected = model(PIXELS / 127.5 - 1, training=False)["main"]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_an_existing_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "file").write_text("keep me")
    with pytest.raises(ValueError, match=r"Expected a new folder.*Received: .*saved'"):
        export_saved_model(network(), tmp_path / "saved", samples=PIXELS)
    assert (tmp_path / "saved" / "file").read_text() == "keep me"
    assert left_in(tmp_path) == ["saved"]


def test_a_wrong_convention_in_the_graph_is_found_and_nothing_is_left(tmp_path, monkeypatch):
    """The graph preprocesses otherwise than the model was checked with."""

    def preprocess(pixels: Any, *, convention: Any) -> Any:
        traced = not isinstance(pixels, np.ndarray)
        return preprocess_input(pixels, convention="inception5h" if traced else convention)

    monkeypatch.setattr(export, "preprocess_input", preprocess)
    with pytest.raises(
        ValueError, match=r"within 1e-05 of the model's\. Received: a difference of"
    ):
        export_saved_model(network(), tmp_path / "saved", samples=PIXELS)
    assert left_in(tmp_path) == []


def test_scores_that_are_not_numbers_are_no_parity(tmp_path):
    model = network()
    model.get_layer("predictions_logits").bias.assign([np.nan] * 5)
    with pytest.raises(ValueError, match="a difference of nan"):
        export_saved_model(model, tmp_path / "saved", samples=PIXELS)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch, error):
    """The error comes when the SavedModel is written aside and about to be checked."""

    def load(folder: str) -> None:
        assert (Path(folder) / "saved_model.pb").is_file()
        raise error

    monkeypatch.setattr(tf.saved_model, "load", load)
    with pytest.raises(type(error)):
        export_saved_model(network(), tmp_path / "saved", samples=PIXELS)
    assert left_in(tmp_path) == []


def test_a_model_that_does_not_name_its_convention_is_refused(tmp_path):
    inputs = keras.Input((32, 32, 3), name="anything")
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(ValueError, match="Expected an input named pixels_CONVENTION"):
        export_saved_model(model, tmp_path / "saved", samples=PIXELS)
    assert left_in(tmp_path) == []


@pytest.mark.usefixtures("channels_first")
def test_channels_first(tmp_path):
    model = inference_model(network())
    pixels = PIXELS.transpose(0, 3, 1, 2)
    export_saved_model(model, tmp_path / "saved", samples=pixels)
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    expected = np.asarray(model(pixels / 127.5 - 1, training=False))
    np.testing.assert_allclose(served(pixels=pixels)["scores"], expected, atol=1e-5)
