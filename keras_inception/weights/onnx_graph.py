"""Access to an ONNX graph for the reader of weights: producers, constants, attributes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from keras_inception.packages import explained_imports
from keras_inception.weights.source import Arrays

# Nodes that do not change the values of their first input.
_PASSING = ("Dropout", "Identity", "Flatten", "Reshape", "Squeeze", "Cast")


def parse(path: Path) -> Any:
    """Return the graph of an ONNX file.

    Raises:
        MissingPackageError: onnx is not installed.
        ValueError: not an ONNX model.
    """
    from google.protobuf import message

    with explained_imports():
        import onnx
    try:
        graph = onnx.load(path).graph
    except (message.DecodeError, onnx.checker.ValidationError, OSError) as error:
        raise ValueError(f"Expected an ONNX model. Received: {str(path)!r} ({error})") from error
    if not graph.node:
        raise ValueError(f"Expected an ONNX model with nodes. Received: {str(path)!r}")
    return graph


@dataclass(frozen=True)
class Graph:
    """The producers and the constants of an ONNX graph."""

    path: Path
    proto: Any

    @cached_property
    def producers(self) -> dict[str, Any]:
        """Return the node that computes each tensor."""
        return {output: node for node in self.proto.node for output in node.output}

    @cached_property
    def constants(self) -> Arrays:
        """Return initializers and constants by name, also after Reshape, Transpose and Identity."""
        from onnx import numpy_helper

        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.proto.initializer}
        for node in self.proto.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
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
        while node is not None and node.op_type in _PASSING and node.op_type not in kinds:
            node = self.producers.get(node.input[0])
        while node is not None and node.op_type == "If" and "If" not in kinds:
            # torch exports a squeeze as a choice between two nodes of one input.
            inner = attribute(node, "then_branch").node[-1]
            node = self.producers.get(inner.input[0])
        if node is None or node.op_type not in kinds:
            received = "an input" if node is None else f"{node.op_type} ({node.name or tensor})"
            raise ValueError(
                f"Expected {' or '.join(kinds)} for {where} of GoogLeNet. Received: {received} in "
                f"{str(self.path)!r}. Only float GoogLeNets with LRN can be read."
            )
        return node


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
