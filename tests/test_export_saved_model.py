"""The SavedModel outside this package: without Keras, with TensorFlow's tools, in C."""

import json
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_spec

from keras_inception.data.sample import load_sample
from keras_inception.exporters.calibration import Images
from keras_inception.exporters.inference_graph import fold_batch_norm
from keras_inception.exporters.job import export
from keras_inception.exporters.parity import agreement, require_agreement
from keras_inception.exporters.saved_model import export_saved_model
from keras_inception.images.conventions import preprocess_input
from keras_inception.network.build import build_network
from keras_inception.network.endpoints import feature_extractor
from keras_inception.runtimes.load import load_network

LABELS = ("zero", "one, with a comma", "zwei", "three", "four")


def trained_like(model: keras.Model) -> keras.Model:
    """Set statistics and gammas as after training: none is 0 or 1."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def real_images(channels: int = 3, count: int = 6) -> np.ndarray:
    """Images of the bundled sample, enlarged to 32 x 32."""
    images = tf.image.resize(load_sample().test.images[:count], (32, 32))
    return np.repeat(np.round(images).astype(np.uint8), channels, axis=-1)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return trained_like(build_network(tiny_spec(norm="bn", aux=True), auxiliary=True))


@pytest.fixture(scope="module")
def folder(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "saved_model"
    export_saved_model(
        model,
        path,
        samples=real_images(),
        labels=LABELS,
        top=3,
        features=("3a_5x5", "avg_pool"),
        documents={"spec.json": tiny_spec(norm="bn", aux=True).to_json()},
    )
    return path


@pytest.fixture(scope="module")
def expected(model: keras.Model) -> np.ndarray:
    inputs = preprocess_input(real_images(), convention="tf")
    return model.predict_on_batch(inputs)["main"]


def test_images_returns_the_model_s_scores(folder: Path, expected: np.ndarray) -> None:
    serve = tf.saved_model.load(str(folder)).signatures["images"]

    for count in (1, 6):
        received = serve(pixels=tf.constant(real_images()[:count], tf.float32))["scores"]
        np.testing.assert_allclose(received, expected[:count], atol=1e-5)


def test_features_returns_the_model_s_endpoints(model: keras.Model, folder: Path) -> None:
    inputs = preprocess_input(real_images(), convention="tf")
    serve = tf.saved_model.load(str(folder)).signatures["features"]

    received = serve(pixels=tf.constant(real_images(), tf.float32))

    assert sorted(received) == ["3a_5x5", "avg_pool"]
    for name, tensor in feature_extractor(model, ["3a_5x5", "avg_pool"])(inputs).items():
        assert np.max(np.abs(tensor)) > 0.01
        np.testing.assert_allclose(received[name], tensor, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("signature", ["serving_default", "images", "features"])
def test_an_empty_batch_has_an_empty_answer(folder: Path, signature: str) -> None:
    serve = tf.saved_model.load(str(folder)).signatures[signature]
    ((name, spec),) = serve.structured_input_signature[1].items()

    received = serve(**{name: tf.zeros((0, *spec.shape[1:]), spec.dtype)})

    assert {name: tuple(value.shape) for name, value in received.items()} == {
        "serving_default": {"classes": (0, 3), "indices": (0, 3), "scores": (0, 3), "valid": (0,)},
        "images": {"scores": (0, 5)},
        "features": {"3a_5x5": (0, 8, 8, 4), "avg_pool": (0, 11)},
    }[signature]


def test_an_image_beyond_the_pixel_bound_is_not_valid(folder: Path) -> None:
    """By its header alone: the file holds no pixels."""
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    good = tf.io.encode_png(real_images()[0]).numpy()
    huge = good[:16] + struct.pack(">II", 20_000, 20_000) + good[24:]

    answer = serve(images=tf.constant([good, huge]))

    assert answer["valid"].numpy().tolist() == [True, False]
    assert json.loads((folder / "preprocessing.json").read_text())["most_pixels"] == 80_000_000


def without_keras_and_package(program: str, *arguments: str) -> Any:
    """Return the JSON that a program prints in a process without Keras and this package."""
    # None in sys.modules makes an import fail, and the package is not on the path.
    block = "import sys\nsys.modules['keras'] = sys.modules['keras_inception'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", block + program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    return json.loads(done.stdout)


SERVE_FILES = """
import json
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
files = tf.constant([open(path, "rb").read() for path in sys.argv[2:]])
answer = {key: value.numpy() for key, value in serve(images=files).items()}
answer["classes"] = [[name.decode() for name in row] for row in answer["classes"]]
print(json.dumps({key: value if isinstance(value, list) else value.tolist()
                  for key, value in answer.items()}))
