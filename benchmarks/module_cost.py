"""What the reductions save: multiply-adds of Table 1's modules, naive and reduced.

    python benchmarks/module_cost.py

Writes benchmarks/results/module_cost.csv, benchmarks/results/growth.csv and
docs/images/module_cost.png. The costs are counted from the specs, so they are the same on every
machine. Expected: 12.1 G multiply-adds in the nine naive modules, 1.1 G with reductions.
"""

import csv
from pathlib import Path

from matplotlib.figure import Figure

from keras_inception import (
    VARIANTS,
    growth_by_depth,
    growth_by_width,
    naive_module,
    network_cost,
)

ROOT = Path(__file__).resolve().parents[1]
DEPTHS, SCALES = 8, (0.25, 0.5, 1.0, 1.5, 2.0)
FORMS = ("paper", "naive")


def main() -> None:
    """Count the costs, write the tables, draw the plot."""
    modules = [module.name for module in VARIANTS["paper"].modules]
    costs = {form: network_cost(VARIANTS[form]).by_module() for form in FORMS}
    _write(
        "module_cost.csv",
        ("module", "reduced_macs", "naive_macs", "reduced_params", "naive_params"),
        [
            (
                name,
                *(costs[form][name].macs for form in FORMS),
                *(costs[form][name].params for form in FORMS),
            )
            for name in modules
        ],
    )
    # The depth curve stacks copies of 3a on its own input, 28 x 28 x 192.
    first = VARIANTS["paper"].modules[0]
    depth = {
        form: growth_by_depth(module, input_filters=192, grid=28, depth=DEPTHS)
        for form, module in zip(FORMS, (first, naive_module(first)), strict=True)
    }
    width = {form: growth_by_width(VARIANTS[form], SCALES) for form in FORMS}
    _write(
        "growth.csv",
        ("along", "scale", "reduced_macs", "naive_macs"),
        [
            (along, reduced.scale, reduced.macs, naive.macs)
            for along, curves in (("depth", depth), ("width", width))
            for reduced, naive in zip(curves["paper"], curves["naive"], strict=True)
        ],
    )
    _draw(modules, costs, depth, width)


def _write(name: str, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with (ROOT / "benchmarks" / "results" / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _draw(modules: list[str], costs: dict, depth: dict, width: dict) -> None:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    bars, stack, widths = figure.subplots(1, 3)
    labels = {"naive": "naive (figure 2a)", "paper": "with reductions (figure 2b)"}
    colours = {"naive": "tab:orange", "paper": "tab:blue"}
    for offset, form in ((0.2, "naive"), (-0.2, "paper")):
        macs = [costs[form][name].macs / 1e9 for name in modules]
        positions = [index + offset for index in range(len(modules))]
        bars.bar(
            positions, macs, 0.4, color=colours[form], label=f"{labels[form]}: {sum(macs):.1f} G"
        )
        stack.plot(
            [point.scale for point in depth[form]],
            [point.macs / 1e9 for point in depth[form]],
            marker=".",
            color=colours[form],
        )
        widths.plot(
            [point.scale for point in width[form]],
            [point.macs / 1e9 for point in width[form]],
            marker=".",
            color=colours[form],
        )
    bars.set_xticks(range(len(modules)), modules)
    bars.set(title="Table 1's nine modules", ylabel="G multiply-adds", yscale="log")
    bars.legend(fontsize=8, loc="upper left")
    bars.set_ylim(top=30)
    stack.set(title="3a stacked", xlabel="modules", ylabel="G multiply-adds", yscale="log")
    widths.set(
        title="Table 1, all widths scaled", xlabel="width", ylabel="G multiply-adds", yscale="log"
    )
    for axes in (stack, widths):
        axes.grid(alpha=0.3)
    figure.savefig(ROOT / "docs" / "images" / "module_cost.png", dpi=110)


if __name__ == "__main__":
    main()
