"""`keras-inception summary`: what a network costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from keras_inception.cli.choices import chosen_spec, cost_line
from keras_inception.cli.common import console, usage_errors
from keras_inception.cli.options import SpecFile, Variant
from keras_inception.cost.layers import network_cost
from keras_inception.cost.table_1 import PRINTED_SUM, table_1
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import VARIANTS


def summary(
    variant: Variant = "paper",
    spec_file: SpecFile = None,
    by_layer: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show the whole family.")] = False,
    input_size: Annotated[
        int | None, typer.Option(help="Height and width in pixels, instead of the variant's.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes, instead of the variant's.")
    ] = None,
) -> None:
    """Parameters and multiply-adds of a network, beside the paper's Table 1."""
    if list_all:
        console.print(_family_table())
        return
    with usage_errors():
        spec = chosen_spec(variant, spec_file)
        if input_size is not None:
            spec = spec.with_size(input_size)
        if classes is not None:
            spec = replace(spec, classes=classes)
        table = _layer_table(spec) if by_layer else _table_1(spec)
        line = cost_line(spec)
    console.print(table)
    console.print(line)


def _table_1(spec: NetworkSpec) -> Table:
    rows = table_1(spec)
    branches = list(dict.fromkeys(column for row in rows for column in row.filters))
    branches.sort(key="1x1".__ne__)  # conv2's row comes first, without a 1x1 branch
    if "pool proj" in branches:
        branches.append(branches.pop(branches.index("pool proj")))
    table = _narrow_table(f"{spec.name!r} in the columns of the paper's Table 1 (1K = 1024)")
    table.add_column("type")
    table.add_column("grid")
    for column in (*branches, "params", "MACs"):
        table.add_column(column.replace(" ", "\n"), justify="right")
    printed = any(row.printed_ops for row in rows)
    for column in ("paper params", "paper ops") if printed else ():
        table.add_column(column.replace(" ", "\n"), justify="right", style="dim")
    for row in rows:
        widths = [row.filters.get(column, "") for column in branches]
        table.add_row(
            row.type,
            "x".join(str(size) for size in row.output_shape[:2]),
            *("none" if width is None else str(width) for width in widths),
            f"{row.weights / 1024:.1f}K",
            f"{row.macs / 1e6:.1f}M",
            *((row.printed_params, row.printed_ops) if printed else ()),
        )
    weights, macs = sum(row.weights for row in rows), sum(row.macs for row in rows)
    table.add_section()
    sums = (f"{weights / 1024:.1f}K", f"{macs / 1e6:.1f}M", *(PRINTED_SUM if printed else ()))
    table.add_row("sum", "", *[""] * len(branches), *sums)
    return table


def _layer_table(spec: NetworkSpec) -> Table:
    table = _narrow_table(f"Every layer of {spec.name!r}")
    for column in ("layer", "kind", "output", "params", "multiply-adds", "activations"):
        table.add_column(column, justify="left" if column in ("layer", "kind") else "right")
    for layer in network_cost(spec, auxiliary=bool(spec.aux)).layers:
        output = "x".join(str(size) for size in layer.output_shape)
        counts = (f"{count:,}" for count in (layer.params, layer.macs, layer.activations))
        table.add_row(layer.name, layer.kind, output, *counts)
    return table


def _narrow_table(title: str) -> Table:
    """A table without frame and padding, so that many columns fit a terminal of 80."""
    return Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False)


def _family_table() -> Table:
    table = Table(title="The family")
    for column in ("variant", "input", "classes", "parameters", "multiply-adds"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, spec in VARIANTS.items():
        total = network_cost(spec).total
        size = "x".join(str(n) for n in spec.input_shape)
        table.add_row(name, size, str(spec.classes), f"{total.params:,}", f"{total.macs:,}")
    return table
