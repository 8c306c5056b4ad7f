"""What a reader gives, and how it becomes arrays in Keras's names and layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_inception.spec.network import ConvSpec, LRNSpec, NetworkSpec

Arrays = dict[str, np.ndarray]
# Largest relative difference of an LRN constant that storing it as a float32 explains.
_FLOAT32 = 1e-6


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of weights, read.

    Attributes:
        path: of the file.
        spec: the network that the file holds; None where the file does not tell (our own).
        arrays: under the file's names, in the file's layout.
        names: this package's variable name -> the file's.
        channels_first: kernels are O x I x h x w and dense kernels O x I (Caffe, torch, ONNX);
            otherwise h x w x I x O and I x O.
    """

    path: Path
    spec: NetworkSpec | None
    arrays: Arrays
    names: Mapping[str, str]
    channels_first: bool


def converted(source: Source) -> Arrays:
    """All arrays of a source under this package's variable names, in Keras's layouts.

    Raises:
        ValueError: arrays that the network needs and the file lacks, or the other way round.
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
    return {
        own: _channels_last(own, source.arrays[theirs], source)
        for own, theirs in source.names.items()
    }


def mismatch(expected: str, missing: Iterable[str], unexpected: Iterable[str]) -> ValueError:
    """The error that lists what is missing ( - ) and what is unexpected ( + )."""
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
        # The auxiliary classifier flattens C x h x w there, h x w x C here.
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
    """This package's convolution units -> another library's names of them.

    Args:
        spec: a network of figure 2b's modules with two spatial branches.
        stem: names of the stem's convolutions.
        module: the name of a module ("3a") -> what a unit's name there begins with.
        parts: what it ends with: 1x1, the first spatial branch's reduce and convolution, the
            second's, the projection.

    Raises:
        ValueError: a spec of other modules or another stem.
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
    """The spec with as many classes as the array `logits` has on `axis`."""
    return replace(spec, classes=arrays[logits].shape[axis]) if logits in arrays else spec


def with_heads_of(arrays: Arrays, names: dict[str, str], spec: NetworkSpec) -> dict[str, str]:
    """The name map without the auxiliary classifiers of which a file holds nothing at all."""
    for aux in spec.aux:
        own = {name for name in names if name.startswith(f"{aux.name}_")}
        if not any(names[name] in arrays for name in own):
            names = {name: theirs for name, theirs in names.items() if name not in own}
    return names


def check_lrn(path: Path, spec: NetworkSpec, found: list[LRNSpec]) -> None:
    """Refuse a file whose LRN layers are not the spec's.

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
