"""LiteRT files on devices: what MediaPipe reads of them, and TFLite-Micro's interpreter."""

import math
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from PIL import Image

from keras_inception.exporters.formats import FILES, Format, write_format
from keras_inception.inference.predictor import load
from keras_inception.network.build import build_network
from keras_inception.runtimes.load import load_network
from keras_inception.spec.variants import VARIANTS

LABELS = ("zero", "one, with a comma", "zwei", "drei ä", "four")
KINDS: tuple[Format, ...] = ("litert", "litert-float16", "litert-int8", "litert-uint8")


def written(model: keras.Model, kind: Format, folder: Path, labels: Any = LABELS) -> Path:
    """A file of a format, calibrated on noise."""
    shape = (20, *model.input_shape[1:])
    calibration = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path = folder / FILES[kind]
    write_format(model, path, kind, calibration=calibration, labels=labels)
    return path


def clear(model: keras.Model) -> keras.Model:
    """A model whose scores differ by class."""
    logits = model.get_layer("predictions_logits")
    kernel, bias = logits.get_weights()
    logits.set_weights([kernel * 8, bias])
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return clear(build_network(tiny_spec(norm="bn")))


@pytest.mark.parametrize("kind", KINDS)
def test_the_metadata_name_labels_and_normalization(
    kind: Format, model: keras.Model, tmp_path: Path
) -> None:
    pytest.importorskip("mediapipe")
    from mediapipe.tasks.metadata import metadata_schema_py_generated as schema
    from mediapipe.tasks.metadata import schema_py_generated as files

    path = written(model, kind, tmp_path)

    content = path.read_bytes()
    file = files.Model.GetRootAs(content)
    buffers = {
        file.Metadata(i).Name(): file.Metadata(i).Buffer() for i in range(file.MetadataLength())
    }
    data = file.Buffers(buffers[b"TFLITE_METADATA"]).DataAsNumpy().tobytes()
    assert schema.ModelMetadata.ModelMetadataBufferHasIdentifier(data, 0)
    found = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAs(data))
    assert found.name.decode() == model.name
    (graph,) = found.subgraphMetadata
    (image,), (score,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    assert image.content.contentProperties.colorSpace == schema.ColorSpaceType.RGB
    (unit,) = image.processUnits
    assert unit.optionsType == schema.ProcessUnitOptions.NormalizationOptions
    assert (unit.options.mean, unit.options.std) == ([0], [1])
    assert (image.stats.min, image.stats.max) == ([0], [255])
    assert (score.stats.min, score.stats.max) == ([0], [1])
    (labels,) = score.associatedFiles
    assert labels.type == schema.AssociatedFileType.TENSOR_AXIS_LABELS
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [labels.name.decode()]
        assert archive.read(labels.name.decode()).decode().splitlines() == [*LABELS]
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    places = [
        file.Buffers(i).DataAsNumpy().__array_interface__["data"][0] - start
        for i in range(file.BuffersLength())
        if file.Buffers(i).DataLength()
    ]
    assert {place % 16 for place in places} == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_mediapipe_classifies_with_the_file_alone(
    kind: Format, model: keras.Model, tmp_path: Path
) -> None:
    mediapipe = pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    path = written(model, kind, tmp_path)
    pixels = np.random.default_rng(5).integers(0, 256, (1, 32, 32, 3), np.uint8)
    expected = model.predict_on_batch(pixels / np.float32(127.5) - 1)[0]
    options = vision.ImageClassifierOptions(BaseOptions(model_asset_path=str(path)))

    with vision.ImageClassifier.create_from_options(options) as classifier:
        image = mediapipe.Image(mediapipe.ImageFormat.SRGB, pixels[0])
        (head,) = classifier.classify(image).classifications

    received = {answer.category_name: answer.score for answer in head.categories}
    assert next(iter(received)) == LABELS[expected.argmax()]
    tolerance = {"litert": 1e-4, "litert-float16": 0.01}.get(kind, 0.1)
    assert received == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=tolerance)


def test_a_grey_network_says_so_and_without_labels_classes_are_numbered(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    from mediapipe.tasks.metadata import metadata_schema_py_generated as schema

    grey = build_network(replace(tiny_spec(norm="bn"), input_shape=(32, 32, 1)))
    content = written(grey, "litert", tmp_path, None).read_bytes()

    start = content.index(b"M001") - 4
    found = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAs(content, start))
    (image,) = found.subgraphMetadata[0].inputTensorMetadata
    assert image.content.contentProperties.colorSpace == schema.ColorSpaceType.GRAYSCALE
    with zipfile.ZipFile(tmp_path / FILES["litert"]) as archive:
        assert archive.read("labels.txt").split() == [b"0", b"1", b"2", b"3", b"4"]


@pytest.fixture(scope="module")
def board_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(1)
    board = clear(build_network(VARIANTS["nano_96"]))
    return written(board, "litert-uint8", tmp_path_factory.mktemp("board"), None)


