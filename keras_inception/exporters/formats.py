"""The formats other than SavedModel, from the same folded network: ONNX, OpenVINO, LiteRT.

Each takes `pixels`, float32 N x h x w x C in [0, 255], and returns scores: the pixel convention is
inside, as in the SavedModel's signature `images`. `litert-uint8` takes one image
in uint8 and gives uint8 scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from keras_inception.exporters.inference_graph import fold_batch_norm
from keras_inception.exporters.int8 import quantize_onnx, quantize_openvino
from keras_inception.exporters.litert_scales import with_accepted_scales
from keras_inception.exporters.saved_model import constant_function
from keras_inception.files import temporary_folder
from keras_inception.packages import require_package
from keras_inception.quiet import level_kept, quiet_tensorflow
from keras_inception.runtimes.exported import OPENVINO_PRECISION
from keras_inception.runtimes.keras_model import image_shape, network_input

Format = Literal[
    "saved_model",
    "saved_model-bfloat16",
    "onnx",
    "onnx-int8",
    "openvino",
    "openvino-bfloat16",
    "openvino-int8",
    "litert",
    "litert-float16",
    "litert-int8",
    "litert-uint8",
]
FORMATS: tuple[Format, ...] = get_args(Format)

# Names of the results in the folder of an export.
FILES: dict[Format, str] = {
    "saved_model": "saved_model",
    "saved_model-bfloat16": "saved_model_bfloat16",
    "onnx": "model.onnx",
    "onnx-int8": "model_int8.onnx",
    "openvino": "model.xml",
    "openvino-bfloat16": "model_bfloat16.xml",
    "openvino-int8": "model_int8.xml",
    "litert": "model.tflite",
    "litert-float16": "model_float16.tflite",
    "litert-int8": "model_int8.tflite",
    "litert-uint8": "model_uint8.tflite",
}
# The precision of each format, for the check.
PRECISIONS: dict[Format, str] = {
    "saved_model-bfloat16": "bfloat16",
    "onnx-int8": "int8",
    "openvino-bfloat16": "bfloat16",
    "openvino-int8": "int8",
    "litert-float16": "float16",
    "litert-int8": "int8",
    "litert-uint8": "int8",
}
_PACKAGES = {
    "saved_model": (),
    "onnx": ("tf2onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert",),
}
# The newest opset that tf2onnx writes for these operators and every onnxruntime since 1.10 reads.
_ONNX_OPSET = 15


class UnsupportedNetworkError(ValueError):
    """A format cannot express a network."""


def require_packages(kind: Format) -> None:
    """Check a format's name and packages before work begins.

    Raises:
        MissingPackageError: an optional package is missing.
        ValueError: an unknown format.
    """
    if kind not in FORMATS:
        raise ValueError(f"Expected a format among {', '.join(FORMATS)}. Received: {kind!r}")
    for package in _PACKAGES[kind.partition("-")[0]]:
        require_package(package)
    if kind == "openvino-int8":
        require_package("nncf")


@level_kept()
def write_format(
    model: keras.Model,
    path: Path,
    kind: Format,
    *,
    calibration: np.ndarray,
    keep_accuracy: bool = True,
    labels: Sequence[str] | None = None,
) -> None:
    """Write one of the formats other than SavedModel.

    Args:
        model: a model of this package.
        path: the file to write.
        kind: the format.
        calibration: uint8 N x h x w x C images that give int8 the ranges of activations.
        keep_accuracy: leave layers of int8 in float32 where the first class changes too often;
            False for networks that are only timed, whose weights and images are random.
        labels: the names of the classes, which go into a LiteRT file; default their numbers.

    Raises:
        UnsupportedNetworkError: LRN in `litert-uint8`, whose operators are all of integers.
    """
    _forget_eager_tables()
    function = _scoring_function(model, batch=1 if kind == "litert-uint8" else None)
    if kind == "onnx":
        _write_onnx(function, path)
    elif kind == "onnx-int8":
        with temporary_folder() as folder:
            exact = folder / "exact.onnx"
            _write_onnx(function, exact)
            quantize_onnx(exact, path, calibration.astype(np.float32), keep_accuracy=keep_accuracy)
    elif kind in ("openvino", "openvino-bfloat16", "openvino-int8"):
        import openvino

        converted = openvino.convert_model(function.get_concrete_function())
        if kind == "openvino-int8":
            converted = quantize_openvino(
                converted, calibration.astype(np.float32), keep_accuracy=keep_accuracy
            )
            _require_int8(converted)
        converted.inputs[0].set_names({"pixels"})
        converted.outputs[0].set_names({"scores"})
        converted.set_rt_info("bf16" if kind == "openvino-bfloat16" else "f32", OPENVINO_PRECISION)
        openvino.save_model(converted, path, compress_to_fp16=False)
    else:
        from keras_inception.exporters.litert_metadata import with_metadata

        names = labels or [str(index) for index in range(model.output_shape[-1])]
        content = _litert(function, kind, calibration)
        channels = image_shape(model)[2]
        path.write_bytes(with_metadata(content, name=model.name, labels=names, channels=channels))


def _write_onnx(function: Any, path: Path) -> None:
    """The input is `pixels`, the output `scores`, the first axis of both `batch`."""
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(
        function, input_signature=function.input_signature, opset=_ONNX_OPSET
    )
    (source,), (target,) = model.graph.input, model.graph.output
    for node in model.graph.node:
        node.output[:] = ["scores" if name == target.name else name for name in node.output]
    target.name = "scores"
    for tensor in (source, target):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _forget_eager_tables() -> None:
    """Drop the entry None that each eager table leaves, and that converters warn of."""
    tables = tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS)
    tables[:] = [initializer for initializer in tables if initializer is not None]


def _scoring_function(model: keras.Model, batch: int | None) -> Any:
    network = fold_batch_norm(model)
    scores = constant_function(network)

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec((batch, *image_shape(network)), tf.float32, name="pixels")],
    )
    def function(pixels: Any) -> dict[str, Any]:
        return {"scores": tf.identity(scores(network_input(network, pixels)), name="scores")}

    return function


def _litert(function: Any, kind: Format, calibration: np.ndarray) -> bytes:
    is_integer = kind in ("litert-int8", "litert-uint8")
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], tf.Module()
    )
    if kind != "litert":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "litert-float16":
        converter.target_spec.supported_types = [tf.float16]
    if is_integer:

        def images() -> Iterator[list[np.ndarray]]:
            for image in calibration.astype(np.float32):
                yield [image[None]]

        converter.representative_dataset = images
        operators = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if kind == "litert-uint8":
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        else:  # LRN's power has no int8 kernel and stays in float between the quantized layers
            operators.append(tf.lite.OpsSet.TFLITE_BUILTINS)
        converter.target_spec.supported_ops = operators
    with quiet_tensorflow():
        content = converter.convert()
    if kind == "litert-uint8":
        _require_integers(content)
    if is_integer:
        content = with_accepted_scales(content)
    return content


def _require_integers(content: bytes) -> None:
    """Refuse operators in float32, which the converter leaves where it has no integer kernel."""
    from ai_edge_litert.tools import flatbuffer_utils as files

    model = files.convert_bytearray_to_object(bytearray(content))
    (graph,) = model.subgraphs
    floating = {
        files.opcode_to_name(model, operator.opcodeIndex)
        for operator in graph.operators
        for place in operator.outputs
        if graph.tensors[place].type == files.schema_fb.TensorType.FLOAT32
    }
    if floating:
        raise UnsupportedNetworkError(
            "Expected a network of integer operators for litert-uint8, such as one with batch "
            f"normalization instead of LRN. Received: {', '.join(sorted(floating))} in float32. "
            "Use litert-int8."
        )


def _require_int8(model: Any) -> None:
    """Refuse an OpenVINO model of which no layer could stay in int8."""
    if not any(operation.get_type_name() == "FakeQuantize" for operation in model.get_ops()):
        raise UnsupportedNetworkError(
            "Expected a network whose first classes survive int8 for openvino-int8. Received: "
            "every layer changes too many of them and stays in float32. Use openvino-bfloat16."
        )
