"""`keras-inception predict`: labels of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from keras_inception.cli.common import console, mistakes


def predict(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a .keras file.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(min=1, help="Labels for each image.")] = 5,
) -> None:
    """The most probable labels of images."""
    with mistakes():
        path = model / "model.keras" if model.is_dir() else model
        if path.suffix != ".keras" or not path.is_file():
            raise ValueError(
                "Expected a folder that holds model.keras, or a .keras file. "
                f"Received: {str(model)!r}"
            )
        missing = [str(image) for image in images if not image.is_file()]
        if missing:
            raise ValueError(f"Expected image files. Received, and not found: {missing}")
    from keras_inception.predict import Predictor

    with mistakes():
        predictor = Predictor.load(path)
    table = Table()
    table.add_column("image", overflow="fold")  # a long path goes on in the next line
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right")
    for image in images:
        with mistakes():
            answers = predictor.predict(image, top)
        for rank, (label, score) in enumerate(answers):
            name = escape(str(image)) if rank == 0 else ""
            table.add_row(name, escape(label), f"{score:.4f}", end_section=rank == len(answers) - 1)
    console.print(table)
