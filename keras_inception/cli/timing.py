"""`keras-inception time`: the milliseconds of exported networks on this machine, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from keras_inception.cli.common import console, usage_errors
from keras_inception.cli.endings import ended_by_signals
from keras_inception.cli.waits import waiting


@ended_by_signals()
def time(
    models: Annotated[
        list[Path],
        typer.Argument(help="SavedModels, or .tflite, .onnx or .xml (OpenVINO) files of export."),
    ],
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a call; default 1.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the runtime; default one for each core.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="CSV file of the times; default timings.csv beside the first model."),
    ] = None,
) -> None:
    """Time exported networks in turns, and write a table for `tune --budget-timings`.

    Needs the runtime alone and no TensorFlow, except for SavedModels: it also runs on a board.
    """
    with usage_errors():
        from keras_inception.runtimes.timing import TABLE_FILE, time_models, write_timings

        file = out or models[0].parent / TABLE_FILE
        if file.suffix != ".csv":
            raise ValueError(f"Expected a .csv file as --out. Received: {str(file)!r}")
        with waiting("loading") as report:
            timed = time_models(models, batch_size=batch_size, threads=threads, report=report)
        write_timings(file, timed)
    table = Table("model", "runtime", "precision", "ms an image")
    for path, (conditions, milliseconds) in timed.items():
        table.add_row(
            escape(str(path)), conditions.runtime, conditions.precision, f"{milliseconds:.3g}"
        )
    console.print(table)
    console.print(
        f"Batch {batch_size}, threads {conditions.threads}, {escape(conditions.device)}. "
        f"The table is [bold]{escape(str(file))}[/]."
    )