"""


def test_files_are_served_without_keras_and_this_package(
    folder: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    paths = [tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "good2.png"]
    for path, image in zip(paths[::2], real_images(), strict=False):
        path.write_bytes(tf.io.encode_png(image).numpy())
    paths[1].write_bytes(b"no image")

    answer = without_keras_and_package(SERVE_FILES, str(folder), *map(str, paths))

    assert answer["valid"] == [True, False, True]
    for row, scores in ((0, expected[0]), (2, expected[1])):
        order = np.argsort(-scores)[:3]
        assert answer["indices"][row] == order.tolist()
        assert answer["classes"][row] == [LABELS[index] for index in order]
        np.testing.assert_allclose(answer["scores"][row], scores[order], atol=1e-5)
    assert answer["indices"][1] == [-1, -1, -1]
    assert answer["classes"][1] == ["", "", ""]
    assert answer["scores"][1] == [0, 0, 0]


def test_files_in_addition_to_the_graph(folder: Path) -> None:
    steps = json.loads((folder / "preprocessing.json").read_text())

    assert (folder / "assets" / "labels.txt").read_text().splitlines() == list(LABELS)
    assert (folder / "spec.json").read_text() == tiny_spec(norm="bn", aux=True).to_json()
    assert (steps["height"], steps["width"], steps["pixels"]) == (32, 32, "tf")
    assert steps["scale"] == [1 / 127.5] * 3
    assert steps["offset"] == [1.0] * 3


def run_cli_tool(*arguments: str) -> str:
    tool = Path(sys.executable).with_name("saved_model_cli")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_saved_model_cli_shows_every_signature(folder: Path) -> None:
    shown = run_cli_tool("show", "--dir", str(folder), "--tag_set", "serve", "--all")

    for signature in ("serving_default", "images", "features"):
        assert f"signature_def['{signature}']" in shown
    assert re.search(r"inputs\['images'\] tensor_info:\s+dtype: DT_STRING\s+shape: \(-1\)", shown)
    assert "shape: (-1, 32, 32, 3)" in shown


@pytest.mark.parametrize("signature", ["serving_default", "images", "features"])
def test_saved_model_cli_runs_every_signature(
    folder: Path, expected: np.ndarray, signature: str, tmp_path: Path
) -> None:
    name = "images" if signature == "serving_default" else "pixels"
    inputs = real_images()[:2].astype(np.float32)
    if name == "images":
        inputs = np.array([tf.io.encode_png(image).numpy() for image in real_images()[:2]])
    np.save(tmp_path / "inputs.npy", inputs)

    run_cli_tool(
        *("run", "--dir", str(folder), "--tag_set", "serve", "--signature_def", signature),
        *("--inputs", f"{name}={tmp_path / 'inputs.npy'}", "--outdir", str(tmp_path)),
    )

    if signature == "features":
        assert np.load(tmp_path / "3a_5x5.npy").shape == (2, 8, 8, 4)
    elif signature == "images":
        np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected[:2], atol=1e-5)
    else:
        best = np.argmax(expected[:2], axis=1)
        assert np.load(tmp_path / "indices.npy")[:, 0].tolist() == best.tolist()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs the compiler gcc")
def test_the_c_api_loads_and_runs_it(folder: Path, expected: np.ndarray, tmp_path: Path) -> None:
    library = Path(tf.sysconfig.get_lib())
    program = tmp_path / "serve"
    subprocess.run(
        [
            *("gcc", "-o", str(program), str(Path(__file__).with_name("serve_saved_model.c"))),
            *("-I", tf.sysconfig.get_include(), f"-Wl,-rpath,{library}", f"-L{library}"),
            *("-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"),
        ],
        check=True,
    )
    pixels = tmp_path / "pixels.bin"
    pixels.write_bytes(real_images()[:1].astype(np.float32).tobytes())
    graph_input, graph_output = _graph_names(folder, "images", "pixels", "scores")

    done = subprocess.run(
        [program, str(folder), str(pixels), graph_input, *graph_output.split(":"), "32", "3"],
        capture_output=True,
        text=True,
        check=True,
    )

    received = [float(value) for value in done.stdout.split()]
    np.testing.assert_allclose(received, expected[0], atol=1e-5)


def _graph_names(folder: Path, signature: str, key: str, output: str) -> tuple[str, str]:
    """Return the names of an input and an output in the graph, as mapped by the signature."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    mapped = saved.meta_graphs[0].signature_def[signature]
    return mapped.inputs[key].name.split(":")[0], mapped.outputs[output].name


def test_a_wrong_number_of_labels_for_export_is_refused(model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected 5 labels"):
        export_saved_model(model, tmp_path / "x", samples=real_images(), labels=["one"])
    assert not any(tmp_path.iterdir())


def test_samples_of_another_size_are_refused(model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="samples of dtype uint8 and shape N x 32 x 32 x 3"):
        export_saved_model(model, tmp_path / "x", samples=real_images()[:, :30])


def test_an_existing_folder_is_refused(model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected a new folder"):
        export_saved_model(model, tmp_path, samples=real_images())


def test_a_difference_leaves_no_files(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: keras.Model, precision: str) -> keras.Model:
        network = fold_batch_norm(model)
        layer = network.get_layer("predictions_logits")
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, bias + np.arange(5) * 0.1])
        return network

    monkeypatch.setattr("keras_inception.exporters.saved_model.fold_batch_norm", wrong)
    with pytest.raises(ValueError, match=r"scores within 1e-05 of the model's\. Received"):
        export_saved_model(model, tmp_path / "x", samples=real_images())
    assert not any(tmp_path.iterdir())


