"""What a design was measured from, in pictures and numbers: a page, three PNGs, two JSONs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_inception.cost.budget import module_widths
from keras_inception.cost.layers import network_cost
from keras_inception.design.measurement import ModuleMeasurement
from keras_inception.design.procedure import Design
from keras_inception.files import REPORT_FILE, SPEC_FILE, aside, write_text
from keras_inception.reports.page import embedded, write_page
from keras_inception.spec.network import ModuleSpec, NetworkSpec

_KERNEL_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756")


def write_design_report(found: Design, folder: str | os.PathLike[str]) -> None:
    """Write spec.json, measurements.json, report.html and its pictures into a folder.

    Args:
        found: what `design_network` or `grow_network` returned.
        folder: created if it does not exist.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SPEC_FILE, found.spec.to_json())
    numbers = {item.module: _numbers(item) for item in found.measurements}
    text = json.dumps(numbers, indent=2) + "\n"
    write_text(folder / "measurements.json", text)
    with aside(folder / "correlation.png") as path:
        _decay_picture(found.measurements, path)
    with aside(folder / "clusters.png") as path:
        _cluster_picture(found.measurements, found.threshold, path)
    with aside(folder / "widths.png") as path:
        _width_picture(found, path)
    pictures = {
        name: embedded((folder / f"{name}.png").read_bytes())
        for name in ("widths", "correlation", "clusters")
    }
    write_page(
        folder / REPORT_FILE,
        "design.html",
        title=f"Design of {found.spec.name}",
        threshold=f"{found.threshold:.3g}",
        costs=_cost_rows(found),
        widths=width_rows(found),
        kernels=[f"{size}x{size}" for size in sorted(found.measurements[0].counts)],
        measurements=_measurement_rows(found.measurements),
        pictures=pictures,
    )


def width_rows(found: Design) -> list[tuple[str, str, str]]:
    """(module, widths at the start, widths proposed), for a table.

    Widths are written as in Table 1, "1x1 64, 3x3 96-128, 5x5 16-32, pool 32".
    """
    pairs = zip(found.start.modules, found.spec.modules, strict=True)
    return [(start.name, _widths(start), _widths(proposed)) for start, proposed in pairs]


def _widths(module: ModuleSpec) -> str:
    texts = []
    for branch in module.branches(1):
        widths = "-".join(str(conv.filters) for conv in branch.convolutions)
        texts.append(f"{branch.name} {widths or 'unprojected'}")
    return ", ".join(texts)


def _numbers(item: ModuleMeasurement) -> dict[str, Any]:
    return {
        "endpoint": item.endpoint,
        "grid": list(item.grid),
        "channels": item.channels,
        "correlation_by_distance": {
            "itself": item.decay.itself.tolist(),
            "strongest_other": item.decay.strongest.tolist(),
            "shuffled_strongest_other": item.null.strongest.tolist(),
        },
        "clusters_by_kernel": item.counts,
        "shares_by_threshold": item.sweep,
        "share_by_extent": item.extents.tolist(),
        "patch_dimension_by_kernel": item.dimensions,
        "pooled_dimension": item.pooled_dimension,
    }


def _decay_picture(items: Iterable[ModuleMeasurement], path: Path) -> None:
    """Correlation against distance, one line a module, dashed for shuffled positions."""
    items = tuple(items)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for number, item in enumerate(items):
        colour = f"C{number % 10}"
        label = f"{item.module} (sees {item.endpoint}, {item.grid[0]} x {item.grid[1]})"
        for axes, own, null in (
            (left, item.decay.itself, item.null.itself),
            (right, item.decay.strongest, item.null.strongest),
        ):
            axes.plot(own, marker="o", color=colour, label=label)
            axes.plot(null, linestyle="--", color=colour, alpha=0.6)
    left.set(title="of a channel with itself", ylabel="|correlation|, mean over channels")
    right.set(title="with the channel it is most like")
    for axes in (left, right):
        axes.set(xlabel="distance in positions (larger of rows and columns)", ylim=(0, 1.03))
        axes.set_xticks(range(len(items[0].decay.itself)))
        axes.grid(alpha=0.3)
    left.plot([], [], linestyle="--", color="grey", label="positions shuffled")
    left.legend()
    figure.savefig(path, dpi=120, format="png")


