"""What the commands share: the consoles, one way to tell a mistake, options, the cost line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.files import printable
from keras_inception.packages import MissingPackageError, explained_imports, is_installed
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import RECIPES, Recipe
from keras_inception.spec.variants import variant_spec

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Commands(TyperGroup):
    """The commands. Usage errors and missing packages are one line; Ctrl-C exits with 1."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and end the process; no arguments ask for help."""
        words = list(sys.argv[1:] if args is None else args)
        try:
            with explained_imports():
                code = super().main(
                    words or ["--help"], _PROGRAM, complete_var, False, windows_expand_args, **extra
                )
        except MissingPackageError as error:
            print_error(str(error))
            sys.exit(2)
        except typer.TyperException as error:
            context = getattr(error, "ctx", None)
            help_of = context.command_path if context else _PROGRAM
            print_error(f"{error.format_message().rstrip('.')}. See {help_of} --help.")
            sys.exit(error.exit_code)
        if code == _STOPPED_BY_HAND:
            errors.print("Stopped.")
        sys.exit(1 if code == _STOPPED_BY_HAND else code)


_PROGRAM = "keras-inception"
# EX_TEMPFAIL of sysexits.h: not done, and the same command goes on.
INTERRUPTED = 75
# Where a command leaves its folder if no --out says it.
RUNS = Path("saved_models")
# What Typer gives for Ctrl-C.
_STOPPED_BY_HAND = 130

app = typer.Typer(
    cls=Commands,
    help="GoogLeNet and the Inception v1 family: count, train, search, export, predict.",
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # rewraps the paragraphs of the docstrings
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Print errors that the user can correct in one line, and exit with code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        print_error(str(error))
        raise typer.Exit(2) from None


def print_error(message: str) -> None:
    """One line on standard error."""
    errors.print(f"[bold red]Error:[/] {escape(printable(' '.join(message.split())))}")


def print_warning(message: str) -> None:
    """One line on standard error about what is done, but perhaps not meant."""
    errors.print(f"[bold yellow]Warning:[/] {escape(printable(message))}")


def chosen_spec(variant: str, path: Path | None) -> NetworkSpec:
    """The spec that --spec or --variant names."""
    return variant_spec(variant) if path is None else NetworkSpec.from_json(file_text(path))


def chosen_recipe(name: str, changes: list[str] | None, **given: Any) -> Recipe:
    """The recipe that --recipe names, with the changes of --set and of options that were given.

    Args:
        name: of a recipe, or a recipe.json.
        changes: FIELD=VALUE each.
        given: fields by their own options, which come last; None is an option that was not given.
    """
    if name in RECIPES:
        recipe = RECIPES[name]
    elif name.endswith(".json"):
        recipe = Recipe.from_json(file_text(Path(name)))
    else:
        raise ValueError(
            f"Expected a recipe among {', '.join(RECIPES)}, or a recipe.json. Received: {name!r}"
        )
    given = {field: value for field, value in given.items() if value is not None}
    return replace(recipe, **{**_recipe_changes(changes or []), **given})


def chosen_budget(spec: NetworkSpec, macs: int | None, params: int | None) -> Budget:
    """The bounds that were asked for; none: the network's own multiply-adds."""
    if macs is None and params is None:
        macs = network_cost(spec).total.macs
    return Budget(macs=macs, params=params)


def _recipe_changes(items: list[str]) -> dict[str, Any]:
    """FIELD=VALUE as the recipe takes them; a value that is no JSON is text."""
    known = {item.name for item in fields(Recipe)}
    changes: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if name not in known or not equals:
            raise ValueError(
                f"Expected --set FIELD=VALUE, with a field among {', '.join(sorted(known))}. "
                f"Received: {item!r}"
            )
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        changes[name] = tuple(value) if isinstance(value, list) else value
    return changes


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


def cost_line(spec: NetworkSpec) -> str:
    """What a network costs, in one line."""
    total = network_cost(spec).total
    height, width, channels = spec.input_shape
    return (
        f"[bold]{escape(spec.name)}[/] on {height} x {width} x {channels}, {spec.classes} classes: "
        f"{total.params:,} parameters, {total.macs:,} multiply-adds, "
        f"{total.activation_bytes() / 1e6:.1f} MB of activations per image."
    )


@contextmanager
def waiting(words: str) -> Iterator[None]:
    """On a terminal, say what a wait of seconds is for."""
    if not errors.is_terminal:
        yield
        return
    with errors.status(words):
        yield


def print_missing_pictures() -> None:
    """Say that pictures were left out, and how to install what draws them."""
    if not is_installed("matplotlib"):
        errors.print(f"No pictures were drawn. {escape(str(MissingPackageError('matplotlib')))}")
