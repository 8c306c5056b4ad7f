"""inception5h: TensorFlow 1's own operations under the released graph's node names.

This is the closest available independent writer. tf.compat.v1 builds and runs the graph from the
nodes, attributes and shapes that the DeepDream tutorial's notebooks print for the released file.
"""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from weights_proof import assert_same, assert_same_endpoints

from keras_inception import VARIANTS, GoogLeNet, model_preprocessing, preprocess_input
from keras_inception.spec.network import LRNSpec

v1 = tf.compat.v1
# 1x1, 3x3 bottleneck, 3x3, 5x5 bottleneck, 5x5, pool reduce; 4a and 5a are not Table 1's.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 204, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 48, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
PARTS = {  # name in the graph -> name in the paper
    "1x1": "1x1",
    "3x3_bottleneck": "3x3_reduce",
    "3x3": "3x3",
    "5x5_bottleneck": "5x5_reduce",
    "5x5": "5x5",
    "pool": "pool",
    "pool_reduce": "pool_proj",
}
STEM = {
    "conv2d0": "conv1",
    "maxpool0": "pool1",
    "localresponsenorm0": "norm1",
    "conv2d1": "conv2_reduce",
    "conv2d2": "conv2",
    "localresponsenorm1": "norm2",
    "maxpool1": "pool2",
    "maxpool4": "pool3",
    "maxpool10": "pool4",
}
HEADS = {  # logits: softmax would turn the size of logits into a relative difference
    "main": "softmax2_pre_activation",
    "aux_1": "softmax0_pre_activation",
    "aux_2": "softmax1_pre_activation",
}


class _Writer:
    def __init__(self, beta: float = 0.5) -> None:
        self.rng = np.random.default_rng(0)
        self.beta = beta

    def constants(self, name: str, shape: tuple[int, ...]):
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        kernel = self.rng.normal(0, scale, shape).astype(np.float32)
        bias = self.rng.uniform(-0.2, 0.4, shape[-1:]).astype(np.float32)
        return tf.constant(kernel, name=f"{name}_w"), tf.constant(bias, name=f"{name}_b")

    def conv(self, x, name: str, filters: int, size: int, stride: int = 1):
        kernel, bias = self.constants(name, (size, size, x.shape[-1], filters))
        x = v1.nn.conv2d(x, kernel, [1, stride, stride, 1], "SAME", name=f"{name}_pre_relu/conv")
        return v1.nn.relu(v1.nn.bias_add(x, bias, name=f"{name}_pre_relu"), name=name)

    def pool(self, x, name: str, stride: int = 2):
        return v1.nn.max_pool(x, [1, 3, 3, 1], [1, stride, stride, 1], "SAME", name=name)

    def lrn(self, x, name: str):
        return v1.nn.lrn(x, depth_radius=5, bias=2.0, alpha=1e-4, beta=self.beta, name=name)

    def module(self, x, name: str):
        one, reduce3, three, reduce5, five, projection = MODULES[name]
        name = f"mixed{name}"
        first = self.conv(x, f"{name}_1x1", one, 1)
        second = self.conv(
            self.conv(x, f"{name}_3x3_bottleneck", reduce3, 1), f"{name}_3x3", three, 3
        )
        third = self.conv(
            self.conv(x, f"{name}_5x5_bottleneck", reduce5, 1), f"{name}_5x5", five, 5
        )
        pooled = self.pool(x, f"{name}_pool", stride=1)
        fourth = self.conv(pooled, f"{name}_pool_reduce", projection, 1)
        return tf.concat([first, second, third, fourth], -1, name=name)

    def dense(self, x, name: str, units: int, suffix: str):
        kernel, bias = self.constants(name, (x.shape[-1], units))
        x = tf.matmul(x, kernel, name=f"{name}{suffix}/matmul")
        return v1.nn.bias_add(x, bias, name=f"{name}{suffix}")

    def head(self, x, index: int):
        x = v1.nn.avg_pool(x, [1, 5, 5, 1], [1, 3, 3, 1], "VALID", name=f"head{index}_pool")
        x = self.conv(x, f"head{index}_bottleneck", 128, 1)
        x = tf.reshape(x, (-1, 2048), name=f"head{index}_bottleneck/reshape")
        x = v1.nn.relu(self.dense(x, f"nn{index}", 1024, "_pre_relu"), name=f"nn{index}")
        logits = self.dense(x, f"softmax{index}", 1008, "_pre_activation")
        v1.nn.softmax(logits, name=f"softmax{index}")

    def graph(self) -> bytes:
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, (None, 224, 224, 3), name="input")
            x = self.lrn(
                self.pool(self.conv(x, "conv2d0", 64, 7, 2), "maxpool0"), "localresponsenorm0"
            )
            x = self.conv(self.conv(x, "conv2d1", 64, 1), "conv2d2", 192, 3)
            x = self.pool(self.lrn(x, "localresponsenorm1"), "maxpool1")
            for name in MODULES:
                x = self.module(x, name)
                if name == "3b":
                    x = self.pool(x, "maxpool4")
                if name == "4a":
                    self.head(x, 0)
                if name == "4d":
                    self.head(x, 1)
                if name == "4e":
                    x = self.pool(x, "maxpool10")
            x = v1.nn.avg_pool(x, [1, 7, 7, 1], [1, 1, 1, 1], "VALID", name="avgpool0")
            x = tf.reshape(x, (-1, 1024), name="avgpool0/reshape")
            v1.nn.softmax(self.dense(x, "softmax2", 1008, "_pre_activation"), name="softmax2")
        return graph.as_graph_def().SerializeToString()


