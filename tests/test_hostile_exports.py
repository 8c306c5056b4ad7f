"""Exported networks of unknown origin: each is one error that names the file."""

import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_cli import assert_mistake, run

from keras_inception.runtimes.load import load_network
from keras_inception.runtimes.timing import time_models

SIZE = ("N", 8, 8, 3)
MEAN = helper.make_node("ReduceMean", ["pixels"], ["scores"], axes=[1, 2], keepdims=0)
FIRST = helper.make_node("ReduceMean", ["pixels"], ["first"], axes=[1, 2], keepdims=0)


def write(path: Path, nodes, *, shape=SIZE, kind=TensorProto.FLOAT, constants=(), outputs=True):
    """An ONNX file that classifies by the mean of the pixels, or something like it."""
    source = [helper.make_tensor_value_info("pixels", kind, shape)]
    target = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)] * outputs
    graph = helper.make_graph(nodes, "g", source, target, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def numbers(name: str, values) -> TensorProto:
    return numpy_helper.from_array(np.array(values), name)


def loop() -> onnx.NodeProto:
    """A loop without an end."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, None),
        ],
    )
    return helper.make_node("Loop", ["", "true", "first"], ["scores"], body=body)


def external(location: str) -> TensorProto:
    tensor = TensorProto(name="k", data_type=TensorProto.FLOAT, dims=[1, 3], data_location=1)
    for key, value in (("location", location), ("length", "12")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def with_external(location: str):
    return {
        "nodes": [FIRST, helper.make_node("Add", ["first", "k"], ["scores"])],
        "constants": [external(location)],
    }


CASES = {
    "no output": {"nodes": [MEAN], "outputs": False},
    "named sizes": {"nodes": [MEAN], "shape": ("N", "h", "w", 3)},
    "huge image": {"nodes": [MEAN], "shape": ("N", 200_000, 200_000, 3)},
    "two axes": {
        "nodes": [helper.make_node("Identity", ["pixels"], ["scores"])],
        "shape": ("N", 3),
    },
    "integers": {"nodes": [MEAN], "kind": TensorProto.INT64},
    "a scalar": {"nodes": [helper.make_node("ReduceMean", ["pixels"], ["scores"], keepdims=0)]},
    "not finite": {"nodes": [FIRST, helper.make_node("Div", ["first", "first"], ["scores"])]},
    "unknown operator": {"nodes": [helper.make_node("Nonsense", ["pixels"], ["scores"])]},
    "huge constant": {
        "nodes": [
            helper.make_node("ConstantOfShape", ["shape"], ["k"]),
            helper.make_node("ReduceMean", ["k"], ["scores"], axes=[2], keepdims=0),
        ],
        "constants": [numbers("shape", [1, 10, 3_000_000_000])],
    },
    "many images": {
        "nodes": [
            helper.make_node("Expand", ["pixels", "shape"], ["k"]),
            helper.make_node("ReduceMean", ["k"], ["scores"], axes=[1, 2], keepdims=0),
        ],
        "constants": [numbers("shape", [9_000_000, 1, 1, 1])],
    },
    "external absolute": with_external("/etc/passwd"),
    "external above": with_external("../../../../../../etc/passwd"),
    "external link": with_external("link.bin"),
    "external pipe": with_external("pipe.bin"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_crafted_onnx_file_is_one_error(tmp_path, case):
    path = tmp_path / "model.onnx"
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.bin")
    write(path, **CASES[case])
    with pytest.raises(ValueError, match=r"Expected .*model\.onnx"):
        load_network(path)


def timed(path: Path) -> object:
    return time_models([path])


@pytest.mark.parametrize("opened", [load_network, timed])
def test_an_endless_loop_is_ended(tmp_path, monkeypatch, opened):
    monkeypatch.setattr("keras_inception.runtimes.probe._SECONDS", 2.0)
    write(tmp_path / "model.onnx", [FIRST, loop()], constants=[numbers("true", True)])
    with pytest.raises(ValueError, match=r"model\.onnx.*more than \d+ s"):
        opened(tmp_path / "model.onnx")


def test_a_network_within_the_limits_is_loaded(tmp_path):
    write(tmp_path / "model.onnx", [MEAN])
    network = load_network(tmp_path / "model.onnx")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(network.scores(pixels), pixels.mean((1, 2)), rtol=1e-5)
    assert network.labels == ("0", "1", "2")


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite", "model.xml"])
@pytest.mark.parametrize("content", [b"", b"<net", bytes(range(256)) * 20])
def test_bytes_that_are_no_network(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "image.png").touch()
    assert_mistake(run("predict", tmp_path / name, tmp_path / "image.png"), name)


@pytest.mark.parametrize("opened", [load_network, timed])
def test_a_pipe_in_the_place_of_weights_is_not_read(tmp_path, opened):
    (tmp_path / "model.xml").write_text('<net name="x" version="11"><layers/><edges/></net>')
    os.mkfifo(tmp_path / "model.bin")
    with pytest.raises(ValueError, match=re.escape("model.bin', which is a pipe")):
        opened(tmp_path / "model.xml")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100])
def test_a_folder_that_is_no_saved_model(tmp_path, content):
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        load_network(tmp_path)
