"""Optional packages: which extra installs each, and one message where one is missing.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

# What is imported -> the extra of pyproject.toml that installs it.
EXTRAS = {
    "tensorflow": "cpu",
    "jax": "jax",
    "jinja2": "report",
    "matplotlib": "report",
    "scipy": "report",
    "threadpoolctl": "report",
    "tensorboard": "report",
    "optuna": "tune",
    "plotly": "tune",
    "sklearn": "tune",
    "fastapi": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "tf2onnx": "onnx",
    "openvino": "openvino",
    "nncf": "openvino",
    "ai_edge_litert": "litert",
    "safetensors": "torch",
    "torch": "torch",
    "torchvision": "torch",
}


class MissingPackageError(ModuleNotFoundError):
    """An optional package is not installed; the message has the command that installs it."""

    def __init__(self, package: str, extra: str | None = None) -> None:
        super().__init__(
            f"Expected the package {package!r}. It is not installed: "
            f'pip install "keras-inception[{extra or EXTRAS[package]}]"',
            name=package,
        )


def is_installed(package: str) -> bool:
    """Whether a package can be imported; does not import it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # blocked, or replaced by a module without a spec
        return False


def require_package(package: str) -> None:
    """Check that an optional package of `EXTRAS` is installed.

    Raises:
        MissingPackageError: it is not.
    """
    if not is_installed(package):
        raise MissingPackageError(package)


@contextmanager
def explained_imports(extra: str | None = None) -> Iterator[None]:
    """Replace the error of a missing optional package by one that says how to install it.

    Args:
        extra: to name instead of "report", where that one alone would not be enough.

    Raises:
        MissingPackageError: a package of `EXTRAS` could not be imported.
    """
    try:
        yield
    except MissingPackageError:
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        instead = extra if EXTRAS[package] == "report" else None
        raise MissingPackageError(package, instead) from error
