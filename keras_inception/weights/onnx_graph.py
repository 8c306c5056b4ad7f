"""Access to an ONNX graph for the reader of weights: producers, constants, attributes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keras_inception.bounded import Allowance, read_file, require_file, shown
from keras_inception.packages import explained_imports
from keras_inception.spec.network import NetworkSpec
from keras_inception.weights.source import Arrays, allowance
from keras_inception.weights.wire import check_message

# Nodes that do not change the values of their first input.
_ITEM_SIZE = 4
_PASSING = ("Dropout", "Identity", "Flatten", "Reshape", "Squeeze", "Cast")


def parse(path: Path, spec: NetworkSpec | None) -> Any:
    """Return the graph of an ONNX file.

    Raises:
        MissingPackageError: onnx is not installed.
        ValueError: not an ONNX model.
    """
    from google.protobuf import message

    with explained_imports():
        import onnx
    data, model = read_file(path, allowance(path, spec)), onnx.ModelProto()
    check_message(data, model.DESCRIPTOR, allowance(path, spec), "an ONNX model")
    try:
        model.ParseFromString(data)
        _load_external(model, path, spec)
    except (message.DecodeError, onnx.checker.ValidationError, OSError) as error:
        raise ValueError(f"Expected an ONNX model. Received: {str(path)!r} ({error})") from error
    graph = model.graph
    if not graph.node:
        raise ValueError(f"Expected an ONNX model with nodes. Received: {str(path)!r}")
    return graph


def _load_external(model: Any, path: Path, spec: NetworkSpec | None) -> None:
    """Load tensors that torch writes beside a model, from files of the model's own name alone.

    Raises:
        ValueError: tensors in any other file, or more bytes than weights have.
    """
    from onnx import external_data_helper

    allowed = allowance(path, spec)
    constants = [item.t for node in model.graph.node for item in node.attribute]
    for tensor in (*model.graph.initializer, *constants):
        if not external_data_helper.uses_external_data(tensor):
            continue
        place = {item.key: item.value for item in tensor.external_data}
        name = place.get("location", "")
        file = path.with_name(Path(name).name)
        if name != file.name or not name.startswith(path.name) or file.is_symlink():
            raise ValueError(
                f"Expected an ONNX model's tensors in it, or in {path.name + '.data'!r} beside "
                f"it. Received: {str(path)!r} with tensors in {shown(name)}."
            )
        require_file(file)
        # Without a length, or with 0, all of the file is read, for each tensor.
        allowed.take(tensor.name, int(place.get("length", 0)) or file.stat().st_size)
        external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))


@dataclass(frozen=True)
class Graph:
    """The producers and the constants of an ONNX graph."""

    path: Path
    proto: Any
    spec: NetworkSpec | None = None

    @cached_property
    def producers(self) -> dict[str, Any]:
        """Return the node that computes each tensor."""
        return {output: node for node in self.proto.node for output in node.output}

    @cached_property
    def constants(self) -> Arrays:
        """Return initializers and constants by name, also after Reshape, Transpose and Identity."""
        allowed = allowance(self.path, self.spec)
        arrays = {tensor.name: _to_array(tensor, allowed) for tensor in self.proto.initializer}
        for node in self.proto.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                arrays[node.output[0]] = _to_array(node.attribute[0].t, allowed)
            known = [arrays.get(name) for name in node.input]
            if node.op_type == "Reshape" and known[0] is not None and known[1] is not None:
                arrays[node.output[0]] = known[0].reshape(known[1])
            elif node.op_type == "Transpose" and known[0] is not None:
                arrays[node.output[0]] = known[0].transpose(attribute(node, "perm"))
            elif node.op_type == "Identity" and known[0] is not None:
                arrays[node.output[0]] = known[0]
        return arrays

    def producer(self, tensor: str, *kinds: str, where: str) -> Any:
        """Return the node that computes a tensor, past `_PASSING` nodes; refuse other kinds."""
        node = self.producers.get(tensor)
        for _ in self.proto.node:  # a path passes each node once, unless it is a cycle
            if node is None or node.op_type in kinds:
                break
            if node.op_type in _PASSING:
                node = self.producers.get(node.input[0])
            elif node.op_type == "If":
                # torch exports a squeeze as a choice between two nodes of one input.
                inner = attribute(node, "then_branch").node[-1]
                node = self.producers.get(inner.input[0])
            else:
                break
        if node is None or node.op_type not in kinds:
            received = "an input" if node is None else f"{node.op_type} ({node.name or tensor})"
            raise ValueError(
                f"Expected {' or '.join(kinds)} for {where} of GoogLeNet. Received: {received} in "
                f"{str(self.path)!r}. Only float GoogLeNets with LRN can be read."
            )
        return node


def _to_array(tensor: Any, allowed: Allowance) -> np.ndarray:
    from onnx import numpy_helper

    allowed.take_array(tensor.name, tensor.dims, _ITEM_SIZE)
    return numpy_helper.to_array(tensor)


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """Return an attribute of a node as Python numbers."""
    import onnx

    found = [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default


def geometry(node: Any) -> tuple[list[int], list[int], list[int]]:
    """Return the kernel, strides and pads of a convolution or pool."""
    return (
        list(attribute(node, "kernel_shape", [])),
        list(attribute(node, "strides", [1, 1])),
        list(attribute(node, "pads", [0, 0, 0, 0])),
    )
