"""Write real .caffemodel files of BVLC's GoogLeNet with random weights, and Caffe's outputs.

Runs in a separate environment without this package; the wheel is BVLC's C++ Caffe 1.0:

    python3.9 -m venv .venv-caffe
    .venv-caffe/bin/pip install kendryte-caffe "numpy<2" "protobuf<3.21"
    .venv-caffe/bin/python tests/writers/caffe_network.py FOLDER

Writes FOLDER/new.caffemodel (`layer`, written by Caffe), FOLDER/old.caffemodel (`layers` and
blobs of four numbers, as in 2014; Caffe reads it back to the same outputs), and
FOLDER/endpoints.npz: the `data`, N x 3 x 224 x 224, BGR minus mean, and every blob on it.
"""

import os
import sys
from pathlib import Path

os.environ["GLOG_minloglevel"] = "2"  # noqa: SIM112 - glog's spelling

import caffe
import numpy as np
from caffe.proto import caffe_pb2

# models/bvlc_googlenet: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, projection.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class Prototxt:
    """Layers in text format."""

    def __init__(self):
        self.text = 'name: "GoogleNet"\n'

    def layer(self, kind, name, bottoms, parameters="", top=None):
        bottoms = "".join(f' bottom: "{bottom}"' for bottom in bottoms)
        ends = f'{bottoms} top: "{top or name}"'
        self.text += f'layer {{ name: "{name}" type: "{kind}"{ends} {parameters} }}\n'
        return top or name

    def conv(self, name, bottom, filters, kernel, stride=1):
        self.layer(
            "Convolution",
            name,
            [bottom],
            f"convolution_param {{ num_output: {filters} kernel_size: {kernel} "
            f"pad: {kernel // 2} stride: {stride} }}",
        )
        return self.layer("ReLU", f"{name}/relu", [name], top=name)

    def pool(self, name, bottom, kernel, stride, pad=0, kind="MAX"):
        return self.layer(
            "Pooling",
            name,
            [bottom],
            f"pooling_param {{ pool: {kind} kernel_size: {kernel} stride: {stride} pad: {pad} }}",
        )

    def lrn(self, name, bottom):
        constants = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
        return self.layer("LRN", name, [bottom], constants)

    def dense(self, name, bottom, units):
        return self.layer(
            "InnerProduct", name, [bottom], f"inner_product_param {{ num_output: {units} }}"
        )

    def module(self, name, bottom):
        one, reduce3, three, reduce5, five, projection = MODULES[name]
        name = f"inception_{name}"
        branches = [
            self.conv(f"{name}/1x1", bottom, one, 1),
            self.conv(f"{name}/3x3", self.conv(f"{name}/3x3_reduce", bottom, reduce3, 1), three, 3),
            self.conv(f"{name}/5x5", self.conv(f"{name}/5x5_reduce", bottom, reduce5, 1), five, 5),
            self.conv(
                f"{name}/pool_proj", self.pool(f"{name}/pool", bottom, 3, 1, pad=1), projection, 1
            ),
        ]
        return self.layer("Concat", f"{name}/output", branches)

    def auxiliary(self, name, bottom):
        pooled = self.pool(f"{name}/ave_pool", bottom, 5, 3, kind="AVE")
        units = self.dense(f"{name}/fc", self.conv(f"{name}/conv", pooled, 128, 1), 1024)
        self.layer("ReLU", f"{name}/relu_fc", [units], top=units)
        self.dense(f"{name}/classifier", units, 1000)


def googlenet() -> str:
    net = Prototxt()
    x = net.layer("Input", "data", [], "input_param { shape: { dim: 2 dim: 3 dim: 224 dim: 224 } }")
    x = net.pool("pool1/3x3_s2", net.conv("conv1/7x7_s2", x, 64, 7, 2), 3, 2)
    x = net.conv("conv2/3x3_reduce", net.lrn("pool1/norm1", x), 64, 1)
    x = net.lrn("conv2/norm2", net.conv("conv2/3x3", x, 192, 3))
    x = net.pool("pool2/3x3_s2", x, 3, 2)
    for name in MODULES:
        x = net.module(name, x)
        if name == "3b":
            x = net.pool("pool3/3x3_s2", x, 3, 2)
        if name == "4a":
            net.auxiliary("loss1", x)
        if name == "4d":
            net.auxiliary("loss2", x)
        if name == "4e":
            x = net.pool("pool4/3x3_s2", x, 3, 2)
    x = net.pool("pool5/7x7_s1", x, 7, 1, kind="AVE")
    net.dense("loss3/classifier", x, 1000)
    return net.text


def as_2014(path: Path) -> bytes:
    """The same network in V1 messages, with blob shapes of four numbers as in 2014."""
    new, old = caffe_pb2.NetParameter(), caffe_pb2.NetParameter()
    new.ParseFromString(path.read_bytes())
    kinds = {
        "Convolution": "CONVOLUTION",
        "InnerProduct": "INNER_PRODUCT",
        "LRN": "LRN",
        "ReLU": "RELU",
        "Pooling": "POOLING",
        "Concat": "CONCAT",
        "Split": "SPLIT",
        "Input": "DATA",
    }
    for layer in new.layer:
        kind = caffe_pb2.V1LayerParameter.LayerType.Value(kinds[layer.type])
        copy = old.layers.add(name=layer.name, type=kind, bottom=layer.bottom, top=layer.top)
        if layer.HasField("lrn_param"):
            copy.lrn_param.CopyFrom(layer.lrn_param)
        for blob in layer.blobs:
            shape = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
            num, channels, height, width = shape
            copy.blobs.add(data=blob.data, num=num, channels=channels, height=height, width=width)
    return old.SerializeToString()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    prototxt = folder / "deploy.prototxt"
    prototxt.write_text(googlenet())
    rng = np.random.default_rng(0)
    net = caffe.Net(str(prototxt), caffe.TEST)
    for weights, bias in net.params.values():
        scale = np.sqrt(2 / np.prod(weights.data.shape[1:]))
        weights.data[...] = rng.normal(0, scale, weights.data.shape)
        bias.data[...] = rng.uniform(-0.2, 0.4, bias.data.shape)
    net.save(str(folder / "new.caffemodel"))
    (folder / "old.caffemodel").write_bytes(as_2014(folder / "new.caffemodel"))
    net.blobs["data"].data[...] = rng.uniform(-120, 140, net.blobs["data"].data.shape)
    net.forward()
    again = caffe.Net(str(prototxt), caffe.TEST, weights=str(folder / "old.caffemodel"))
    again.blobs["data"].data[...] = net.blobs["data"].data
    again.forward()
    logits = [n.blobs["loss3/classifier"].data for n in (net, again)]
    assert np.array_equal(*logits), "Caffe reads another network from the file of 2014"
    values = {name.replace("/", "|"): blob.data for name, blob in net.blobs.items()}
    np.savez(folder / "endpoints.npz", **{k: v for k, v in values.items() if "_split_" not in k})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
