"""This package's files, `.weights.h5` and `.keras`, read by layer name without building a model."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from keras_inception.spec.network import INPUT_NAME_PREFIX, NetworkSpec
from keras_inception.spec.pixels import CONVENTIONS, PREPROCESSING_PREFIX
from keras_inception.weights.source import Arrays, Source

_CONFIG = "config.json"  # in a .keras file
_MEMBER = "model.weights.h5"  # likewise
_KERNEL = ("kernel", "bias")
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read(path: Path) -> Arrays:
    """Return all weights of layers, without seeds of dropout and optimizer state.

    Raises:
        ValueError: if it is not a file of Keras 3, or its layers have no names.
    """
    try:
        if path.suffix.lower() == ".keras":
            with zipfile.ZipFile(path) as archive:
                data = io.BytesIO(archive.read(_MEMBER))
            with h5py.File(data) as file:
                return _arrays(file, path)
        with h5py.File(path) as file:
            return _arrays(file, path)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Expected a `.weights.h5` or `.keras` file of Keras 3. Received: {str(path)!r} "
            f"({error})"
        ) from error


def source(path: Path, spec: NetworkSpec | None) -> Source:
    """Read a file; its names are those of this package."""
    arrays = read(path)
    names = {name: name for name in arrays}
    return Source(path=path, spec=spec, arrays=arrays, names=names, channels_first=False)


def pixel_convention(path: Path) -> str | None:
    """Return the pixel convention of a `.keras` file's network; None if it is not recorded.

    Raises:
        ValueError: a damaged file.
    """
    if path.suffix.lower() != ".keras":
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(_CONFIG))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Expected a `.keras` file of Keras 3. Received: {str(path)!r} ({error})"
        ) from error
    names = list(_names(config))
    for prefix in (PREPROCESSING_PREFIX, INPUT_NAME_PREFIX):  # inside the network before its input
        for name in names:
            if name.startswith(prefix) and name.removeprefix(prefix) in CONVENTIONS:
                return name.removeprefix(prefix)
    return None


def _names(config: Any) -> Iterator[str]:
    """Return the names of all layers in a model's configuration, including nested models."""
    if isinstance(config, dict):
        if isinstance(config.get("name"), str):
            yield config["name"]
        for value in config.values():
            yield from _names(value)
    elif isinstance(config, list):
        for value in config:
            yield from _names(value)


def _arrays(file: h5py.File, path: Path) -> Arrays:
    arrays = {}
    for group in file["layers"].values():
        variables = group.get("vars")
        if variables is None or not len(variables):
            continue
        layer = variables.attrs.get("name")
        if layer is None:
            raise ValueError(
                f"Expected layers with names in {str(path)!r}. Received: one without, as Keras "
                "before 3.12 wrote them. Load it with that Keras and save it with this one."
            )
        labels = _BATCH_NORM[-len(variables) :] if layer.endswith("_bn") else _KERNEL
        if len(variables) > len(labels):
            raise ValueError(
                f"Expected at most {len(labels)} weights in layer {layer!r}. "
                f"Received: {len(variables)} in {str(path)!r}."
            )
        for index in range(len(variables)):
            arrays[f"{layer}/{labels[index]}"] = variables[str(index)][()]
    return arrays
