"""Open an exported network: a SavedModel of this package, LiteRT, ONNX or OpenVINO.

Imports the runtime alone, and no Keras, so that it works on a board which has nothing else.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_inception.bounded import shown
from keras_inception.packages import require_package
from keras_inception.quiet import quiet_tensorflow

Scores = Callable[[np.ndarray], np.ndarray]
# Scores, and (height, width, channels) of the pixels.
Opened = tuple[Scores, tuple[Any, ...]]

# Key of an OpenVINO file's runtime information: the compute precision, "f32" or "bf16".
OPENVINO_PRECISION = ["keras_inception", "inference_precision"]
RUNTIME_PACKAGES = {
    "saved_model": "tensorflow",
    "litert": "ai_edge_litert",
    "onnx": "onnxruntime",
    "openvino": "openvino",
}
# Of the input of one image; 224 x 224 x 3 has 150,000.
_MOST_PIXELS = 50_000_000
_RUNTIMES = {".tflite": "litert", ".onnx": "onnx", ".xml": "openvino"}


def runtime_of(path: Path) -> str | None:
    """The runtime of an exported network; None: it is none."""
    if path.is_dir():
        return "saved_model" if (path / "saved_model.pb").is_file() else None
    return _RUNTIMES.get(path.suffix) if path.is_file() else None


def open_exported(
    path: Path, *, threads: int | None = None, cache: Path | None = None
) -> tuple[Scores, tuple[Any, ...], tuple[int, ...]]:
    """Open an exported network, and run it once: a damaged one may fail only then.

    Args:
        path: a SavedModel's folder, or a .tflite, .onnx or .xml file.
        threads: of the runtime; None: its own choice, all cores for LiteRT and OpenVINO.
        cache: a folder for what OpenVINO compiles, made if need be; None for none.

    Returns:
        Its scores, float32 pixels in [0, 255], N x h x w x C -> float32 N x classes; the shape
        (h, w, C) of an image; and that of the scores of one image.

    Raises:
        MissingPackageError: its runtime is not installed.
        ValueError: no exported network, a damaged one, or `threads` of a TensorFlow that runs.
    """
    runtime = runtime_of(path)
    if runtime is None:
        raise ValueError(
            "Expected an exported network: a SavedModel's folder, or a .tflite, .onnx or .xml "
            f"(OpenVINO) file of `keras-inception export`. Received: {str(path)!r}"
        )
    require_package(RUNTIME_PACKAGES[runtime])
    if runtime == "saved_model" and threads is not None:
        limit_tensorflow(threads)
    try:
        scores, shape = _OPENERS[runtime](path, threads, cache)
        _require_image(shape)
        answer = scores(np.zeros((1, *shape), np.float32))
        _require_scores(answer)
        return scores, shape, answer.shape
    except Exception as error:  # each runtime has its own for a damaged file
        raise ValueError(
            f"Expected a whole model, as `keras-inception export` writes it. Received: "
            f"{str(path)!r} ({type(error).__name__}: {error})"
        ) from error


def _require_image(shape: tuple[Any, ...]) -> None:
    """Refuse an input that is no image of a fixed size, or a huge one."""
    sizes = [size for size in shape if isinstance(size, int) and size > 0]
    if len(sizes) != len(shape) or len(shape) != 3 or math.prod(sizes) > _MOST_PIXELS:
        raise ValueError(
            f"Expected an input of a fixed height, width and channels, at most {_MOST_PIXELS:,} "
            f"numbers. Received: {shown(shape)}"
        )


def _require_scores(answer: Any) -> None:
    """Refuse what is no scores of one image: one number or more, from 0 to 1."""
    right = (
        isinstance(answer, np.ndarray)
        and answer.dtype == np.float32
        and answer.ndim == 2
        and len(answer) == 1
        and answer.shape[1] > 0
    )
    if not right or not np.isfinite(answer).all():
        kind = f"{getattr(answer, 'dtype', type(answer))} of shape {getattr(answer, 'shape', None)}"
        raise ValueError(f"Expected finite float32 scores, 1 x classes. Received: {kind}")


def answering_none(scores: Scores, classes: int) -> Scores:
    """Scores that are empty for no images, which not every runtime computes."""
    return lambda pixels: scores(pixels) if len(pixels) else np.zeros((0, classes), np.float32)


def limit_tensorflow(threads: int) -> None:
    """Set TensorFlow's threads, which are those of the process, before it begins to compute.

    Raises:
        ValueError: it computes already, with other threads.
    """
    with quiet_tensorflow():
        import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise ValueError(
            "Expected no threads for a TensorFlow that computes already. "
            f"Received: threads={threads}. Load a model with other threads in a new process."
        ) from error


def _saved_model(path: Path, _: int | None, __: Path | None) -> Opened:
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


def _litert(path: Path, threads: int | None, _: Path | None) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    with quiet_tensorflow():
        interpreter = Interpreter(str(path), num_threads=threads or os.cpu_count())  # with XNNPACK
        interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    shape = tuple(int(size) for size in source["shape"])
    one_image = source["shape_signature"][0] == 1

    def scores(pixels: np.ndarray) -> np.ndarray:
        if one_image:
            return np.concatenate([call(pixels[i : i + 1]) for i in range(len(pixels))])
        if tuple(interpreter.get_input_details()[0]["shape"]) != pixels.shape:
            interpreter.resize_tensor_input(source["index"], pixels.shape)
            interpreter.allocate_tensors()
        return call(pixels)

    def call(pixels: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], _quantized(pixels, source))
        interpreter.invoke()
        return _restored(interpreter.get_tensor(target["index"]), target)

    return scores, shape[1:]


def _quantized(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """Values in the type of a tensor: as they are in float32, else by its scale and zero point."""
    if tensor["dtype"] == np.float32:
        return values
    scale, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    steps = np.round(values / scale) + zero
    return np.clip(steps, limits.min, limits.max).astype(tensor["dtype"])


def _restored(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    if tensor["dtype"] == np.float32:
        return values
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale)


def _onnx(path: Path, threads: int | None, _: Path | None) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: its own choice
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    return lambda pixels: session.run(None, {source.name: pixels})[0], tuple(source.shape[1:])


def _openvino(path: Path, threads: int | None, cache: Path | None) -> Opened:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    # OpenVINO would take bfloat16 by itself where the CPU has it.
    known = model.has_rt_info(OPENVINO_PRECISION)
    precision = model.get_rt_info(OPENVINO_PRECISION).astype(str) if known else "f32"
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",  # one call at a time, with all threads
        "INFERENCE_NUM_THREADS": threads or os.cpu_count(),
    }
    if cache is not None and _writable(cache):
        settings["CACHE_DIR"] = str(cache)
    compiled = core.compile_model(model, "CPU", settings)
    shape = tuple(dim.get_length() for dim in list(compiled.input(0).get_partial_shape())[1:])
    return lambda pixels: np.array(compiled(pixels)[0]), shape


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


_OPENERS: dict[str, Callable[[Path, int | None, Path | None], Opened]] = {
    "saved_model": _saved_model,
    "litert": _litert,
    "onnx": _onnx,
    "openvino": _openvino,
}