@pytest.fixture(scope="module")
def graph() -> bytes:
    return _Writer().graph()


def _run(data: bytes, inputs: np.ndarray, nodes: list[str]) -> dict[str, np.ndarray]:
    definition = v1.GraphDef.FromString(data)
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(definition, name="")
        return session.run({node: f"{node}:0" for node in nodes}, {"input:0": inputs})


@pytest.mark.parametrize("packed", [False, True])
def test_every_endpoint_is_the_graphs(graph, tmp_path, packed):
    path = tmp_path / ("inception5h.zip" if packed else "tensorflow_inception_graph.pb")
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("tensorflow_inception_graph.pb", graph)
            archive.writestr("imagenet_comp_graph_label_strings.txt", "dummy\n")
    else:
        path.write_bytes(graph)
    model = GoogLeNet(weights=path, auxiliary=not packed, classifier_activation=None)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3)).astype(np.float32)
    inputs = preprocess_input(pixels, convention=model_preprocessing(model))
    names = dict(STEM)
    for name in MODULES:
        names[f"mixed{name}"] = name
        names |= {f"mixed{name}_{part}": f"{name}_{own}" for part, own in PARTS.items()}
    names["softmax2_pre_activation"] = "predictions_logits"
    theirs = _run(graph, pixels - 117, [*names, *HEADS.values()])
    if packed:
        assert_same({"main": model.predict_on_batch(inputs)}, {"main": theirs[HEADS["main"]]})
        return
    assert_same_endpoints(model, inputs, {own: theirs[node] for node, own in names.items()})
    outputs = model.predict_on_batch(inputs)
    assert_same(outputs, {own: theirs[node] for own, node in HEADS.items()})


def test_the_graphs_own_lrn_must_agree_with_the_spec(tmp_path):
    path = tmp_path / "graph.pb"
    data = _Writer(beta=0.75).graph()
    path.write_bytes(data)
    message = r"'inception5h', .*0\.5, 2\.0\).*Received: .*0\.75, 2\.0\)"
    with pytest.raises(ValueError, match=message):
        GoogLeNet(weights=path)
    stem = tuple(
        replace(layer, beta=0.75) if isinstance(layer, LRNSpec) else layer
        for layer in VARIANTS["inception5h"].stem
    )
    spec = replace(VARIANTS["inception5h"], stem=stem)
    model = GoogLeNet(weights=path, spec=spec, classifier_activation=None)
    pixels = np.random.default_rng(1).uniform(-117, 138, (1, 224, 224, 3)).astype(np.float32)
    theirs = _run(data, pixels, [HEADS["main"]])[HEADS["main"]]
    assert_same({"main": model.predict_on_batch(pixels)}, {"main": theirs})


@pytest.mark.parametrize("name", ["broken.pb", "broken.zip"])
def test_a_damaged_file(tmp_path: Path, name):
    path = tmp_path / name
    path.write_bytes(b"\xff\xff not a graph")
    with pytest.raises(ValueError, match=rf"Expected a frozen graph.*{name}"):
        GoogLeNet(weights=path)
