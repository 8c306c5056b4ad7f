"""BVLC's `.caffemodel`: Caffe's protobuf, with only the messages that weights need.

Reads both forms: `layers` (V1, of 2014, as in the released file) and `layer`. Names and numbers
of the fields: caffe.proto. Layer names: models/bvlc_googlenet/train_val.prototxt.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from keras_inception.bounded import read_file
from keras_inception.spec.network import LRNSpec, NetworkSpec
from keras_inception.spec.variants import PAPER
from keras_inception.weights.source import (
    Arrays,
    Source,
    allowance,
    check_lrn,
    pair_units,
    with_classes,
    with_heads_of,
)
from keras_inception.weights.wire import check_message

_PACKAGE = "keras_inception.caffe"
# message: {field: (number, type, "repeated" or "packed", default)}; a capital letter is a message.
_MESSAGES: dict[str, dict[str, tuple[int, str, str, str]]] = {
    "BlobShape": {"dim": (1, "int64", "packed", "")},
    "BlobProto": {
        "num": (1, "int32", "", "0"),
        "channels": (2, "int32", "", "0"),
        "height": (3, "int32", "", "0"),
        "width": (4, "int32", "", "0"),
        "data": (5, "float", "packed", ""),
        "shape": (7, "BlobShape", "", ""),
        "double_data": (8, "double", "packed", ""),
    },
    "LRNParameter": {
        "local_size": (1, "uint32", "", "5"),
        "alpha": (2, "float", "", "1"),
        "beta": (3, "float", "", "0.75"),
        "k": (5, "float", "", "1"),
    },
    "V1LayerParameter": {
        "name": (4, "string", "", ""),
        "blobs": (6, "BlobProto", "repeated", ""),
        "lrn_param": (18, "LRNParameter", "", ""),
    },
    "LayerParameter": {
        "name": (1, "string", "", ""),
        "blobs": (7, "BlobProto", "repeated", ""),
        "lrn_param": (118, "LRNParameter", "", ""),
    },
    "NetParameter": {
        "layers": (2, "V1LayerParameter", "repeated", ""),
        "layer": (100, "LayerParameter", "repeated", ""),
    },
}
_STEM = ("conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3")
_PARTS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
_BLOBS = ("weights", "bias")


def read(path: Path, spec: NetworkSpec | None = None) -> Arrays:
    """All blobs, as "LAYER:weights" and "LAYER:bias".

    Raises:
        ValueError: if it is not a Caffe network, or a blob's size and shape differ.
    """
    return _arrays(_parse(path, spec), path)


def source(path: Path, spec: NetworkSpec | None) -> Source:
    """Read a network for a spec, by default `paper`."""
    net = _parse(path, spec)
    arrays = _arrays(net, path)
    spec = spec or with_classes(PAPER, arrays, "loss3/classifier:bias", 0)
    if lrn := [layer for layer in _layers(net) if layer.HasField("lrn_param")]:
        check_lrn(path, spec, [_lrn(layer) for layer in lrn])  # files with only weights may lack it
    names = with_heads_of(arrays, name_map(spec), spec)
    return Source(path=path, spec=spec, arrays=arrays, names=names, channels_first=True)


def name_map(spec: NetworkSpec) -> dict[str, str]:
    """This package's variables -> Caffe's layers and blobs."""
    units = pair_units(spec, stem=_STEM, module=lambda name: f"inception_{name}/", parts=_PARTS)
    layers = {f"{own}_conv": layer for own, layer in units.items()}
    layers["predictions_logits"] = "loss3/classifier"
    for index, aux in enumerate(spec.aux, start=1):
        layers[f"{aux.name}_proj_conv"] = f"loss{index}/conv"
        layers[f"{aux.name}_dense"] = f"loss{index}/fc"
        layers[f"{aux.name}_logits"] = f"loss{index}/classifier"
    return {
        f"{own}/{variable}": f"{layer}:{blob}"
        for own, layer in layers.items()
        for variable, blob in zip(("kernel", "bias"), _BLOBS, strict=True)
    }


def _parse(path: Path, spec: NetworkSpec | None) -> Any:
    data = read_file(path, allowance(path, spec))
    net = _net_class()()
    check_message(data, net.DESCRIPTOR, allowance(path, spec), "a .caffemodel")
    try:
        net.ParseFromString(data)
    except message.DecodeError as error:
        raise ValueError(f"Expected a .caffemodel. Received: {str(path)!r} ({error})") from error
    if not _layers(net):
        raise ValueError(
            f"Expected a .caffemodel with layers. Received: {str(path)!r}, which has none."
        )
    return net


def _layers(net: Any) -> list[Any]:
    return [*net.layers, *net.layer]


def _arrays(net: Any, path: Path) -> Arrays:
    arrays = {}
    for layer in _layers(net):
        if len(layer.blobs) > len(_BLOBS):
            raise ValueError(
                f"Expected at most weights and a bias in layer {layer.name!r}. Received: "
                f"{len(layer.blobs)} blobs in {str(path)!r}."
            )
        for blob, kind in zip(layer.blobs, _BLOBS, strict=False):
            arrays[f"{layer.name}:{kind}"] = _array(blob, f"{layer.name}:{kind}", path)
    return arrays


def _array(blob: Any, name: str, path: Path) -> np.ndarray:
    values = blob.data or blob.double_data
    numbers = np.fromiter(values, np.float32, len(values))
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else legacy
    if math.prod(shape) != numbers.size:
        raise ValueError(
            f"Expected {math.prod(shape)} numbers of {name!r}, for its shape {shape}. "
            f"Received: {numbers.size} in {str(path)!r}."
        )
    if not blob.HasField("shape"):  # always four numbers there, for any rank
        kernel = name.endswith(":weights")
        dense = kernel and shape[:2] == (1, 1)
        shape = shape[2:] if dense else shape if kernel else shape[3:]
    return numbers.reshape(shape)


def _lrn(layer: Any) -> LRNSpec:
    found = layer.lrn_param
    return LRNSpec(
        name="norm",
        window_size=found.local_size,
        alpha_per_window=found.alpha,
        beta=found.beta,
        bias=found.k,
    )


@cache
def _net_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2"
    )
    for message_name, fields in _MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for name, (number, kind, count, default) in fields.items():
            field = described.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if count else field.LABEL_OPTIONAL
            field.options.packed = count == "packed"
            if kind[0].isupper():
                field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
            if default:
                field.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.NetParameter"))
