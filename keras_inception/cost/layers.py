"""Costs counted from a spec: parameters, multiply-adds, activations.

Counting convention, the same everywhere in this package:

- MACs are multiply-adds of convolutions and dense layers, integers, for one image. Biases,
  batch normalization (folded at inference), LRN, pooling and softmax count none.
- Parameters are the trainable ones; the moving statistics of batch normalization are
  `non_trainable`. `weights` are the kernels alone, which is what Table 1 prints.
- Activations are the tensors a forward pass writes: one for each convolution unit (after its
  ReLU), LRN, pool, concatenation and dense layer, for one image.

Source: arXiv 1409.4842, Table 1 and section 4. Standard library only; `model_cost` counts the
multiply-adds of any functional Keras model with the same convention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keras_inception.spec.network import (
    AuxSpec,
    BatchNormSpec,
    ConvSpec,
    LRNSpec,
    ModuleSpec,
    NetworkSpec,
    PoolSpec,
)


class LayerCost(NamedTuple):
    """Cost of one layer (a convolution with its normalization and ReLU is one layer)."""

    name: str
    group: str  # the module, "stem", "head", the downsample or the auxiliary classifier
    stage: str  # "stem", "3", "4", ..., "head", "aux"
    kind: str
    output_shape: tuple[int, ...]  # one image, channels last
    weights: int = 0
    params: int = 0
    non_trainable: int = 0
    macs: int = 0

    @property
    def activations(self) -> int:
        """Return the elements of the output for one image."""
        elements = 1
        for size in self.output_shape:
            elements *= size
        return elements


@dataclass(frozen=True)
class Cost:
    """A sum over layers."""

    weights: int
    params: int
    non_trainable: int
    macs: int
    activations: int

    @classmethod
    def of(cls, layers: Iterable[LayerCost]) -> Cost:
        """Return the sum of the costs of layers."""
        layers = tuple(layers)
        return cls(
            weights=sum(layer.weights for layer in layers),
            params=sum(layer.params for layer in layers),
            non_trainable=sum(layer.non_trainable for layer in layers),
            macs=sum(layer.macs for layer in layers),
            activations=sum(layer.activations for layer in layers),
        )

    def activation_bytes(self, bytes_per_element: int = 4) -> int:
        """Return the bytes that training stores per image; float32 has 4 bytes per element."""
        return self.activations * bytes_per_element


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network by layer, with sums."""

    layers: tuple[LayerCost, ...]

    @property
    def total(self) -> Cost:
        """Return the sum over all layers."""
        return Cost.of(self.layers)

    def by_module(self) -> dict[str, Cost]:
        """Return the cost by module, stem, downsample, auxiliary classifier and head."""
        return self._by([layer.group for layer in self.layers])

    def by_stage(self) -> dict[str, Cost]:
        """Return the cost by stage: "stem", "3", "4", "5", "aux", "head"."""
        return self._by([layer.stage for layer in self.layers])

    def _by(self, keys: Sequence[str]) -> dict[str, Cost]:
        layers: dict[str, list[LayerCost]] = {}
        for layer, key in zip(self.layers, keys, strict=True):
            layers.setdefault(key, []).append(layer)
        return {key: Cost.of(own) for key, own in layers.items()}


def network_cost(
    spec: NetworkSpec, *, auxiliary: bool = False, include_top: bool = True
) -> NetworkCost:
    """Count every layer of the network that `build_network` builds from the same arguments.

    Args:
        spec: a network with a fixed input height and width.
        auxiliary: count the auxiliary classifiers too.
        include_top: count the head (global pool and classifier).

    Raises:
        ValueError: the input height or width is None or smaller than `spec.min_size`.
    """
    height, width, _ = spec.input_shape
    if height is None or width is None:
        raise ValueError(
            "Expected a fixed input size to count multiply-adds. Received: "
            f"input_shape={spec.input_shape}. Use dataclasses.replace(spec, input_shape=...)."
        )
    spec.require_min_size()
    return NetworkCost(tuple(_walk(spec, auxiliary, include_top)))


