"""Load any saved network: pixels in, scores out. Optional packages are imported inside functions.

A `.keras` file, a SavedModel of this package, LiteRT, ONNX and OpenVINO. Decodes no images.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_inception.files import LABELS_FILE, MODEL_FILE, read_labels
from keras_inception.packages import require_package
from keras_inception.quiet import quiet_tensorflow
from keras_inception.runtimes.keras_model import (
    Network,
    Scores,
    keras_network,
    load_keras,
)

# Key of an OpenVINO file's runtime information: the compute precision, "f32" or "bf16".
OPENVINO_PRECISION = ["keras_inception", "inference_precision"]


EXPECTED = (
    "a run's folder with its model.keras, a .keras file, a SavedModel's folder, or a .tflite, "
    ".onnx or .xml (OpenVINO) file of `keras-inception export`"
)


def load_network(path: str | os.PathLike[str]) -> Network:
    """Load a network from a file or folder; the labels from the `labels.txt` with it.

    Raises:
        MissingPackageError: the format needs an optional package.
        ValueError: nothing of a known kind, not a classifier of this package, or labels that are
            not as many as the classes.
    """
    path = Path(path)
    if path.is_dir() and (path / MODEL_FILE).is_file():
        path = path / MODEL_FILE
    if path.suffix == ".keras" and path.is_file():
        model = load_keras(path)
        return keras_network(model, _labels(path.with_name(LABELS_FILE), model.output_shape[-1]))
    if path.is_dir() and (path / "saved_model.pb").is_file():
        scores, shape = _opened(_saved_model, path)
        beside = path / "assets" / LABELS_FILE
    elif path.is_file() and path.suffix in _LOADERS:
        scores, shape = _opened(_LOADERS[path.suffix], path)
        beside = path.with_name(LABELS_FILE)
    else:
        raise ValueError(f"Expected {EXPECTED}. Received: {str(path)!r}")
    classes = scores(np.zeros((1, *shape), np.float32)).shape[1]
    return Network(scores, shape, _labels(beside, classes))


def _labels(path: Path, classes: int) -> tuple[str, ...]:
    if not path.is_file():
        return tuple(str(index) for index in range(classes))
    labels = read_labels(path)
    if len(labels) != classes:
        raise ValueError(
            f"Expected {classes} lines in {str(path)!r}, one for each class. "
            f"Received: {len(labels)}"
        )
    return labels


def _opened(load: Callable[[Path], tuple[Scores, Any]], path: Path) -> tuple[Scores, Any]:
    """Load with another runtime; each has its own errors for a damaged file."""
    require_package(_PACKAGES.get(path.suffix, "tensorflow"))
    try:
        return load(path)
    except Exception as error:
        raise ValueError(
            f"Expected a whole model, as `keras-inception export` writes it. Received: "
            f"{str(path)!r} ({type(error).__name__}: {error})"
        ) from error


def _saved_model(path: Path) -> tuple[Scores, Any]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures.get("images")
    if serve is None:
        raise ValueError(
            "Expected a SavedModel with the signature `images`, as export writes it. Received: "
            f"{str(path)!r} with {sorted(loaded.signatures)}"
        )
    shape = serve.structured_input_signature[1]["pixels"].shape[1:]

    def scores(pixels: np.ndarray) -> np.ndarray:
        return serve(pixels=tf.constant(pixels, tf.float32))["scores"].numpy()

    scores.loaded = loaded  # type: ignore[attr-defined] # a signature does not keep its tables
    return scores, tuple(shape)


def _litert(path: Path) -> tuple[Scores, Any]:
    from ai_edge_litert.interpreter import Interpreter

    with quiet_tensorflow():
        interpreter = Interpreter(str(path), num_threads=os.cpu_count())  # with XNNPACK
        interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    shape = tuple(int(size) for size in interpreter.get_input_details()[0]["shape"])

    def scores(pixels: np.ndarray) -> np.ndarray:
        if tuple(interpreter.get_input_details()[0]["shape"]) != pixels.shape:
            interpreter.resize_tensor_input(source, pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source, pixels)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return scores, shape[1:]


def _onnx(path: Path) -> tuple[Scores, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    return lambda pixels: session.run(None, {source.name: pixels})[0], tuple(source.shape[1:])


def _openvino(path: Path) -> tuple[Scores, Any]:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    # OpenVINO would take bfloat16 by itself where the CPU has it.
    known = model.has_rt_info(OPENVINO_PRECISION)
    precision = model.get_rt_info(OPENVINO_PRECISION).astype(str) if known else "f32"
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    shape = tuple(dim.get_length() for dim in list(compiled.input(0).get_partial_shape())[1:])
    return lambda pixels: np.array(compiled(pixels)[0]), shape


_LOADERS: dict[str, Callable[[Path], tuple[Scores, Any]]] = {
    ".tflite": _litert,
    ".onnx": _onnx,
    ".xml": _openvino,
}


# What other formats than TensorFlow's need.
_PACKAGES = {".onnx": "onnxruntime", ".tflite": "ai_edge_litert", ".xml": "openvino"}
