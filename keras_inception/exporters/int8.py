"""Int8 networks of ONNX and OpenVINO: quantization after training, by the runtimes' own tools.

Ranges of activations come from calibration images. Where the quantized network's first class is
too often another one on these, the layers that are hurt most stay in float32.

Sources: onnxruntime's static quantization (QDQ, a scale for each output channel); NNCF's
post-training quantization and its accuracy-aware mode.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from keras_inception.exporters.parity import LEAST_SAME_FIRST
from keras_inception.runtimes.load import load_network

_LEAST = LEAST_SAME_FIRST["int8"]
# Images that rank the layers; each layer is one more pass over them.
_RANKING_IMAGES = 50
# Of the layers that can be quantized, at most this share stays in float32.
_MOST_IN_FLOAT = 0.5


def quantize_onnx(
    source: Path, path: Path, calibration: np.ndarray, *, keep_accuracy: bool = True
) -> None:
    """Write an int8 ONNX file beside a float32 one.

    Args:
        source: a float32 file of this package.
        path: of the int8 file.
        calibration: float32 N x h x w x C in [0, 255].
        keep_accuracy: leave layers in float32 where the first class changes too often.
    """
    import onnx

    if not keep_accuracy:
        _write_onnx(source, path, calibration, exclude=())
        return
    nodes = onnx.load(source).graph.node
    layers = [node.name for node in nodes if node.op_type in _QUANTIZED]
    expected = _first_classes(source, calibration)
    _write_onnx(source, path, calibration, exclude=())
    if _same(path, calibration, expected) >= _LEAST:
        return
    worst = _by_error(source, path, calibration[:_RANKING_IMAGES], layers)
    count = 1
    while count <= len(worst):
        excluded = _with_inputs(nodes, worst[:count])
        if len(excluded.intersection(layers)) > _MOST_IN_FLOAT * len(layers):
            return
        _write_onnx(source, path, calibration, exclude=sorted(excluded))
        if _same(path, calibration, expected) >= _LEAST:
            return
        count *= 2


_QUANTIZED = ("Conv", "MatMul", "Gemm")


def _with_inputs(nodes: Sequence[Any], layers: Sequence[str]) -> set[str]:
    """The layers and all that their inputs pass through, back to the products that give them.

    A layer reads float32 only if none of these rounds it.
    """
    makers = {name: node for node in nodes for name in node.output}
    found = set(layers)
    read = [name for node in nodes if node.name in found for name in node.input]
    while read:
        node = makers.get(read.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            read += [] if node.op_type in _QUANTIZED else node.input
    return found


def _write_onnx(source: Path, path: Path, calibration: np.ndarray, exclude: Sequence[str]) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"pixels": image[None]}

    with _quiet():
        quantization.quantize_static(
            source,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=[*_QUANTIZED, "Concat", "MaxPool", "Relu"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[*exclude],
        )


def _by_error(
    source: Path, quantized: Path, images: np.ndarray, layers: Sequence[str]
) -> list[str]:
    """The layers, from the one whose output differs most from float32's, relative to its size."""
    import onnx

    # A ReLU becomes part of the quantized layer, whose output then has the ReLU's name.
    outputs = {node.name: node.output[0] for node in onnx.load(quantized).graph.node}
    names = {layer: outputs[layer] for layer in layers if layer in outputs}
    wanted, received = (_tensors(path, [*names.values()], images) for path in (source, quantized))
    errors = {}
    for layer, name in names.items():
        if name in wanted and np.any(wanted[name]):
            given = np.maximum(received[name], wanted[name].min())  # before the ReLU's clipping
            errors[layer] = np.linalg.norm(given - wanted[name]) / np.linalg.norm(wanted[name])
    return sorted(errors, key=lambda layer: -errors[layer])


def _tensors(path: Path, names: Sequence[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors of a graph, by name; those that it does not have are left out."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    present = {name for node in model.graph.node for name in node.output}
    found = [name for name in names if name in present]
    own = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in found
        if name not in own
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(found, session.run(found, {"pixels": images}), strict=True))


def quantize_openvino(model: Any, calibration: np.ndarray, *, keep_accuracy: bool = True) -> Any:
    """Return an OpenVINO model in int8.

    Args:
        model: an `openvino.Model` of this package, in float32.
        calibration: float32 N x h x w x C in [0, 255].
        keep_accuracy: leave layers in float32 where the first class changes too often.
    """
    import nncf
    import openvino

    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = _openvino_first(compiled, calibration)

    def same_first(candidate: Any, images: Iterable[np.ndarray]) -> float:
        pixels = np.concatenate([*images])
        return float(np.mean(_openvino_first(candidate, pixels) == expected[: len(pixels)]))

    images = [image[None] for image in calibration]
    options = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(images)}
    with _quiet():
        found = nncf.quantize(model, nncf.Dataset(images), **options)
        if not keep_accuracy:
            return found
        quantized = openvino.compile_model(found, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        if same_first(quantized, images) >= _LEAST:
            return found
        return nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(images),
            nncf.Dataset(images),
            same_first,
            max_drop=1 - _LEAST,
            drop_type=nncf.DropType.ABSOLUTE,
            **options,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=_RANKING_IMAGES
            ),
        )


def _openvino_first(compiled: Any, pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([compiled(image[None])[0] for image in pixels]).argmax(axis=1)


def _first_classes(path: Path, images: np.ndarray) -> np.ndarray:
    return load_network(path, is_own=True).scores(images).argmax(axis=1)


def _same(path: Path, images: np.ndarray, expected: np.ndarray) -> float:
    return float(np.mean(_first_classes(path, images) == expected))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the progress bars and advice of the quantizers; errors are raised all the same."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
