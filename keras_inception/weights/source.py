"""The result of a reader, and its conversion to Keras's names and layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_inception.bounded import LEAST_BYTES, Allowance
from keras_inception.cost.layers import network_cost
from keras_inception.spec.network import ConvSpec, LRNSpec, NetworkSpec

Arrays = dict[str, np.ndarray]
# Largest relative rounding error of an LRN constant stored as float32.
_FLOAT32 = 1e-6
# For a network of any size, whose parameters then do not depend on it.
_ANY_SIZE = 1024
# Bytes for each parameter: a checkpoint also holds an optimizer's slots and averages.
_COPIES = 4 * 4


@dataclass(frozen=True, kw_only=True)
class Source:
    """The contents of a file of weights.

    Attributes:
        path: of the file.
        spec: the network of the file; None if the file does not record it (this package's files).
        arrays: under the file's names, in the file's layout.
        names: this package's variable name -> name in the file.
        channels_first: kernels are O x I x h x w and dense kernels O x I (Caffe, torch, ONNX);
            otherwise h x w x I x O and I x O.
    """

    path: Path
    spec: NetworkSpec | None
    arrays: Arrays
    names: Mapping[str, str]
    channels_first: bool


def allowance(path: Path, spec: NetworkSpec | None = None) -> Allowance:
    """Return what the reader of a file may unpack or allocate, by the size of the network.

    Args:
        path: of the file.
        spec: the network; None: any of the public sets, the largest of which has 54 MB.
    """
    if spec is None:
        return Allowance(path)
    height, width, channels = spec.input_shape
    sized = replace(spec, input_shape=(height or _ANY_SIZE, width or _ANY_SIZE, channels))
    total = network_cost(sized, auxiliary=bool(spec.aux)).total
    return Allowance(path, max(LEAST_BYTES, _COPIES * (total.params + total.non_trainable)))


def converted(source: Source) -> Arrays:
    """Return all arrays of a source under this package's variable names, in Keras's layouts.

    Raises:
        ValueError: if the file lacks arrays of the network, or has others.
    """
    wanted = set(source.names.values())
    missing = [f" - {name}" for name in source.names.values() if name not in source.arrays]
    unexpected = [
        f" + {name} {array.shape}" for name, array in source.arrays.items() if name not in wanted
    ]
    if missing or unexpected:
        kind = "a network of this package" if source.spec is None else repr(source.spec.name)
        raise mismatch(
            f"Expected the arrays of {kind} in {str(source.path)!r}", missing, unexpected
        )
    if not source.channels_first:
        return {own: source.arrays[theirs] for own, theirs in source.names.items()}
    try:
        return {
            own: _channels_last(own, source.arrays[theirs], source)
            for own, theirs in source.names.items()
        }
    except (LookupError, ArithmeticError) as error:  # an array without axes, or without elements
        raise ValueError(
            f"Expected kernels of 4 or 2 axes in {str(source.path)!r}. Received: others ({error})"
        ) from error


def mismatch(expected: str, missing: Iterable[str], unexpected: Iterable[str]) -> ValueError:
    """Return the error that lists missing ( - ) and unexpected ( + ) names."""
    lines = [*missing, *unexpected]
    shown = lines[:20] + [f" ... and {len(lines) - 20} more"] * (len(lines) > 20)
    return ValueError(
        f"{expected} (missing: -, unexpected: +). Received:\n" + "\n".join(shown) + "\n"
        "Nothing was assigned. The file is another network's, or damaged: choose its `variant`, "
        "or fetch it again."
    )


def _channels_last(own: str, array: np.ndarray, source: Source) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim != 2:
        return array
    if own.endswith("_dense/kernel"):
        # The auxiliary classifier flattens C x h x w in the file, h x w x C in Keras.
        projection = own.replace("_dense/", "_proj_conv/")
        channels = source.arrays[source.names[projection]].shape[0]
        side = round((array.shape[1] / channels) ** 0.5)
        if channels * side * side != array.shape[1]:
            raise ValueError(
                f"Expected {source.names[own]!r} to take a square grid of {channels} channels. "
                f"Received: shape {array.shape} in {str(source.path)!r}."
            )
        grids = array.reshape(-1, channels, side, side).transpose(2, 3, 1, 0)
        return grids.reshape(array.shape[1], array.shape[0])
    return array.T


def pair_units(
    spec: NetworkSpec,
    *,
    stem: tuple[str, ...],
    module: Callable[[str], str],
    parts: tuple[str, str, str, str, str, str],
) -> dict[str, str]:
    """Map this package's convolution units to another library's names.

    Args:
        spec: a network of figure 2b's modules with two spatial branches.
        stem: names of the stem's convolutions in the library.
        module: name of a module ("3a") -> prefix of its units' names in the library.
        parts: suffixes of the units: 1x1, reduce and convolution of the first spatial branch, of
            the second, and the projection.

    Raises:
        ValueError: if the spec has other modules or another stem.
    """
    convolutions = [layer.name for layer in spec.stem if isinstance(layer, ConvSpec)]
    if len(convolutions) != len(stem):
        raise _foreign(spec)
    units = dict(zip(convolutions, stem, strict=True))
    for module_spec in spec.modules:
        suffixes = tuple(module_spec.widths())
        if len(suffixes) != len(parts) or len(module_spec.spatial) != 2:
            raise _foreign(spec)
        for mine, theirs in zip(suffixes, parts, strict=True):
            units[f"{module_spec.name}_{mine}"] = module(module_spec.name) + theirs
    return units


def _foreign(spec: NetworkSpec) -> ValueError:
    return ValueError(
        "Expected a network of GoogLeNet's stem and modules for the weights of another library. "
        f"Received: spec={spec.name!r}"
    )


def with_classes(spec: NetworkSpec, arrays: Arrays, logits: str, axis: int) -> NetworkSpec:
    """Return the spec with as many classes as the array `logits` has on `axis`."""
    return replace(spec, classes=arrays[logits].shape[axis]) if logits in arrays else spec


def with_heads_of(arrays: Arrays, names: dict[str, str], spec: NetworkSpec) -> dict[str, str]:
    """Return the name map without auxiliary classifiers that are absent from the file."""
    for aux in spec.aux:
        own = {name for name in names if name.startswith(f"{aux.name}_")}
        if not any(names[name] in arrays for name in own):
            names = {name: theirs for name, theirs in names.items() if name not in own}
    return names


def check_lrn(path: Path, spec: NetworkSpec, found: list[LRNSpec]) -> None:
    """Refuse a file whose LRN constants differ from the spec's.

    Raises:
        ValueError: naming both.
    """
    expected = [layer for layer in spec.stem if isinstance(layer, LRNSpec)]
    if [_constants(layer) for layer in found] == [_constants(layer) for layer in expected]:
        return
    near = len(found) == len(expected) and all(
        np.allclose(_constants(a), _constants(b), rtol=_FLOAT32, atol=0)
        for a, b in zip(found, expected, strict=True)
    )
    if not near:
        raise ValueError(
            f"Expected the LRN constants of {spec.name!r}, (window, alpha per window, beta, bias) "
            f"= {[_constants(layer) for layer in expected]}. Received: "
            f"{[_constants(layer) for layer in found]} in {str(path)!r}. Give `spec` with "
            "`LRNSpec`s of these constants."
        )


def _constants(layer: LRNSpec) -> tuple[float, ...]:
    return (layer.window_size, layer.alpha_per_window, layer.beta, layer.bias)
