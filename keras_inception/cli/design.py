"""`keras-inception design`: a network from the correlation statistics of activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from keras_inception.cli.common import (
    RUNS,
    chosen_budget,
    chosen_recipe,
    chosen_spec,
    console,
    cost_line,
    print_error,
    usage_errors,
)
from keras_inception.cli.data import chosen_data, next_data, print_data, quoted
from keras_inception.cli.display import TrainingDisplay
from keras_inception.cli.options import DataName, RecipeChanges, RecipeName, SpecFile, Variant
from keras_inception.cost.budget import fit_to_budget
from keras_inception.files import SPEC_FILE, keras_file, require_empty
from keras_inception.spec.kernels import kernel_sizes


def design(
    variant: Variant = "small",
    spec_file: SpecFile = None,
    data_name: DataName = None,
    recipe_name: RecipeName = "quick",
    changes: RecipeChanges = None,
    model_folder: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="Folder of a finished run to measure, in the place of a new training.",
        ),
    ] = None,
    budget_macs: Annotated[
        int | None, typer.Option(help="Multiply-adds at most; default those of the start.")
    ] = None,
    budget_params: Annotated[int | None, typer.Option(help="Parameters at most.")] = None,
    layer_by_layer: Annotated[
        bool, typer.Option("--layer-by-layer", help="Train and measure once for each module.")
    ] = False,
    kernels: Annotated[
        str, typer.Option(help="The set of kernel sizes that clusters may choose.")
    ] = "1,3,5",
    threshold: Annotated[
        float | None,
        typer.Option(help="|correlation| from which on units are one cluster; default .6."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each training.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder; default saved_models/ and a name of its own.")
    ] = None,
) -> None:
    """Measure what a trained network's modules see, and propose their widths within a budget.

    Trains the variant first, or takes a finished run. Writes spec.json for
    `train --spec`, and report.md with its pictures.
    """
    with usage_errors():
        if model_folder:
            keras_file(model_folder)
        spec = chosen_spec(variant, spec_file or (model_folder and model_folder / SPEC_FILE))
        folder = out or RUNS / f"design-{datetime.now():%Y%m%d-%H%M%S}"
        _check(folder, model_folder, layer_by_layer)
        sizes = kernel_sizes(kernels)
        recipe = chosen_recipe(recipe_name, changes, epochs=epochs)
    console.print("Loading TensorFlow ...")
    from keras_inception.data.record import write_record
    from keras_inception.design.measurement import DesignOptions
    from keras_inception.design.procedure import design_network, grow_network
    from keras_inception.design.report import REPORT_FILE, width_rows, write_design_report
    from keras_inception.runtimes.keras_model import load_keras
    from keras_inception.training.run import fitted_to_data, train

    with usage_errors():
        options = DesignOptions(kernel_sizes=sizes)
        if threshold is not None:
            options = replace(options, threshold=threshold)
        data = chosen_data(data_name, beside=model_folder or (spec_file and spec_file.parent))
        spec = fitted_to_data(spec, data)
        budget = chosen_budget(spec, budget_macs, budget_params)
        fit_to_budget(spec, budget)  # a budget that is too small is told before the training
        console.print(cost_line(spec))
        print_data(data)
    with _ends(), TrainingDisplay() as display:
        callbacks = [display.callback]
        if layer_by_layer:
            grown = folder / "grown"
            found = grow_network(spec, data, recipe, budget, grown, options, callbacks=callbacks)
        elif model_folder:
            model = load_keras(keras_file(model_folder))
            found = design_network(spec, model, data.test, budget, options)
        else:
            model = train(spec, data, recipe, folder / "measured", callbacks=callbacks).model
            found = design_network(spec, model, data.test, budget, options)
        write_design_report(found, folder)
        write_record(folder, data)
    console.print(cost_line(found.spec))
    table = Table("module", "start", "proposal")
    for row in width_rows(found):
        table.add_row(*row)
    console.print(table)
    console.print(
        f"The pictures are in [bold]{escape(str(folder / REPORT_FILE))}[/]. Train it with "
        f"[bold]keras-inception train --spec {escape(quoted(folder / SPEC_FILE))}"
        f"{next_data(data.source)}[/]"
    )


@contextmanager
def _ends() -> Iterator[None]:
    """What to say when a training ends before its end, and with which code."""
    from keras_inception.training.progress import TrainingInterruptedError

    try:
        with usage_errors():
            yield
    except (TrainingInterruptedError, FloatingPointError) as error:
        print_error(f"{error} Begin again in another folder.")
        raise typer.Exit(2 if isinstance(error, FloatingPointError) else 1) from None


def _check(folder: Path, model_folder: Path | None, layer_by_layer: bool) -> None:
    require_empty(folder)
    if model_folder and layer_by_layer:
        raise ValueError(
            "Expected --model or --layer-by-layer, which trains networks of its own. Received: both"
        )
