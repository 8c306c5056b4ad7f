"""What the commands share: the consoles, one way to tell a mistake, options, the cost line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from keras_inception.cost import network_cost
from keras_inception.spec import NetworkSpec
from keras_inception.variants import variant_spec

app = typer.Typer(
    help="GoogLeNet and the Inception v1 family: count, train, predict.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Variant = Annotated[str, typer.Option(help="A named network; `summary --list` shows them all.")]
SpecFile = Annotated[
    Path | None, typer.Option("--spec", help="A spec.json, in the place of --variant.")
]


@contextmanager
def mistakes() -> Iterator[None]:
    """Turn what the user can mend into one line and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())
        errors.print(f"[bold red]Error:[/] {escape(message)}")
        raise typer.Exit(2) from None


def chosen_spec(variant: str, path: Path | None) -> NetworkSpec:
    """The spec that --spec or --variant names."""
    return variant_spec(variant) if path is None else NetworkSpec.from_json(file_text(path))


def file_text(path: Path) -> str:
    """The text of a spec.json or recipe.json.

    Raises:
        ValueError: a file that is not there or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror
    except UnicodeDecodeError:
        reason = "not a text file"
    raise ValueError(f"Expected a JSON file. Received: {str(path)!r} ({reason})")


def model_path(path: Path) -> Path:
    """The .keras file of a run's folder, or the file itself.

    Raises:
        ValueError: neither.
    """
    file = path / "model.keras" if path.is_dir() else path
    if file.suffix != ".keras" or not file.is_file():
        raise ValueError(
            f"Expected a folder that holds model.keras, or a .keras file. Received: {str(path)!r}"
        )
    return file


def cost_line(spec: NetworkSpec) -> str:
    """What a network costs, in one line."""
    total = network_cost(spec).total
    height, width, channels = spec.input_shape
    return (
        f"[bold]{escape(spec.name)}[/] on {height} x {width} x {channels}, {spec.classes} classes: "
        f"{total.params:,} parameters, {total.macs:,} multiply-adds, "
        f"{total.activation_bytes() / 1e6:.1f} MB of activations per image."
    )
