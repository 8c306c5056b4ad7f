"""An ONNX file of GoogLeNet with LRN: the ONNX model zoo's, or an export of the same network.

The layers are identified by walking the graph from its output to its input along the spec; names of
nodes do not matter. Weights may be initializers or constants, also reshaped or transposed ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_inception.spec.network import (
    Branch,
    ConvSpec,
    LRNSpec,
    ModuleSpec,
    NetworkSpec,
    PoolSpec,
)
from keras_inception.spec.variants import PAPER, PAPER_FLOOR
from keras_inception.weights.onnx_graph import Graph, attribute, geometry, parse
from keras_inception.weights.source import Arrays, Source, check_lrn
from keras_inception.wording import counted


def read(path: Path, spec: NetworkSpec | None = None) -> Arrays:
    """Return all floating-point initializers and constants of rank 1 or more by name.

    Raises:
        MissingPackageError: onnx is not installed.
        ValueError: not an ONNX model.
    """
    graph = Graph(path, parse(path, spec), spec)
    return {
        name: array
        for name, array in graph.constants.items()
        if array.ndim and np.issubdtype(array.dtype, np.floating)
    }


def source(path: Path, spec: NetworkSpec | None) -> Source:
    """Read a graph for a spec, by default `paper`, or `paper_floor` if its pools round down."""
    walk = _Walk(Graph(path, parse(path, spec), spec), spec or PAPER)
    names = walk.run()
    if spec is None:
        spec = {"ceil": PAPER, "valid": PAPER_FLOOR}[walk.rounding]
        spec = replace(spec, classes=walk.arrays[names["predictions_logits/bias"]].size)
    elif {pool.padding for pool in _pools(spec)} != {walk.rounding}:
        raise ValueError(
            f"Expected pools of padding {walk.rounding!r}, as in {str(path)!r}. Received: "
            f"spec={spec.name!r} of {sorted({pool.padding for pool in _pools(spec)})}."
        )
    check_lrn(path, spec, list(reversed(walk.lrn)))
    return Source(path=path, spec=spec, arrays=walk.arrays, names=names, channels_first=True)


def _pools(spec: NetworkSpec) -> list[PoolSpec]:
    stem = [layer for layer in spec.stem if isinstance(layer, PoolSpec)]
    return stem + [stage.downsample for stage in spec.stages if stage.downsample]


@dataclass
class _Walk:
    graph: Graph
    spec: NetworkSpec
    names: dict[str, str] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)
    lrn: list[LRNSpec] = field(default_factory=list)  # from the output to the input
    rounding: Any = None

    def run(self) -> dict[str, str]:
        """Walk from the first output to the input; this package's variables -> tensors."""
        tensor = self._head(self.graph.proto.output[0].name)
        for stage in reversed(self.spec.stages):
            for module in reversed(stage.modules):
                tensor = self._module(tensor, module)
            if stage.downsample:
                tensor = self._strided_pool(tensor, stage.downsample)
        for layer in reversed(self.spec.stem):
            if isinstance(layer, ConvSpec):
                tensor = self._conv(tensor, layer.name, layer.kernel_size, layer.stride)
            elif isinstance(layer, PoolSpec):
                tensor = self._strided_pool(tensor, layer)
            else:
                tensor = self._lrn(tensor, layer.name)
        if tensor not in {put.name for put in self.graph.proto.input}:
            raise ValueError(
                f"Expected the first convolution to take the graph's input. Received: {tensor!r} "
                f"in {str(self.graph.path)!r}."
            )
        return self.names

    def _take(self, own: str, tensor: str, array: np.ndarray | None) -> None:
        if array is None:
            raise ValueError(
                f"Expected constant weights for {own!r}. Received: {tensor!r}, which the graph "
                f"computes, in {str(self.graph.path)!r}."
            )
        self.names[own] = tensor
        self.arrays[tensor] = array

    def _head(self, tensor: str) -> str:
        node = self.graph.producer(tensor, "Softmax", "Gemm", "MatMul", "Add", where="the head")
        if node.op_type == "Softmax":
            node = self.graph.producer(node.input[0], "Gemm", "MatMul", "Add", where="the head")
        bias = node.input[-1]
        if node.op_type == "Add":
            bias = next((name for name in node.input if name in self.graph.constants), bias)
            inner = next(name for name in node.input if name != bias)
            node = self.graph.producer(inner, "MatMul", where="the head's dense layer")
        kernel = self.graph.constants.get(node.input[1])
        if kernel is not None and not attribute(node, "transB", 0):
            kernel = kernel.T  # this reader's layout is O x I
        self._take("predictions_logits/kernel", node.input[1], kernel)
        self._take("predictions_logits/bias", bias, self.graph.constants.get(bias))
        pool = self.graph.producer(
            node.input[0], "AveragePool", "GlobalAveragePool", "ReduceMean", where="the head's pool"
        )
        if pool.op_type == "AveragePool" and (
            attribute(pool, "count_include_pad", 0) or min(attribute(pool, "kernel_shape")) < 6
        ):
            raise self._unlike("average over the whole grid", pool)
        return pool.input[0]

    def _module(self, tensor: str, module: ModuleSpec) -> str:
        concat = self.graph.producer(tensor, "Concat", where=f"module {module.name}")
        branches = module.branches(1)  # the number of channels does not matter here
        if len(concat.input) != len(branches):
            raise self._unlike(
                f"{counted(len(branches), 'branch')} in module {module.name}", concat
            )
        inputs = {
            self._branch(output, branch, module)
            for output, branch in zip(concat.input, branches, strict=True)
        }
        if len(inputs) != 1:
            raise self._unlike(f"branches of one input in module {module.name}", concat)
        return inputs.pop()

    def _branch(self, tensor: str, branch: Branch, module: ModuleSpec) -> str:
        for conv in reversed(branch.convolutions):
            tensor = self._conv(tensor, conv.name, conv.kernel_size)
        if not branch.pooled:
            return tensor
        pool = self.graph.producer(tensor, "MaxPool", where=f"the pool of module {module.name}")
        if geometry(pool) != ([3, 3], [1, 1], [1, 1, 1, 1]):
            raise self._unlike("a 3x3 pool of stride 1", pool)
        return pool.input[0]

    def _conv(self, tensor: str, name: str, size: int, stride: int = 1) -> str:
        relu = self.graph.producer(tensor, "Relu", where=name)
        conv = self.graph.producer(relu.input[0], "Conv", where=name)
        pads = [size // 2] * 4
        if len(conv.input) != 3 or attribute(conv, "group", 1) != 1:
            raise self._unlike("a convolution with a bias", conv)
        kernel = self.graph.constants.get(conv.input[1])
        if kernel is not None and kernel.shape[2:] != (size, size):
            raise self._unlike(f"a {size}x{size} convolution for {name}", conv)
        if geometry(conv)[1:] != ([stride] * 2, pads):
            raise self._unlike(f"stride {stride} and padding {pads} for {name}", conv)
        self._take(f"{name}_conv/kernel", conv.input[1], kernel)
        self._take(f"{name}_conv/bias", conv.input[2], self.graph.constants.get(conv.input[2]))
        return conv.input[0]

    def _strided_pool(self, tensor: str, layer: PoolSpec) -> str:
        pool = self.graph.producer(tensor, "MaxPool", where=layer.name)
        kernel, strides, pads = geometry(pool)
        if kernel != [layer.size] * 2 or strides != [layer.stride] * 2 or pads[:2] != [0, 0]:
            raise self._unlike(f"a {layer.size}x{layer.size}/{layer.stride} pool", pool)
        # Padding at the end admits the additional window of rounding up.
        rounding = "ceil" if attribute(pool, "ceil_mode", 0) or pads[2:] != [0, 0] else "valid"
        if self.rounding not in (None, rounding):
            raise self._unlike(f"all pools of padding {self.rounding!r}", pool)
        self.rounding = rounding
        return pool.input[0]

    def _lrn(self, tensor: str, name: str) -> str:
        node = self.graph.producer(tensor, "LRN", "Div", where=name)
        if node.op_type == "Div":
            return self._spelled_out_lrn(node, name)
        self._found_lrn(*(attribute(node, key) for key in ("size", "alpha", "beta", "bias")))
        return node.input[0]

    def _spelled_out_lrn(self, div: Any, name: str) -> str:
        """Read torch's local_response_norm: x / (bias + alpha * mean(x^2))^beta in single nodes."""
        constants = self.graph.constants
        power = self.graph.producer(div.input[1], "Pow", where=name)
        add = self.graph.producer(power.input[0], "Add", where=name)
        (bias,) = (constants[put] for put in add.input if put in constants)
        (summed,) = (put for put in add.input if put not in constants)
        scaled = self.graph.producer(summed, "Mul", where=name)
        (alpha,) = (constants[put] for put in scaled.input if put in constants)
        (mean,) = (put for put in scaled.input if put not in constants)
        pool = self.graph.producer(mean, "AveragePool", where=name)
        window = attribute(pool, "kernel_shape")
        padded = self.graph.producer(pool.input[0], "Pad", "Unsqueeze", "Mul", where=name)
        for _ in self.graph.proto.node:  # a cycle would have no end
            if padded.op_type == "Mul":
                break
            padded = self.graph.producer(padded.input[0], "Pad", "Unsqueeze", "Mul", where=name)
        if set(padded.input) != {div.input[0]} or sorted(window)[:-1] != [1] * (len(window) - 1):
            raise self._unlike("local response normalization", div)
        beta = constants[power.input[1]]
        self._found_lrn(max(window), float(alpha), float(beta), float(bias))
        return div.input[0]

    def _found_lrn(self, size: int, alpha: float, beta: float, bias: float) -> None:
        self.lrn.append(
            LRNSpec(name="norm", window_size=size, alpha_per_window=alpha, beta=beta, bias=bias)
        )

    def _unlike(self, expected: str, node: Any) -> ValueError:
        return ValueError(
            f"Expected {expected}, as GoogLeNet has. Received: {node.op_type} "
            f"{node.name or node.output[0]!r} with {list(node.input)} and "
            f"{[a.name for a in node.attribute]} in {str(self.graph.path)!r}."
        )
