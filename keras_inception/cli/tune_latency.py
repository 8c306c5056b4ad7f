"""The bound of a search's networks: costs, or a time by a model that is fitted first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from keras_inception.cli.choices import chosen_budget
from keras_inception.cli.common import console
from keras_inception.cli.tune_options import BudgetOptions
from keras_inception.cli.waits import waiting
from keras_inception.cost.budget import Budget, NetworkBound
from keras_inception.cost.layers import network_cost
from keras_inception.spec.network import NetworkSpec

if TYPE_CHECKING:
    from tuning.latency import LatencyModel
    from tuning.latency_fit import Wanted
    from tuning.space import Space

# The space that is timed has networks up to so many times the cost of its base.
_MOST_COST = 16


def chosen_bound(
    base: NetworkSpec,
    folder: Path,
    options: BudgetOptions,
    space_within: Callable[[Budget], Space],
) -> NetworkBound:
    """The bounds that were asked for; none: the network's own multiply-adds.

    Args:
        base: the network to search around.
        folder: of the search, for the latency model.
        options: of the budget.
        space_within: the search's space within a budget, whose networks are timed.

    Raises:
        ValueError: timings that do not fit, or networks that cannot be timed.
        typer.Exit: the networks to time elsewhere are written.
    """
    macs, params = options.budget_macs, options.budget_params
    if options.timing_networks is None and options.budget_ms is None:
        return chosen_budget(base, macs, params)
    from tuning.latency import LatencyBudget
    from tuning.latency_timing import load_or_fit
    from tuning.plan import LATENCY_FILE

    space = space_within(Budget(macs=_MOST_COST * network_cost(base).total.macs))
    if options.timing_networks is not None:
        _write_networks(space, options)
        raise typer.Exit
    file, wanted = folder / LATENCY_FILE, _wanted(options)
    is_new = not file.exists()
    model = load_or_fit(file, wanted, lambda: _fitted(space, options, wanted))
    if is_new:
        console.print(
            f"Timed under: {escape(str(model.conditions))}. Mean error of the fitted model on "
            f"networks left out: {model.error:.1%}."
        )
    others = Budget(macs=macs, params=params) if macs or params else None
    return LatencyBudget(milliseconds=options.budget_ms or 0.0, model=model, budget=others)


def _wanted(options: BudgetOptions) -> Wanted:
    """The conditions of the timings; of a table the ones that it has, of this machine defaults."""
    from tuning.latency_fit import Wanted

    here = options.budget_timings is None
    return Wanted(
        runtime=options.budget_runtime or ("saved_model" if here else None),
        precision=options.budget_precision or ("float32" if here else None),
        batch_size=options.budget_batch_size or (1 if here else None),
        threads=options.budget_threads,
    )


def _fitted(space: Space, options: BudgetOptions, wanted: Wanted) -> LatencyModel:
    from tuning.latency_fit import fit_table
    from tuning.latency_timing import measure_latency_model

    if options.budget_timings is not None:
        return fit_table(options.budget_timings, space.base, wanted)
    with waiting("Writing and timing networks of this form"):
        return measure_latency_model(space, wanted)


def _write_networks(space: Space, options: BudgetOptions) -> None:
    from keras_inception.files import require_empty
    from tuning.latency_timing import write_networks

    folder = options.timing_networks or Path()
    require_empty(folder)
    with waiting("Writing networks of this form"):
        paths = write_networks(space, folder, _wanted(options))
    where = escape(str(folder))
    names = paths[0].name.replace("00", "??")
    console.print(
        f"[bold]{where}[/] holds {len(paths)} networks and their specs. On the device, run [bold]"
        f"keras-inception time {where}/{names}[/]; put its timings.csv into the folder, "
        f"and give [bold]--budget-timings {where}/timings.csv[/] with --budget-ms."
    )
