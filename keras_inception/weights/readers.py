"""Which reader reads which file, by its name."""

from __future__ import annotations

from pathlib import Path

from keras_inception.spec.network import NetworkSpec
from keras_inception.weights import caffe, inception5h, onnx, own, slim, torchvision
from keras_inception.weights.source import Source

FORMATS = (
    ".weights.h5 or .keras (ours), .caffemodel (BVLC), .onnx (ONNX model zoo), .pth, .pt or "
    ".safetensors (torchvision), a checkpoint's folder, prefix, .ckpt, .tar.gz or .tgz (TF-Slim), "
    ".pb or .zip (inception5h)"
)


def read_source(path: Path, spec: NetworkSpec | None = None, classes: int | None = None) -> Source:
    """Read a file of weights of any known format.

    Args:
        path: of a file or a checkpoint's folder; its suffix tells the format.
        spec: the network; default the one that the file holds.
        classes: 1001 keeps the background of a TF-Slim checkpoint, which is dropped otherwise.

    Raises:
        ImportError: a format whose package is not installed.
        ValueError: no such file, an unknown format, a damaged file, or another network.
    """
    name = path.name.lower()
    index = path.with_name(f"{path.name}.index")
    if not path.exists() and not index.is_file():
        raise ValueError(
            f"Expected a file of weights. Received: {str(path)!r}, which is not there."
        )
    if name.endswith((".weights.h5", ".keras")):
        return own.source(path, spec)
    if name.endswith(".caffemodel"):
        return caffe.source(path, spec)
    if name.endswith(".onnx"):
        return onnx.source(path, spec)
    if name.endswith((".pth", ".pt", ".safetensors")):
        return torchvision.source(path, spec)
    if name.endswith((".pb", ".zip")):
        return inception5h.source(path, spec)
    checkpoint = (".ckpt", ".index", ".tar.gz", ".tgz", ".tar")
    if path.is_dir() or index.is_file() or name.endswith(checkpoint):
        return slim.source(path, spec, classes)
    raise ValueError(
        f"Expected a file of weights of a known format: {FORMATS}. Received: {str(path)!r}"
    )