def test_bfloat16_agrees_on_the_first_class(model: keras.Model, tmp_path: Path) -> None:
    found = export_saved_model(model, tmp_path / "x", samples=real_images(), precision="bfloat16")

    assert found.images == 6
    assert found.same_first == 1.0
    assert 1e-6 < found.largest_difference < 0.02


def _in_convention(pixels: np.ndarray, convention: str) -> np.ndarray:
    """Preprocess as in the sources of BVLC and inception5h, or else with keras.applications."""
    if convention == "caffe":
        return pixels[..., ::-1] - np.float32([104, 117, 123])
    if convention == "inception5h":
        return pixels - 117
    return keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode=convention)


@pytest.mark.parametrize("convention", ["caffe", "tf", "torch", "inception5h"])
def test_the_pixel_convention_of_the_weights_is_in_the_graph(tmp_path, convention) -> None:
    """Uses pixels of three colours, with the SavedModel and a file of another runtime."""
    keras.utils.set_random_seed(0)
    model = trained_like(build_network(replace(tiny_spec(norm="bn"), pixels=convention)))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    inputs = _in_convention(pixels.astype(np.float32), convention)

    export(model, tmp_path / "x", ["saved_model", "litert"], images=Images(pixels, pixels))

    expected = model.predict_on_batch(inputs)
    for name in ("saved_model", "model.tflite"):
        received = load_network(tmp_path / "x" / name).scores(pixels.astype(np.float32))
        np.testing.assert_allclose(received, expected, atol=1e-5)
    text = (tmp_path / "x" / "saved_model" / "preprocessing.json").read_text()
    assert json.loads(text)["pixels"] == convention


@pytest.mark.usefixtures("channels_first")
def test_a_channels_first_model_serves_channels_last_pixels(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = trained_like(build_network(tiny_spec(norm="bn")))

    export_saved_model(model, tmp_path / "x", samples=real_images())

    serve = tf.saved_model.load(str(tmp_path / "x")).signatures["images"]
    inputs = real_images().transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    received = serve(pixels=tf.constant(real_images(), tf.float32))["scores"]
    np.testing.assert_allclose(received, model.predict_on_batch(inputs), atol=1e-5)


def test_a_grey_lrn_network_serves_colour_files(tmp_path: Path) -> None:
    model = build_network(tiny_spec(norm="lrn", channels=1))
    export_saved_model(model, tmp_path / "x", samples=real_images(1))
    colour = np.repeat(real_images(1)[0], 3, axis=-1)

    serve = tf.saved_model.load(str(tmp_path / "x")).signatures["serving_default"]
    answer = serve(images=tf.stack([tf.io.encode_png(colour)]))

    expected = model.predict_on_batch(real_images(1)[:1] / np.float32(127.5) - 1)[0]
    np.testing.assert_allclose(answer["scores"][0], np.sort(expected)[::-1], atol=1e-5)


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_an_interrupted_export_leaves_no_files(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def load(folder: str) -> None:
        assert (Path(folder) / "saved_model.pb").is_file()
        raise error

    monkeypatch.setattr(tf.saved_model, "load", load)
    with pytest.raises(type(error)):
        export_saved_model(model, tmp_path / "x", samples=real_images())
    assert not any(tmp_path.iterdir())


def test_non_finite_scores_leave_no_files(tmp_path: Path) -> None:
    model = build_network(tiny_spec())
    model.get_layer("predictions_logits").bias.assign([np.nan] * 5)
    with pytest.raises(ValueError, match="a difference of nan"):
        export_saved_model(model, tmp_path / "x", samples=real_images())
    assert not any(tmp_path.iterdir())


def test_a_model_that_does_not_name_its_convention_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((32, 32, 3), name="anything")
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(ValueError, match="Expected an input named pixels_CONVENTION"):
        export_saved_model(model, tmp_path / "x", samples=real_images(), labels=None)
    assert not any(tmp_path.iterdir())


def test_agreement_counts_first_classes_and_the_largest_difference() -> None:
    expected = np.array([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]])
    received = np.array([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1]])

    found = agreement(expected, received)

    assert found.images == 3
    assert found.largest_difference == pytest.approx(0.7)
    assert found.same_first == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"first class on 98%.*66\.7%"):
        require_agreement(found, "It", "int8")


def test_non_finite_scores_are_refused() -> None:
    found = agreement(np.ones((2, 2)), np.full((2, 2), np.nan))

    for precision in ("float32", "int8"):
        with pytest.raises(ValueError, match="It: expected"):
            require_agreement(found, "It", precision)