def _cluster_picture(items: Iterable[ModuleMeasurement], threshold: float, path: Path) -> None:
    """Sides of the clusters, and the shares of the kernels against the threshold."""
    items = tuple(items)
    figure = Figure(figsize=(3 + 2.6 * len(items), 6), layout="constrained")
    axes_rows = figure.subplots(2, len(items), squeeze=False, sharey="row")
    for item, upper, lower in zip(items, *axes_rows, strict=True):
        sides = range(1, len(item.extents) + 1)
        upper.bar(sides, item.extents, color="#4c78a8")
        upper.set(title=f"{item.module} (sees {item.endpoint})", xlabel="side of a cluster")
        upper.set_xticks(sides)
        thresholds = sorted(item.sweep)
        kernels = sorted(item.counts)
        shares = [[item.sweep[at][size] for at in thresholds] for size in kernels]
        labels = [f"{size}x{size}" for size in kernels]
        lower.stackplot(thresholds, shares, labels=labels, colors=_KERNEL_COLOURS, alpha=0.85)
        lower.axvline(threshold, color="black", linestyle=":")
        lower.set(xlabel="threshold on |correlation|", xlim=(thresholds[0], thresholds[-1]))
        lower.set(ylim=(0, 1))
    axes_rows[0, 0].set(ylabel="share of the clusters")
    axes_rows[1, 0].set(ylabel="share of the kernels")
    axes_rows[1, 0].legend(loc="upper left", framealpha=0.9)
    figure.savefig(path, dpi=120, format="png")


def _width_picture(found: Design, path: Path) -> None:
    """Filters of each branch, stacked: the start beside the proposal."""
    modules = [module.name for module in found.spec.modules]
    figure = Figure(figsize=(3 + 1.5 * len(modules), 4.2), layout="constrained")
    axes = figure.subplots()
    branches = _branches(found.start) | _branches(found.spec)
    places = np.arange(len(modules))
    for spec, shift, edge in ((found.start, -0.21, "none"), (found.spec, 0.21, "black")):
        widths = module_widths(spec)
        bottom = np.zeros(len(modules))
        for number, branch in enumerate(branches):
            heights = np.array([widths.get(f"{name}_{branch}", 0) for name in modules])
            axes.bar(
                places + shift,
                heights,
                0.38,
                bottom=bottom,
                color=_KERNEL_COLOURS[number % len(_KERNEL_COLOURS)],
                edgecolor=edge,
                label=branch.replace("pool_proj", "projection") if edge == "black" else None,
            )
            bottom += heights
    axes.set_xticks(places, modules)
    axes.set(ylabel="filters", xlabel="left bar: the start; right bar, outlined: the proposal")
    axes.legend()
    figure.savefig(path, dpi=120, format="png")


def _branches(spec: NetworkSpec) -> dict[str, None]:
    """Suffixes of the last convolutions of the branches, in order: "1x1", "3x3", "pool_proj"."""
    last = [b.convolutions[-1:] for module in spec.modules for b in module.branches(1)]
    return dict.fromkeys(conv.suffix for convolutions in last for conv in convolutions)


def _cost_rows(found: Design) -> list[list[str]]:
    costs = [(spec.name, network_cost(spec).total) for spec in (found.start, found.spec)]
    return [[name, f"{cost.macs:,}", f"{cost.params:,}"] for name, cost in costs]


def _measurement_rows(items: Sequence[ModuleMeasurement]) -> list[list[str]]:
    kernels = sorted(items[0].counts)
    return [
        [
            item.module,
            f"{item.endpoint}, {item.grid[0]} x {item.grid[1]} x {item.channels}",
            *(f"{count:.1f}" for count in item.counts.values()),
            *(f"{item.dimensions[size]:.1f}" for size in kernels),
            f"{item.pooled_dimension:.1f}",
        ]
        for item in items
    ]
