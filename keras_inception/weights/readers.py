"""Selects the reader of a file by its name."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from keras_inception.bounded import Allowance, shown
from keras_inception.cost.layers import network_cost
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
        path: a file or a checkpoint's folder; its suffix gives the format.
        spec: the network; default that of the file.
        classes: 1001 keeps the background of a TF-Slim checkpoint, which is dropped otherwise.

    Raises:
        MissingPackageError: the format needs an optional package.
        ValueError: no such file, an unknown format, a damaged file, or another network.
    """
    if not path.exists() and not _index(path).is_file():
        raise ValueError(
            f"Expected a file of weights. Received: {str(path)!r}, which is not there."
        )
    reader = _reader(path)
    try:
        found = slim.source(path, spec, classes) if reader is slim else reader.source(path, spec)
    except ImportError:
        raise
    except Exception as error:  # a file may lack anything that its format always has
        if isinstance(error, ValueError) and str(error).startswith("Expected"):
            raise
        raise ValueError(
            f"Expected a whole file of weights. Received: {str(path)!r}, which lacks parts that "
            f"its format always has ({type(error).__name__}: {shown(str(error))})."
        ) from error
    if spec is None and found.spec is not None:  # with as many classes as the file says
        total = network_cost(found.spec, auxiliary=bool(found.spec.aux)).total
        Allowance(path).take("its network", 4 * (total.params + total.non_trainable))
    return found


def pixel_conventions(path: Path) -> tuple[str, ...]:
    """Return the pixel conventions that the weights of a file may have been trained with.

    The convention of a library's published file (`manifest`) comes first. Empty for `.weights.h5`,
    which does not record it; a `.keras` file of this package records its own.
    """
    reader = _reader(path)
    if reader is own:
        recorded = own.pixel_convention(path)
        return () if recorded is None else (recorded,)
    return _CONVENTIONS[reader]


# The files of the ONNX model zoo are converted from Caffe. A state dict of torchvision does not
# record `transform_input`: the input is "tf" with it, as in the published one, "torch" without it.
_CONVENTIONS: dict[ModuleType, tuple[str, ...]] = {
    caffe: ("caffe",),
    onnx: ("caffe",),
    torchvision: ("tf", "torch"),
    inception5h: ("inception5h",),
    slim: ("tf",),
}


def _reader(path: Path) -> ModuleType:
    """Return the module that reads a file, by its suffix."""
    name = path.name.lower()
    for suffixes, reader in (
        ((".weights.h5", ".keras"), own),
        ((".caffemodel",), caffe),
        ((".onnx",), onnx),
        ((".pth", ".pt", ".safetensors"), torchvision),
        ((".pb", ".zip"), inception5h),
        ((".ckpt", ".index", ".tar.gz", ".tgz", ".tar"), slim),
    ):
        if name.endswith(suffixes):
            return reader
    if path.is_dir() or _index(path).is_file():
        return slim
    raise ValueError(
        f"Expected a file of weights of a known format: {FORMATS}. Received: {str(path)!r}"
    )


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.index")
