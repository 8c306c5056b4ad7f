"""Scales of int8 that LiteRT's kernels take, for layers that calibration has seen no output of.

A layer whose outputs are zero for all calibration images, such as a narrow reduction whose filters
are dead, gets a scale of 1e-8 from the converter. XNNPACK refuses a layer whose products have
a scale 256 times its outputs' or more. LiteRT (seen with ai-edge-litert 2.3.0) then frees memory
twice, and the process aborts; `tests/test_export_litert.py` has such networks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# XNNPACK's limit of an input's scale times the weights', divided by the output's.
_MOST = 256
_WEIGHTED = ("CONV_2D", "FULLY_CONNECTED")
# Their inputs and outputs have one scale.
_TIED = ("AVERAGE_POOL_2D", "CONCATENATION", "MAX_POOL_2D", "PAD", "RESHAPE")


def with_accepted_scales(content: bytes) -> bytes:
    """Return a quantized LiteRT file whose scales XNNPACK takes.

    An output with too fine a scale gets that of the layer's products, which have no finer steps:
    scores change only for images on which a layer that was dead in calibration has an output.

    Args:
        content: of the converter, with one subgraph.
    """
    from ai_edge_litert.tools import flatbuffer_utils as files

    model = files.convert_bytearray_to_object(bytearray(content))
    (graph,) = model.subgraphs
    operators = [(files.opcode_to_name(model, item.opcodeIndex), item) for item in graph.operators]
    scales = [_scales(tensor) for tensor in graph.tensors]
    raised = _raise(operators, scales)
    if not raised:
        return content
    for place in raised:
        graph.tensors[place].quantization.scale = scales[place].astype(np.float32)
    for name, operator in operators:
        if name in _WEIGHTED and operator.inputs[0] in raised:
            source, weights, *bias = operator.inputs
            _rescale(model, graph.tensors, bias, scales[source] * scales[weights])
    return bytes(files.convert_object_to_bytearray(model))


def _scales(tensor: Any) -> np.ndarray:
    """Of a quantized tensor, one or one for each channel; none of another."""
    found = tensor.quantization and tensor.quantization.scale
    return np.array([] if found is None else found, np.float64)


def _raise(operators: list[tuple[str, Any]], scales: list[np.ndarray]) -> set[int]:
    """Raise scales of outputs to what XNNPACK takes; returns the places of the raised tensors.

    Args:
        operators: by name, each after those that compute its inputs.
        scales: of the tensors, which are changed.
    """
    tied = _tied(operators, scales)
    raised: set[int] = set()
    for name, operator in operators:
        source, *weights = operator.inputs
        (target, *_) = operator.outputs
        if name not in (*_WEIGHTED, "MEAN") or not len(scales[target]):
            continue
        products = scales[source][0]
        if name in _WEIGHTED:
            products *= scales[weights[0]].max()
        if products >= _MOST * scales[target][0]:
            raised |= tied[target]
            for place in tied[target]:
                scales[place] = np.maximum(scales[place], products)
    return raised


def _tied(operators: list[tuple[str, Any]], scales: list[np.ndarray]) -> list[set[int]]:
    """Return for each tensor the places of those that have one scale with it, its own included."""
    tied = [{place} for place in range(len(scales))]
    for name, operator in operators:
        if name in _TIED:
            places = [*operator.inputs, *operator.outputs]
            places = [place for place in places if place >= 0 and len(scales[place])]
            together = set[int]().union(*(tied[place] for place in places))
            for place in together:
                tied[place] = together
    return tied


def _rescale(model: Any, tensors: list[Any], bias: list[int], scale: np.ndarray) -> None:
    """Give the bias of a layer another scale: that of its products, in int32."""
    from ai_edge_litert.tools import flatbuffer_utils as files

    for tensor in (tensors[place] for place in bias if place >= 0):  # -1: the layer has none
        data = model.buffers[tensor.buffer].data
        if data is None:
            continue
        values = np.asarray(data, np.uint8).view(np.int32) * _scales(tensor)
        buffer = files.schema_fb.BufferT()
        buffer.data = np.round(values / scale).astype(np.int32).view(np.uint8)
        model.buffers.append(buffer)  # another layer's bias may share the old one
        tensor.buffer = len(model.buffers) - 1
        tensor.quantization.scale = scale.astype(np.float32)
