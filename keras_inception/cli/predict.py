"""`keras-inception predict`: labels of images."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from keras_inception.cli.common import console, errors, print_error, usage_errors
from keras_inception.cli.endings import ended_by_signals
from keras_inception.cli.options import Threads
from keras_inception.cli.waits import LOADING_MODEL, waiting
from keras_inception.files import printable
from keras_inception.wording import counted

# More answers than this are printed as tables one after the other, as they come.
_ROWS_AT_ONCE = 32


@ended_by_signals()
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
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one call of the network.")] = 32,
    threads: Threads = None,
) -> None:
    """The most probable labels of images.

    Files that are not images are reported on standard error; the others are still answered, and the
    exit code is 2.
    """
    with usage_errors():
        if not model.exists():
            raise ValueError(f"Expected a model. Received, and not found: {str(model)!r}")
        from_stdin = [str(image) for image in images] == ["-"]
        if not from_stdin and not any(image.exists() for image in images):
            missing = [str(image) for image in images]
            raise ValueError(f"Expected images or folders. Received, and not found: {missing}")
    with usage_errors(), waiting(LOADING_MODEL):
        from keras_inception.images.listing import image_files
        from keras_inception.inference.predictor import load

        predictor = load(model, threads=threads, batch_size=batch_size)
    report = _Report(as_json)
    chosen = report.without_harmless(image_files(_paths_from_stdin() if from_stdin else images))
    for answer in _with_progress(predictor.stream(chosen, top)):
        report.add(answer)
    report.end()


class _Report:
    """Prints answers as they come, and counts what gets none."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._waiting: list[Any] = []
        self._seen = self._failed = self._harmless = 0

    def without_harmless(self, files: Iterable[Any]) -> Iterator[Any]:
        """The files without those that are hidden or an operating system's, which are counted."""
        from keras_inception.images.listing import HARMLESS, LeftOut

        for file in files:
            if isinstance(file, LeftOut) and file.reason in HARMLESS:
                self._harmless += 1
            else:
                yield file

    def add(self, answer: Any) -> None:
        """Print an answer, or keep it for a table of several."""
        self._seen += 1
        if answer.error:
            self._failed += 1
            print_error(answer.error)
        if self._as_json:
            typer.echo(_json_line(answer))
        elif not answer.error:
            self._waiting.append(answer)
        if len(self._waiting) == _ROWS_AT_ONCE:
            self._print_table()

    def end(self) -> None:
        """Print what is left; exit with 2 where a file got no answer."""
        if self._waiting:
            self._print_table()
        if self._harmless:
            errors.print(
                f"{counted(self._harmless, 'file')} left out: hidden, or the operating system's."
            )
        if not self._seen:
            with usage_errors():
                raise ValueError(
                    "Expected images. Received: none, neither as files nor in folders."
                )
        if self._failed:
            raise typer.Exit(2)

    def _print_table(self) -> None:
        console.print(_table(self._waiting))
        self._waiting = []


def _paths_from_stdin() -> Iterator[Path]:
    """One path a line, of any bytes; lines may end as on Windows."""
    lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    return (Path(os.fsdecode(line)) for line in lines if line.strip())


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
        return json.dumps({"image": answer.image, "error": answer.error})
    labels = [{"label": label, "score": score} for label, score in answer.labels]
    return json.dumps({"image": answer.image, "labels": labels})


def _table(answers: list[Any]) -> Table:
    table = Table()
    table.add_column("image", overflow="fold")  # a long path goes on in the next line
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right")
    for answer in answers:
        for rank, (label, score) in enumerate(answer.labels):
            name = escape(printable(answer.image)) if rank == 0 else ""
            last = rank == len(answer.labels) - 1
            table.add_row(name, escape(printable(label)), f"{score:.4f}", end_section=last)
    return table
