"""`keras-inception predict`: labels of images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from keras_inception.cli.common import console, errors, print_error, usage_errors

# More answers than this are printed as tables one after the other, as they come.
_ROWS_AT_ONCE = 32


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            help="A run's folder, a .keras file, a SavedModel, or a .tflite, .onnx or .xml file."
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(help="Image files, folders of them, or - for paths on standard input."),
    ],
    top: Annotated[int, typer.Option(min=1, help="Labels for each image.")] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, for each image.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images held at a time.")] = 32,
) -> None:
    """The most probable labels of images.

    What is no image is told on standard error and stops nothing; the exit code is then 2.
    """
    with usage_errors():
        if not model.exists():
            raise ValueError(f"Expected a model. Received, and not found: {str(model)!r}")
        from_stdin = [str(image) for image in images] == ["-"]
        missing = [str(image) for image in images if not image.exists()]
        if missing and not from_stdin:
            raise ValueError(f"Expected images or folders. Received, and not found: {missing}")
    from keras_inception.images.listing import image_files
    from keras_inception.inference.predictor import Predictor

    with usage_errors():
        predictor = Predictor.load(model)
    paths: Any = _paths_from_stdin() if from_stdin else image_files(images)
    failed = seen = 0
    waiting = []
    for answer in _with_progress(predictor.stream(paths, top, batch_size)):
        seen += 1
        if answer.error:
            failed += 1
            print_error(answer.error)
        if as_json:
            typer.echo(_json_line(answer))
        elif not answer.error:
            waiting.append(answer)
        if len(waiting) == _ROWS_AT_ONCE:
            console.print(_table(waiting))
            waiting = []
    if waiting:
        console.print(_table(waiting))
    if not seen:
        with usage_errors():
            raise ValueError("Expected images. Received: none, neither as files nor in folders.")
    if failed:
        raise typer.Exit(2)


def _paths_from_stdin() -> Iterator[Path]:
    return (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())


def _with_progress(answers: Iterator[Any]) -> Iterator[Any]:
    """Count the images on standard error, if somebody looks at it."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} images"), TimeElapsedColumn())
    with Progress(
        *columns, console=errors, transient=True, disable=not errors.is_terminal
    ) as progress:
        yield from progress.track(answers)


def _json_line(answer: Any) -> str:
    if answer.error:
        return json.dumps({"image": str(answer.image), "error": answer.error})
    labels = [{"label": label, "score": score} for label, score in answer.labels]
    return json.dumps({"image": str(answer.image), "labels": labels})


def _table(answers: list[Any]) -> Table:
    table = Table()
    table.add_column("image", overflow="fold")  # a long path goes on in the next line
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right")
    for answer in answers:
        for rank, (label, score) in enumerate(answer.labels):
            name = escape(str(answer.image)) if rank == 0 else ""
            last = rank == len(answer.labels) - 1
            table.add_row(name, escape(label), f"{score:.4f}", end_section=last)
    return table
