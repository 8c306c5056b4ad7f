"""`keras-inception info`: what a run, an export, a model or a spec is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from keras_inception.cli.common import console, usage_errors


def info(
    path: Annotated[
        Path,
        typer.Argument(help="A run's or an export's folder, a .keras file, or a spec.json."),
    ],
) -> None:
    """Network, cost, pixels, data, recipe, accuracy, and the formats beside it."""
    with usage_errors():
        from keras_inception.runtimes.description import describe

        facts = describe(path)
    for name, value in facts.items():
        console.print(f"[bold]{name:10}[/] {escape(value)}")
