"""The cost of a network as a function of its widths: scaling asks for it hundreds of times.

A convolution has kernel area x inputs x filters weights, and as many multiply-adds at each position
of its grid. The factors are those of `network_cost`, taken once. Standard library only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from keras_inception.cost.layers import network_cost
from keras_inception.spec.network import ConvSpec, NetworkSpec


class Amount(NamedTuple):
    """What a budget bounds: multiply-adds of one image, and trainable parameters."""

    macs: int
    params: int


class _Channels(NamedTuple):
    """A number of channels: a sum of widths, and a constant."""

    widths: tuple[str, ...]
    constant: int = 0


class _Unit(NamedTuple):
    """A convolution or dense layer."""

    inputs: int  # index of its input channels
    filters: int  # index of its output channels
    area: int  # weights for an input and a filter
    grid: int  # positions at which it is computed
    per_filter: int  # parameters beside the weights


class CostOfWidths:
    """Counts a network whose widths are others than its spec's.

    Args:
        spec: gives everything else.
        names: of the convolutions whose widths change.
    """

    def __init__(self, spec: NetworkSpec, names: Collection[str]) -> None:
        layers = {layer.name: layer for layer in network_cost(spec).layers}
        own = {name: layer.output_shape[-1] for name, layer in layers.items()}
        indices: dict[_Channels, int] = {}

        def index_of(channels: _Channels) -> int:
            fixed = [own[name] for name in channels.widths if name not in names]
            changing = tuple(name for name in channels.widths if name in names)
            key = _Channels(changing, channels.constant + sum(fixed))
            return indices.setdefault(key, len(indices))

        self._units = []
        for name, inputs in _inputs(spec):
            layer = layers[name]
            area = layer.weights // (_value(inputs, own) * own[name])
            self._units.append(
                _Unit(
                    index_of(inputs),
                    index_of(_Channels((name,))),
                    area,
                    layer.macs // layer.weights,
                    (layer.params - layer.weights) // own[name],
                )
            )
        self._channels = tuple(indices)

    def __call__(self, widths: Mapping[str, int]) -> Amount:
        """The cost with these widths, by the names given before."""
        width = widths.__getitem__
        values = [sum(map(width, names), constant) for names, constant in self._channels]
        macs = params = 0
        for inputs, filters, area, grid, per_filter in self._units:
            weights = area * values[inputs] * values[filters]
            macs += grid * weights
            params += weights + per_filter * values[filters]
        return Amount(macs, params)


def _value(channels: _Channels, widths: Mapping[str, int]) -> int:
    return sum(map(widths.__getitem__, channels.widths), channels.constant)


def _inputs(spec: NetworkSpec) -> Iterator[tuple[str, _Channels]]:
    """Every convolution and the classifier, with the channels that it reads."""
    channels = _Channels((), spec.input_shape[2])
    for layer in spec.stem:
        if isinstance(layer, ConvSpec):
            yield layer.name, channels
            channels = _Channels((layer.name,))
    for module in spec.modules:
        outputs = []
        for branch in module.branches(1):
            last = channels
            for conv in branch.convolutions:
                yield conv.name, last
                last = _Channels((conv.name,))
            outputs.append(last)
        names = tuple(name for output in outputs for name in output.widths)
        channels = _Channels(names, sum(output.constant for output in outputs))
    yield "predictions", channels
