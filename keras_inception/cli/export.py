"""`keras-inception export`: a trained model in the formats that serve it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from keras_inception.cli.choices import require_choice
from keras_inception.cli.common import (
    console,
    errors,
    print_warning,
    usage_errors,
)
from keras_inception.cli.data import chosen_data, print_left_out
from keras_inception.cli.endings import ended_by_signals
from keras_inception.cli.options import KerasModel
from keras_inception.cli.waits import LOADING, waiting
from keras_inception.files import keras_file

Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="saved_model (default), saved_model-bfloat16, onnx, onnx-int8, openvino, "
        "openvino-bfloat16, openvino-int8, litert, litert-float16, litert-int8, litert-uint8; all; "
        "or fastest. May be repeated.",
    ),
]
ExportFolder = Annotated[
    Path | None, typer.Option("--out", help="A new folder; default `export` beside the model.")
]
ImageFolder = Annotated[
    Path | None,
    typer.Option(
        help="A folder of your images, for the check and for int8's calibration; folders in "
        "it named after the classes give the accuracy. Default: the data that the run recorded, "
        "or the bundled sample."
    ),
]
Features = Annotated[
    list[str] | None,
    typer.Option(
        "--feature",
        help="Endpoints of the SavedModel's signature `features`. Default: the one before the "
        "classifier, such as avg_pool.",
    ),
]
Merge = Annotated[
    bool,
    typer.Option(
        "--merge",
        help="Merge parallel convolutions into one: faster on small images, where the number of "
        "layers takes the time.",
    ),
]

TimedBatch = Annotated[
    int,
    typer.Option(
        "--batch-size", min=1, max=1024, help="Images in a call when the formats are timed."
    ),
]


@ended_by_signals()
def export(
    model: KerasModel,
    kinds: Formats = None,
    out: ExportFolder = None,
    images: ImageFolder = None,
    features: Features = None,
    merge: Merge = False,
    batch_size: TimedBatch = 1,
) -> None:
    """Write a model in formats that serve it, each checked against the model on real images."""
    with usage_errors():
        path = keras_file(model)
        with waiting(LOADING):
            formats = _formats(kinds or ["saved_model"])
            from keras_inception.exporters.job import export as write_exports

        folder = out or path.with_name("export")
        with _table_of_refused(), _steps() as (report, pause):

            def read(shape: Any, labels: Any) -> Any:
                pause()  # reading has a display of its own
                if images:
                    return _folder_images(images, shape, labels)
                return _recorded_images(path, shape, labels)

            rows = write_exports(
                path,
                folder,
                formats,
                images=read,
                features=features,
                fastest=kinds == ["fastest"],
                merge=merge,
                batch_size=batch_size,
                report=report,
            )
    _print_rows(rows)
    kept = ", ".join(row.path.name for row in rows if row.path)
    console.print(f"[bold]{escape(str(folder))}[/] holds {escape(kept)}.")


@contextmanager
def _table_of_refused() -> Iterator[None]:
    """Print what was measured before the error about refused formats."""
    from keras_inception.exporters.job import RefusedFormatsError

    try:
        yield
    except RefusedFormatsError as error:
        _print_rows(error.rows)
        raise


def _print_rows(rows: list[Any]) -> None:
    console.print(_table(rows))
    _print_missing_instructions(rows)


def _print_missing_instructions(rows: list[Any]) -> None:
    """Say that int8 gains no time on this processor, and what is fastest without it."""
    from keras_inception.exporters.instructions import int8_instructions

    others = [row for row in rows[1:] if not row.kind.endswith(("-int8", "-uint8"))]
    if len(others) == len(rows) - 1 or int8_instructions() != ():
        return
    fastest = min(others, key=lambda row: row.milliseconds).kind if others else "not measured"
    console.print(
        "This processor has no instructions for int8 products (VNNI, AMX, ARM's dot product): "
        f"int8 saves size here, not time. The fastest format without int8: {fastest}."
    )


def _recorded_images(model: Path, shape: Any, labels: Any) -> Any:
    """Images of the data that the run recorded, else of the bundled sample; a line says which."""
    from keras_inception.data.sources import SAMPLE, open_data
    from keras_inception.exporters.calibration import data_images

    try:
        data = chosen_data(None, beside=model.parent, option="--images")
    except ValueError as error:
        print_warning(f"the recorded data cannot be used; using the sample instead. {error}")
        data = open_data(SAMPLE)
    return data_images(data, shape, labels)


@contextmanager
def _steps() -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """The current step and its seconds; a second function hides them on a terminal."""
    if not errors.is_terminal:
        with waiting("loading the model") as report:
            yield report, lambda: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("loading the model")

        def report(words: str) -> None:
            progress.start()
            progress.reset(task, description=words)

        yield report, progress.stop


def _folder_images(folder: Path, shape: Any, labels: Any) -> Any:
    """The images of --images; a list of what is left out of them."""
    from keras_inception.exporters.calibration import folder_images

    images = folder_images(folder, shape, labels)
    print_left_out(images.left_out)
    return images


def _formats(names: list[str]) -> Any:
    """The formats that --format names."""
    from keras_inception.exporters.formats import FORMATS
    from keras_inception.exporters.job import available_formats

    for name in names:
        require_choice("--format", name, (*FORMATS, "all", "fastest"))
    if names == ["fastest"]:  # but not the one for devices, whose scores are steps of 1/256
        return [kind for kind in available_formats() if kind != "litert-uint8"]
    return FORMATS if names == ["all"] else names


def _table(rows: list[Any]) -> Table:
    table = Table()
    table.add_column("format")
    for column in ("MB", "largest\ndifference", "same\nfirst", "accuracy", "ms an\nimage", "speed"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.kind,
            f"{row.size / 1e6:.1f}" if row.size else "",
            f"{row.agreement.largest_difference:.1e}",
            f"{row.agreement.same_first:.1%}",
            "" if row.accuracy is None else f"{row.accuracy:.1%}",
            f"{row.milliseconds:.2f}",
            f"{rows[0].milliseconds / row.milliseconds:.2f}x",
        )
    return table