def _walk(spec: NetworkSpec, auxiliary: bool, include_top: bool) -> Iterator[LayerCost]:
    norm = spec.batch_norm
    shape: tuple[int, ...] = spec.input_shape  # type: ignore[assignment]
    for layer in spec.stem:
        if isinstance(layer, ConvSpec):
            grid = (layer.output_size(shape[0]), layer.output_size(shape[1]))
            yield _conv(
                layer.name, "stem", "stem", layer.kernel_size, shape[2], layer.filters, grid, norm
            )
            shape = (*grid, layer.filters)
        elif isinstance(layer, PoolSpec):
            shape = _pooled(layer, shape)
            yield LayerCost(layer.name, "stem", "stem", "pool", shape)
        elif isinstance(layer, LRNSpec):
            yield LayerCost(layer.name, "stem", "stem", "lrn", shape)
    heads = {aux.after: aux for aux in spec.aux} if auxiliary else {}
    for stage in spec.stages:
        if stage.downsample:
            shape = _pooled(stage.downsample, shape)
            name = stage.downsample.name
            yield LayerCost(name, name, stage.name, "pool", shape)
        for module in stage.modules:
            yield from module_layers(module, shape, stage.name, norm)
            shape = (*shape[:2], module.output_filters(shape[2]))
            if module.name in heads:
                yield from _aux_layers(heads[module.name], shape, spec)
    if include_top:
        yield LayerCost("avg_pool", "head", "head", "pool", (shape[2],))
        yield _dense("predictions", "head", "head", shape[2], spec.classes)


def module_layers(
    module: ModuleSpec, shape: tuple[int, ...], stage: str, batch_norm: BatchNormSpec | None
) -> Iterator[LayerCost]:
    """The layers of one module on an input of `shape` (height, width, channels)."""
    name, grid, channels = module.name, shape[:2], shape[2]
    for branch in module.branches(channels):
        if branch.pooled:
            yield LayerCost(f"{name}_pool", name, stage, "pool", shape)
        for conv in branch.convolutions:
            yield _conv(
                conv.name,
                name,
                stage,
                conv.kernel_size,
                conv.input_filters,
                conv.filters,
                grid,
                batch_norm,
            )
    output_shape = (*grid, module.output_filters(channels))
    yield LayerCost(name, name, stage, "concatenate", output_shape)


def _aux_layers(aux: AuxSpec, shape: tuple[int, ...], spec: NetworkSpec) -> Iterator[LayerCost]:
    aux.require_grid(*shape[:2])
    grid = tuple(aux.output_size(size) for size in shape[:2])
    yield LayerCost(f"{aux.name}_pool", aux.name, "aux", "pool", (*grid, shape[2]))
    yield _conv(
        f"{aux.name}_proj", aux.name, "aux", 1, shape[2], aux.filters, grid, spec.batch_norm
    )
    flat = grid[0] * grid[1] * aux.filters
    yield _dense(f"{aux.name}_dense", aux.name, "aux", flat, aux.units)
    yield _dense(aux.name, aux.name, "aux", aux.units, spec.classes)


def _conv(
    name: str,
    group: str,
    stage: str,
    kernel_size: int,
    inputs: int,
    filters: int,
    grid: tuple[int, ...],
    batch_norm: BatchNormSpec | None,
) -> LayerCost:
    weights = kernel_size * kernel_size * inputs * filters
    per_filter = 1 if batch_norm is None else 1 + batch_norm.scale  # bias, or beta and gamma
    return LayerCost(
        name,
        group,
        stage,
        "convolution",
        (*grid, filters),
        weights=weights,
        params=weights + per_filter * filters,
        non_trainable=0 if batch_norm is None else 2 * filters,  # moving mean and variance
        macs=weights * grid[0] * grid[1],
    )


def _dense(name: str, group: str, stage: str, inputs: int, units: int) -> LayerCost:
    weights = inputs * units
    return LayerCost(
        name, group, stage, "dense", (units,), weights=weights, params=weights + units, macs=weights
    )


def _pooled(pool: PoolSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (pool.output_size(shape[0]), pool.output_size(shape[1]), shape[2])
