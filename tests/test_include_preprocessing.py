"""A network that includes its pixel convention: raw pixels give the same scores everywhere."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from numpy.testing import assert_allclose
from test_preprocessing import BY_HAND

from keras_inception import GoogLeNet, export, model_preprocessing, preprocess_input
from keras_inception.exporters.inference_graph import fold_batch_norm, merge_parallel_convs
from keras_inception.network.build import build_network
from keras_inception.network.endpoints import endpoints
from keras_inception.runtimes.load import load_network
from keras_inception.weights.manifest import MANIFEST
from keras_inception.weights.readers import pixel_conventions

INSIDE = sorted(BY_HAND.keys() - {"raw"})


def pixels(count=2, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, channels), "uint8")


def pair(convention, **options):
    """The same network without and with the convention inside."""
    spec = replace(tiny_spec(norm="bn"), pixels=convention)
    keras.utils.set_random_seed(0)
    outside = build_network(spec, **options)
    inside = build_network(spec, include_preprocessing=True, **options)
    inside.set_weights(outside.get_weights())
    return outside, inside


@pytest.mark.parametrize("convention", INSIDE)
def test_the_layer_inside_gives_the_values_worked_out_by_hand(convention):
    _, inside = pair(convention)
    first = keras.Model(inside.input, inside.get_layer(f"preprocessing_{convention}").output)
    pixel = np.broadcast_to(np.array([10, 20, 200], "float32"), (1, 32, 32, 3))
    assert_allclose(first(pixel)[0, 7, 9], BY_HAND[convention], rtol=1e-5)


@pytest.mark.parametrize("convention", INSIDE)
def test_raw_pixels_give_the_scores_of_prepared_ones_before_and_after_saving(convention, tmp_path):
    outside, inside = pair(convention)
    expected = outside.predict(preprocess_input(pixels(), convention=convention), verbose=0)
    inside.save(tmp_path / "inside.keras")
    loaded = keras.saving.load_model(tmp_path / "inside.keras")
    for model in (inside, loaded, fold_batch_norm(inside), merge_parallel_convs(inside)):
        assert model_preprocessing(model) == "raw"
        assert_allclose(model.predict(pixels().astype("float32"), verbose=0), expected, atol=2e-6)
        prepared = preprocess_input(pixels(), model=model)
        assert_allclose(model.predict(prepared, verbose=0), expected, atol=2e-6)
    # The command line's loader does not preprocess the pixels twice.
    found = load_network(tmp_path / "inside.keras").scores(pixels().astype("float32"))
    assert_allclose(found, expected, atol=2e-6)


@pytest.mark.usefixtures("channels_first")
@pytest.mark.parametrize("convention", ["caffe", "torch"])
def test_channels_first(convention):
    outside, inside = pair(convention)
    first = np.moveaxis(pixels(), -1, 1).astype("float32")
    keras.config.set_image_data_format(
        "channels_last"
    )  # the model's data format decides, not the current global one
    prepared = preprocess_input(first, "channels_first", convention=convention)
    assert_allclose(inside(first), outside(prepared), atol=2e-6)


def test_grey_input_where_all_channels_are_equal():
    spec = tiny_spec(channels=1)
    inside = build_network(spec, include_preprocessing=True)
    first = keras.Model(inside.input, inside.get_layer("preprocessing_tf").output)
    assert_allclose(first(np.full((1, 32, 32, 1), 51.0))[0, 0, 0], [-0.6], rtol=1e-5)
    with pytest.raises(ValueError, match=r"Expected 3 channels .*'caffe'.*\(32, 32, 1\)"):
        build_network(replace(spec, pixels="caffe"), include_preprocessing=True)


def test_the_layer_has_no_weights_and_is_not_an_endpoint():
    outside, inside = pair("caffe")
    assert [w.path for w in inside.weights] == [w.path for w in outside.weights]
    assert endpoints(inside) == endpoints(outside)


def test_the_saved_file_loads_with_keras_alone(tmp_path):
    _, inside = pair("torch")
    inside.save(tmp_path / "inside.keras")
    script = (
        "import sys, keras, numpy; m = keras.models.load_model(sys.argv[1]); "
        "m.predict(numpy.zeros((1, 32, 32, 3)), verbose=0); "
        "assert 'keras_inception' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "inside.keras"], check=True)


def test_an_onnx_file_takes_raw_pixels_alone(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("tf2onnx", reason="needs the extra export")
    outside, inside = pair("torch")
    export(inside, tmp_path / "out", ["onnx"], images=pixels())
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert [tensor.name for tensor in session.get_inputs()] == ["pixels"]
    (scores,) = session.run(None, {"pixels": pixels().astype("float32")})
    expected = outside(preprocess_input(pixels().astype("float32"), model=outside))
    assert_allclose(scores, expected, atol=1e-5)


# --- weights for another convention -------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_of_another_convention_is_refused_with_the_remedy(tmp_path, inside):
    spec = tiny_spec()
    build_network(spec, include_preprocessing=inside).save(tmp_path / "tf.keras")
    torch = replace(spec, pixels="torch")
    with pytest.raises(ValueError, match=r"'torch'.*tf\.keras', whose convention is 'tf'.*pixels="):
        GoogLeNet(weights=tmp_path / "tf.keras", spec=torch)
    for include in (False, True):  # the convention may be inside or outside
        loaded = GoogLeNet(
            weights=tmp_path / "tf.keras", spec=spec, classes=5, include_preprocessing=include
        )
        assert model_preprocessing(loaded) == ("raw" if include else "tf")


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry.name)
def test_the_published_files_have_the_conventions_of_their_sources(entry):
    assert pixel_conventions(Path(entry.filename))[0] == entry.pixels


def test_weights_without_a_configuration_name_no_convention(tmp_path):
    network = build_network(tiny_spec())
    network.save_weights(tmp_path / "any.weights.h5")
    assert pixel_conventions(tmp_path / "any.weights.h5") == ()
    torch = replace(tiny_spec(), pixels="torch")
    loaded = GoogLeNet(weights=tmp_path / "any.weights.h5", spec=torch, classes=5)
    assert model_preprocessing(loaded) == "torch"
