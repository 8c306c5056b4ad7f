"""This package's files, `.weights.h5` and `.keras`, read by layer name without building a model."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from keras_inception.bounded import read_file, shown
from keras_inception.spec.network import INPUT_NAME_PREFIX, NetworkSpec
from keras_inception.spec.pixels import CONVENTIONS, PREPROCESSING_PREFIX
from keras_inception.weights.hdf5 import check_hdf5
from keras_inception.weights.keras_file import own_allowance, read_config, read_weights
from keras_inception.weights.source import Arrays, Source

_KERNEL = ("kernel", "bias")
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read(path: Path) -> Arrays:
    """Return all weights of layers, without seeds of dropout and optimizer state.

    Raises:
        ValueError: if it is not a file of Keras 3, or its layers have no names.
    """
    try:
        content = _contents(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a `.weights.h5` or `.keras` file of Keras 3. Received: {str(path)!r} "
            f"({error})"
        ) from error
    with h5py.File(io.BytesIO(content)) as file:
        return _arrays(file, path)


def _contents(path: Path) -> bytes:
    """Return the HDF5 file, checked and in memory, so that nothing else is read afterwards."""
    if path.suffix.lower() == ".keras":
        read_config(path)
        return read_weights(path)
    content = read_file(path, own_allowance(path))
    check_hdf5(content, own_allowance(path))
    return content


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
    names = list(_names(read_config(path)))
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
    layers = file.get("layers")
    if not isinstance(layers, h5py.Group):
        raise ValueError(
            "Expected a `.weights.h5` or `.keras` file of Keras 3, with a group `layers`. "
            f"Received: {str(path)!r}"
        )
    for group in layers.values():
        variables = group.get("vars") if isinstance(group, h5py.Group) else None
        if not isinstance(variables, h5py.Group) or not len(variables):
            continue
        layer = variables.attrs.get("name")
        if layer is None:
            raise ValueError(
                f"Expected layers with names in {str(path)!r}. Received: one without, as Keras "
                "before 3.12 wrote them. Load it with that Keras and save it with this one."
            )
        labels = _BATCH_NORM[-len(variables) :] if str(layer).endswith("_bn") else _KERNEL
        if len(variables) > len(labels):
            raise ValueError(
                f"Expected at most {len(labels)} weights in layer {layer!r}. "
                f"Received: {len(variables)} in {str(path)!r}."
            )
        for index in range(len(variables)):
            array = variables[str(index)]
            if not isinstance(layer, str) or not isinstance(array, h5py.Dataset):
                raise ValueError(
                    f"Expected arrays in layer {shown(layer)}. Received: a group, or a name that "
                    f"is no text, in {str(path)!r}."
                )
            arrays[f"{layer}/{labels[index]}"] = array[()]
    return arrays
