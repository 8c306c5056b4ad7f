"""Table 1 of the paper: the printed costs and the exact costs of the printed widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keras_inception.cost.layers import Cost, LayerCost, network_cost
from keras_inception.spec.network import (
    ConvSpec,
    ModuleSpec,
    NetworkSpec,
)
from keras_inception.spec.variants import PAPER


@dataclass(frozen=True)
class Table1Row:
    """A row of Table 1: the printed costs and the exact costs of the printed widths."""

    type: str
    output_shape: tuple[int, ...]
    filters: dict[str, int | None]  # by the paper's columns: "1x1", "3x3 reduce", "3x3", ...
    weights: int
    macs: int
    printed_params: str
    printed_ops: str


# Table 1 as printed: parameters (1K = 1024) and operations (multiply-adds).
_PRINTED = {
    "conv1": ("2.7K", "34M"),
    "conv2": ("112K", "360M"),
    "3a": ("159K", "128M"),
    "3b": ("380K", "304M"),
    "4a": ("364K", "73M"),
    "4b": ("437K", "88M"),
    "4c": ("463K", "100M"),
    "4d": ("580K", "119M"),
    "4e": ("840K", "170M"),
    "5a": ("1072K", "54M"),
    "5b": ("1388K", "71M"),
    "linear": ("1000K", "1M"),
}


PRINTED_SUM = ("6798K", "1502M")  # sum of the rows above; the paper prints none


def table_1(spec: NetworkSpec = PAPER) -> list[Table1Row]:
    """Return the rows of Table 1 with weights for `spec`, and the costs that the paper prints.

    The printed costs are "" for a network other than Table 1's: one with other modules, or for
    images of another size.
    """
    cost = network_cost(spec)
    of_paper = spec.input_shape == PAPER.input_shape and [m.name for m in spec.modules] == [
        module.name for module in PAPER.modules
    ]
    printed = _PRINTED if of_paper else {}
    layers = {layer.name: layer for layer in cost.layers}
    rows = []
    convolutions = [layer.name for layer in spec.stem if isinstance(layer, ConvSpec)]
    for name in convolutions:
        if name.endswith("_reduce") and name.removesuffix("_reduce") in convolutions:
            continue  # Table 1 prints conv2 together with its 1x1 reduction
        reduce = [layers[f"{name}_reduce"]] if f"{name}_reduce" in convolutions else []
        columns = {"3x3 reduce": reduce[0].output_shape[-1]} if reduce else {}
        rows.append(_row(name, [*reduce, layers[name]], columns, printed))
    for module in spec.modules:
        own = [layer for layer in cost.layers if layer.group == module.name]
        rows.append(_row(module.name, own, _module_columns(module), printed))
    rows.append(_row("linear", [layers["predictions"]], {}, printed))
    return rows


def _module_columns(module: ModuleSpec) -> dict[str, int | None]:
    """Return widths by Table 1's columns; None where a branch has no reduction or projection."""
    columns: dict[str, int | None] = {}
    for branch in module.branches(1):
        parts = ["pool proj"] if branch.pooled else [f"{branch.name} reduce", branch.name]
        widths = [None, None, *(conv.filters for conv in branch.convolutions)]
        columns |= zip(parts, widths[-len(parts) :], strict=True)
    columns.pop("1x1 reduce", None)
    return columns


def _row(
    name: str,
    layers: list[LayerCost],
    filters: Mapping[str, int | None],
    printed: Mapping[str, tuple[str, str]],
) -> Table1Row:
    cost = Cost.of(layers)
    shape = layers[-1].output_shape
    texts = printed.get(name, ("", ""))
    return Table1Row(name, shape, dict(filters), cost.weights, cost.macs, *texts)
