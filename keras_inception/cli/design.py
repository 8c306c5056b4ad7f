"""`keras-inception design`: a network from the correlation statistics of activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from keras_inception.cli.choices import chosen_budget, chosen_recipe, chosen_spec, cost_line
from keras_inception.cli.common import RUNS, console, ended_by_signals, print_error, usage_errors
from keras_inception.cli.data import chosen_data, next_data, print_data, quoted
from keras_inception.cli.display import TrainingDisplay
from keras_inception.cli.options import (
    BatchSize,
    BudgetMacs,
    BudgetParams,
    DataName,
    Epochs,
    NewFolder,
    RecipeChanges,
    RecipeName,
    Seed,
    SpecFile,
    Variant,
)
from keras_inception.cost.budget import Budget, fit_to_budget
from keras_inception.files import REPORT_FILE, SPEC_FILE, keras_file, require_empty
from keras_inception.spec.kernels import kernel_sizes
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData
    from keras_inception.design.measurement import DesignOptions
    from keras_inception.design.procedure import Design


MeasuredRun = Annotated[
    Path | None,
    typer.Option("--model", help="Folder of a finished run to measure instead of training one."),
]
LayerByLayer = Annotated[
    bool, typer.Option("--layer-by-layer", help="Train and measure once for each module.")
]
Kernels = Annotated[str, typer.Option(help="The set of kernel sizes that clusters may choose.")]
Threshold = Annotated[
    float | None,
    typer.Option(help="Least |correlation| of the units of a cluster; default .6."),
]


@ended_by_signals()
def design(
    variant: Variant = "small",
    spec_file: SpecFile = None,
    data_name: DataName = None,
    recipe_name: RecipeName = "quick",
    changes: RecipeChanges = None,
    model_folder: MeasuredRun = None,
    budget_macs: BudgetMacs = None,
    budget_params: BudgetParams = None,
    layer_by_layer: LayerByLayer = False,
    kernels: Kernels = "1,3,5",
    threshold: Threshold = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    out: NewFolder = None,
) -> None:
    """Measure what a trained network's modules see, and propose their widths within a budget.

    Trains the variant first, or takes a finished run. Writes spec.json for
    `train --spec`, and report.html with its pictures.
    """
    with usage_errors():
        if model_folder:
            keras_file(model_folder)
        spec = chosen_spec(variant, spec_file or (model_folder and model_folder / SPEC_FILE))
        folder = out or RUNS / f"design-{datetime.now():%Y%m%d-%H%M%S}"
        _check(folder, model_folder, layer_by_layer)
        sizes = kernel_sizes(kernels)
        recipe = chosen_recipe(
            recipe_name, changes, epochs=epochs, batch_size=batch_size, seed=seed
        )
    console.print("Loading TensorFlow ...")
    from keras_inception.training.run import fitted_to_data

    with usage_errors():
        options = _options(sizes, threshold)
        data = chosen_data(data_name, beside=model_folder or (spec_file and spec_file.parent))
        spec = fitted_to_data(spec, data)
        budget = chosen_budget(spec, budget_macs, budget_params)
        fit_to_budget(spec, budget)  # refuses a budget that is too small, before the training
        console.print(cost_line(spec))
        print_data(data)
    job = _Job(spec, data, recipe, budget, options, folder)
    with _ends(), TrainingDisplay() as display:
        found = _designed(job, model_folder, layer_by_layer, display)
    _print_result(job, found)


@dataclass(frozen=True)
class _Job:
    """What is designed, from what, and where to."""

    spec: NetworkSpec
    data: ImageData
    recipe: Recipe
    budget: Budget
    options: DesignOptions
    folder: Path


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
            spec, data, recipe, job.budget, grown, job.options, callbacks=callbacks
        )
    else:
        if model_folder:
            model = load_keras(model_folder)
        else:
            run = train(spec, data, recipe, folder / "measured", callbacks=callbacks, verbose=0)
            model = run.model
        found = design_network(spec, model, data.test, job.budget, job.options)
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


def _check(folder: Path, model_folder: Path | None, layer_by_layer: bool) -> None:
    require_empty(folder)
    if model_folder and layer_by_layer:
        raise ValueError(
            "Expected --model or --layer-by-layer, which trains networks of its own. Received: both"
        )
