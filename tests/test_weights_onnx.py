"""ONNX: torch exports and the onnx package's light Inception v1, against onnxruntime."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from weights_proof import assert_same, assert_same_endpoints, written

from keras_inception import GoogLeNet, model_preprocessing, preprocess_input
from keras_inception.weights.readers import read_source

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

MODULES = {  # module -> the light file's tensor after its concatenation
    "3a": "r23",
    "3b": "r37",
    "4a": "r52",
    "4b": "r66",
    "4c": "r80",
    "4d": "r94",
    "4e": "r108",
    "5a": "r123",
    "5b": "r137",
}
STEM = {"conv1": "r1", "pool1": "r2", "norm1": "r3", "conv2": "r7", "norm2": "r8", "pool2": "r9"}
POOLS = {"pool3": "r38", "pool4": "r109", "3a_3x3": "r15", "3a_5x5": "r19", "5b_pool_proj": "r136"}


def _light(rename: bool = False, pads: tuple[int, ...] = (0, 0, 0, 0)):
    """The light file, whose weights are constant, with random weights.

    Args:
        rename: give every tensor a meaningless name.
        pads: of the strided pools; (0, 0, 1, 1) is how the zoo writes rounding up.
    """
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / "light_inception_v1.onnx")
    graph, rng = model.graph, np.random.default_rng(0)
    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape"]:
        _fill(graph, node.output[0], shapes[node.input[0]].tolist(), rng)
        graph.node.remove(node)
    for tensor in [t for t in graph.initializer if t.name.endswith("_b_0")]:
        shape = list(tensor.dims)
        graph.initializer.remove(tensor)
        _fill(graph, tensor.name, shape, rng)
    for node in graph.node:
        strides = [a for a in node.attribute if a.name == "strides"]
        if node.op_type == "MaxPool" and list(strides[0].ints) == [2, 2]:
            next(a for a in node.attribute if a.name == "pads").ints[:] = pads
        if node.op_type == "AveragePool" and any(pads):
            next(a for a in node.attribute if a.name == "pads").ints[:] = (0, 0, 0, 0)
    return _renamed(model) if rename else model


def _fill(graph, name: str, shape: list[int], rng: np.random.Generator) -> None:
    kernel = len(shape) > 1
    scale = np.sqrt(2 / np.prod(shape[1:])) if kernel else 0.2
    values = rng.normal(0.0 if kernel else 0.1, scale, shape).astype(np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(values, name))


def _renamed(model):
    names: dict[str, str] = {}
    graph = model.graph
    for holder in (*graph.initializer, *graph.input, *graph.output):
        holder.name = names.setdefault(holder.name, f"t{len(names)}")
    for index, node in enumerate(graph.node):
        node.name = f"node{index}"
        node.input[:] = [names.setdefault(name, f"t{len(names)}") for name in node.input]
        node.output[:] = [names.setdefault(name, f"t{len(names)}") for name in node.output]
    return model


def _run(model, inputs: np.ndarray, tensors: list[str]) -> dict[str, np.ndarray]:
    """Evaluate tensors inside the graph with onnxruntime, channels last."""
    for name in tensors:
        if name not in {output.name for output in model.graph.output}:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (name,) = (put.name for put in session.get_inputs())
    values = session.run(tensors, {name: inputs.transpose(0, 3, 1, 2)})
    return {
        tensor: value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
        for tensor, value in zip(tensors, values, strict=True)
    }


def _bgr() -> np.ndarray:
    return np.random.default_rng(1).uniform(-120, 140, (1, 224, 224, 3)).astype(np.float32)


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (0, 0, 1, 1), (0, 0, 2, 2)])
def test_every_endpoint_of_the_light_file(tmp_path, pads):
    path = tmp_path / "light.onnx"
    onnx.save(_light(pads=pads), path)
    model = GoogLeNet(weights=path)
    # The light file rounds its pools down, the zoo's newer files pad them at the end.
    assert model.get_layer("pool1").output.shape[1] == (56 if any(pads) else 55)
    tensors = {**STEM, **MODULES, **POOLS, "predictions": "prob_1"}
    theirs = _run(_light(pads=pads), _bgr(), list(tensors.values()))
    expected = {own: theirs[tensor] for own, tensor in tensors.items()}
    assert_same_endpoints(model, _bgr(), expected)


def test_names_do_not_matter(tmp_path):
    path = tmp_path / "renamed.onnx"
    onnx.save(_light(rename=True), path)
    named = tmp_path / "named.onnx"
    onnx.save(_light(), named)
    outputs = [GoogLeNet(weights=file).predict_on_batch(_bgr()) for file in (path, named)]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.torch
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed")
@pytest.mark.parametrize("name", ["bvlc", "bvlc_floor"])
def test_torchs_exports(tmp_path_factory, name):
    folder = written(tmp_path_factory, "torch")
    with np.load(folder / "endpoints.npz") as file:
        pixels, expected = file["pixels"], file[name]
    model = GoogLeNet(weights=folder / f"{name}.onnx", classifier_activation=None)
    inputs = preprocess_input(pixels, convention=model_preprocessing(model))
    assert_same({"logits": model.predict_on_batch(inputs)}, {"logits": expected})
    network = onnx.load(folder / f"{name}.onnx")
    (output,) = (output.name for output in network.graph.output)
    assert_same({"logits": _run(network, inputs, [output])[output]}, {"logits": expected})


def _edited(tmp_path: Path, edit) -> Path:
    model = _light()
    edit(model.graph)
    onnx.save(model, tmp_path / "edited.onnx")
    return tmp_path / "edited.onnx"


def _node(graph, kind: str, index: int = 0):
    return [node for node in graph.node if node.op_type == kind][index]


def _attribute(node, name: str):
    return next(attribute for attribute in node.attribute if attribute.name == name)


def _swap_branches(graph):
    concat = _node(graph, "Concat")
    concat.input[0], concat.input[1] = concat.input[1], concat.input[0]


def _drop_relu(graph):
    relu = _node(graph, "Relu", 5)
    relu.op_type = "Sigmoid"


def _other_lrn(graph):
    _attribute(_node(graph, "LRN", 1), "beta").f = 0.5


def _other_stride(graph):
    _attribute(_node(graph, "Conv"), "strides").ints[:] = [4, 4]


def _computed_weights(graph):
    graph.node.insert(0, onnx.helper.make_node("Exp", ["conv1/7x7_s2_w_0"], ["exp"]))
    _node(graph, "Conv").input[1] = "exp"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_swap_branches, r"Expected a 1x1 convolution for 3a_1x1.*Received: Conv"),
        (_drop_relu, r"Expected Relu for .*Received: Sigmoid"),
        (_other_lrn, r"0\.75.*Received: .*0\.5, 1\.0\)"),
        (_other_stride, r"stride 2 and padding \[3, 3, 3, 3\] for conv1"),
        (_computed_weights, r"constant weights for 'conv1_conv/kernel'.*'exp', which the graph"),
    ],
)
def test_another_network_is_refused(tmp_path, edit, message):
    with pytest.raises(ValueError, match=message):
        read_source(_edited(tmp_path, edit))


def test_the_light_file_of_another_network():
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    with pytest.raises(ValueError, match=r"Expected .* GoogLeNet.*Received: GlobalAveragePool"):
        read_source(folder / "light_squeezenet.onnx")


def test_a_file_that_is_not_onnx(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not protobuf")
    with pytest.raises(ValueError, match=r"Expected an ONNX model.*broken\.onnx"):
        read_source(path)