@pytest.mark.parametrize("kind", ["litert-float16", "litert-int8", "litert-uint8"])
def test_the_program_for_a_board_answers_as_the_package(
    kind: Format, model: keras.Model, tmp_path: Path
) -> None:
    """docs/on-device.md, with the runtime, NumPy and Pillow alone."""
    page = (Path(__file__).parents[1] / "docs" / "on-device.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"<!-- program: raspberry -->\n```python\n(.*?)```", page, re.DOTALL)
    path = written(model, kind, tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    side = 2 * model.input_shape[1]
    # A chessboard of single pixels, whose mean is half of white, between what a crop leaves out.
    board = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)
    wide = np.pad(board, ((0, 0), (20, 20)), constant_values=255)
    Image.fromarray(wide).convert("RGB").save(tmp_path / "image.png")
    guarded = "import sys\nfor name in ('keras', 'tensorflow', 'keras_inception'):\n"
    guarded += "    sys.modules[name] = None\n" + program.replace(FILES["litert-int8"], path.name)
    guarded += "np.save('pixels.npy', pixels)\n"
    command = [sys.executable, "-c", guarded, "image.png"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    pixels = np.load(tmp_path / "pixels.npy")
    assert pixels.shape == (1, *model.input_shape[1:])
    # Of the triangle's weights (1, 3, 3, 1) and (3, 3, 1) at the sides one half, or 4/7 at most.
    assert np.abs(pixels[:, 1:-1, 1:-1].astype(float) - 127.5).max() < 2
    assert np.abs(pixels.astype(float) - 127.5).max() <= 255 * (4 / 7 - 1 / 2) + 1
    shown = [line.rsplit(" ", 1) for line in result.stdout.splitlines()]
    expected = dict(load(path)(tmp_path / "image.png", top=5).labels)
    assert len(shown) == 3
    scale = 256 if kind == "litert-uint8" else 1
    for label, score in shown:
        assert float(score) / scale == pytest.approx(expected[label], abs=0.005)


# Those that docs/on-device.md adds to TFLite-Micro's resolver.
MICRO = {
    *("QUANTIZE", "MUL", "SUB", "CONV_2D", "MAX_POOL_2D", "CONCATENATION", "MEAN"),
    *("FULLY_CONNECTED", "SOFTMAX"),
}


def test_nano_96_has_operators_of_tflite_micro_alone(board_file: Path) -> None:
    files = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils")
    loaded = files.convert_bytearray_to_object(bytearray(board_file.read_bytes()))
    names = {files.opcode_to_name(loaded, index) for index in range(len(loaded.operatorCodes))}
    assert names == MICRO
    types = {tensor.type for tensor in loaded.subgraphs[0].tensors}
    kinds = files.schema_fb.TensorType
    assert types <= {kinds.INT8, kinds.UINT8, kinds.INT32}
    # The input and the output have all sizes fixed.
    assert loaded.subgraphs[0].tensors[loaded.subgraphs[0].inputs[0]].shape.tolist() == [
        1,
        96,
        96,
        3,
    ]


def test_nano_96_runs_in_256_kilobytes(board_file: Path) -> None:
    """Every tensor in TFLite-Micro's own interpreter; weights stay in the flash, below 64 kB."""
    runtime = pytest.importorskip("tflite_micro").runtime
    board = runtime.Interpreter.from_bytes(board_file.read_bytes(), arena_size=96 * 1024)
    scores = load_network(board_file).scores

    for pixels in np.random.default_rng(2).integers(0, 256, (5, 1, 96, 96, 3), np.uint8):
        board.set_input(pixels, 0)
        board.invoke()
        # XNNPACK and the reference kernels may round differently.
        expected = scores(pixels.astype(np.float32))
        np.testing.assert_allclose(board.get_output(0) / 256, expected, atol=2 / 256)
    assert board_file.stat().st_size < 64 * 1024
    assert math.isclose(float(expected.sum()), 1, abs_tol=0.05)


DEAD = {
    "a reduction": {"3a_3x3_reduce_bn": -100.0, "3a_3x3_bn": 0.7},
    "a convolution before a pool": {"conv1_bn": -100.0, "conv2_reduce_bn": 0.3},
    "all branches of a module": {
        **dict.fromkeys(("3a_1x1_bn", "3a_3x3_bn", "3a_5x5_bn", "3a_pool_proj_bn"), -100.0),
        **{"3b_1x1_bn": 1.0, "3b_3x3_bn": 0.5},
    },
    "the last module": dict.fromkeys(
        ("4a_1x1_bn", "4a_3x3_bn", "4a_5x5_bn", "4a_pool_proj_bn"), -100.0
    ),
    "the first convolution, and all that follows": {"conv1_bn": -100.0},
}
INT8: tuple[Format, ...] = ("litert-int8", "litert-uint8", "onnx-int8", "openvino-int8")


@pytest.mark.parametrize("kind", INT8)
@pytest.mark.parametrize("dead", DEAD.values(), ids=DEAD)
def test_int8_of_a_network_with_dead_layers_gives_its_scores(
    dead: dict[str, float], kind: Format, tmp_path: Path
) -> None:
    """XNNPACK refuses the scales that the converter gives them, and LiteRT then aborts."""
    if kind == "openvino-int8":
        pytest.importorskip("nncf")
    keras.utils.set_random_seed(1)
    network = clear(build_network(tiny_spec(norm="bn")))
    for name, value in dead.items():
        beta = network.get_layer(name).beta
        beta.assign(np.full(beta.shape, value, np.float32))
    path = written(network, kind, tmp_path, None)
    pixels = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), np.uint8)

    received = load_network(path).scores(pixels.astype(np.float32))

    expected = network.predict_on_batch(pixels / np.float32(127.5) - 1)
    np.testing.assert_allclose(received, expected, atol=0.05)
