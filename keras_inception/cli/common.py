"""What the commands share: the consoles, and how errors are reported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from keras_inception.files import printable
from keras_inception.packages import MissingPackageError, is_installed


class _SafeConsole(Console):
    """A console that shows control characters as escapes: names may come from anywhere."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return text with its markup; line feeds stay."""
        lines = (printable(line) for line in text.split("\n"))
        return super().render_str("\n".join(lines), **options)


console = _SafeConsole(highlight=False, emoji=False, soft_wrap=True)
errors = _SafeConsole(stderr=True, highlight=False, emoji=False, soft_wrap=True)

# EX_TEMPFAIL of sysexits.h: not finished; the same command resumes it.
INTERRUPTED = 75
# Where a command writes its folder without --out.
RUNS = Path("saved_models")


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


def print_missing_pictures() -> None:
    """Say that pictures were left out, and how to install what draws them."""
    if not is_installed("matplotlib"):
        errors.print(f"No pictures were drawn. {escape(str(MissingPackageError('matplotlib')))}")
