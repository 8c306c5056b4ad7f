"""`keras-inception design`: a network from the correlation statistics of activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from keras_inception.cli.choices import chosen_budget, cost_line
from keras_inception.cli.common import (
    RUNS,
    console,
    print_error,
    usage_errors,
)
from keras_inception.cli.data import fitted_spec, lowered_batch_size, next_data, print_data, quoted
from keras_inception.cli.design_options import (
    NetworkOptions,
    ProposalOptions,
    TrainingOptions,
    check_options,
)
from keras_inception.cli.display import TrainingDisplay
from keras_inception.cli.endings import ended_by_signals
from keras_inception.cli.option_groups import option_groups
from keras_inception.cli.waits import LOADING, waiting
from keras_inception.cost.budget import Budget, fit_to_budget
from keras_inception.files import REPORT_FILE, SPEC_FILE, require_empty
from keras_inception.spec.kernels import kernel_sizes
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData
    from keras_inception.design.measurement import DesignOptions
    from keras_inception.design.procedure import Design


@ended_by_signals()
@option_groups
def design(network: NetworkOptions, training: TrainingOptions, proposal: ProposalOptions) -> None:
    """Measure what a trained network's modules see, and propose their widths within a budget.

    Trains the variant first, or takes a finished run. Writes spec.json for
    `train --spec`, and report.html with its pictures.
    """
    with usage_errors():
        spec, recipe = network.spec(), training.recipe(seed=training.seed)
        folder = proposal.out or RUNS / f"design-{datetime.now():%Y%m%d-%H%M%S}"
        require_empty(folder)
        check_options(network, training, proposal)
        sizes = kernel_sizes(proposal.kernels)
    with usage_errors(), waiting(LOADING):
        options = _options(sizes, proposal.threshold)
        strategy = _strategy(training.strategy)
    with usage_errors():
        data = network.data(spec)
        if network.model_folder:
            spec = replace(spec, classes=len(data.class_names))
        else:
            spec = fitted_spec(spec, data, network.input_size)
            recipe = _lowered(recipe, len(data.train), training, strategy)
        budget = chosen_budget(spec, proposal.budget_macs, proposal.budget_params)
        fit_to_budget(spec, budget)  # refuses a budget that is too small, before the training
        console.print(cost_line(spec))
        print_data(data)
    job = _Job(spec, data, recipe, budget, options, folder, strategy)
    with _ends(), TrainingDisplay() as display:
        found = _designed(job, network.model_folder, proposal.layer_by_layer, display)
    _print_result(job, found)


def _strategy(name: str) -> Any:
    from keras_inception.training.strategy import make_strategy

    return make_strategy(name)


def _lowered(recipe: Recipe, images: int, training: TrainingOptions, strategy: Any) -> Recipe:
    from keras_inception.training.strategy import device_count

    return lowered_batch_size(
        recipe, images, training.batch_size, training.changes, device_count(strategy)
    )


@dataclass(frozen=True)
class _Job:
    """What is designed, from what, and where to."""

    spec: NetworkSpec
    data: ImageData
    recipe: Recipe
    budget: Budget
    options: DesignOptions
    folder: Path
    strategy: Any


def _options(sizes: tuple[int, ...], threshold: float | None) -> DesignOptions:
    from keras_inception.design.measurement import DesignOptions

    options = DesignOptions(kernel_sizes=sizes)
    return options if threshold is None else replace(options, threshold=threshold)


def _designed(
    job: _Job, model_folder: Path | None, layer_by_layer: bool, display: TrainingDisplay
) -> Design:
    """Train or load, measure, propose, and write the folder."""
    from keras_inception.data.record import write_record
    from keras_inception.design.procedure import design_network, grow_network
    from keras_inception.design.report import write_design_report
    from keras_inception.runtimes.keras_model import load_keras
    from keras_inception.training.run import train

    spec, data, recipe, folder = job.spec, job.data, job.recipe, job.folder
    callbacks = [display.callback]
    if layer_by_layer:
        grown = folder / "grown"
        found = grow_network(
            spec,
            data,
            recipe,
            job.budget,
            grown,
            job.options,
            strategy=job.strategy,
            callbacks=callbacks,
            report=display.report,
        )
    else:
        if model_folder:
            model = load_keras(model_folder)
        else:
            measured = folder / "measured"
            run = train(
                spec,
                data,
                recipe,
                measured,
                strategy=job.strategy,
                callbacks=callbacks,
                verbose=0,
                report=display.report,
            )
            model = run.model
        found = design_network(spec, model, data.test, job.budget, job.options, display.report)
    display.report("drawing the pictures and the report")
    write_design_report(found, folder)
    write_record(folder, data)
    return found


def _print_result(job: _Job, found: Design) -> None:
    from keras_inception.design.report import width_rows

    console.print(cost_line(found.spec))
    table = Table("module", "start", "proposal")
    for row in width_rows(found):
        table.add_row(*row)
    console.print(table)
    console.print(
        f"The pictures are in [bold]{escape(str(job.folder / REPORT_FILE))}[/]. Train it with "
        f"[bold]keras-inception train --spec {escape(quoted(job.folder / SPEC_FILE))}"
        f"{next_data(job.data.source)}[/]"
    )


@contextmanager
def _ends() -> Iterator[None]:
    """Print why a training stopped early, and exit with the code for it."""
    from keras_inception.training.progress import TrainingInterruptedError

    try:
        with usage_errors():
            yield
    except (TrainingInterruptedError, FloatingPointError) as error:
        print_error(f"{error} Start again in another folder.")
        raise typer.Exit(2 if isinstance(error, FloatingPointError) else 1) from None
