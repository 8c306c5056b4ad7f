"""The program: the list of its commands, each loaded when it is called, and how it ends."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

from keras_inception import __version__
from keras_inception.cli import silence
from keras_inception.cli.command import Command, Group
from keras_inception.cli.native_output import held_back
from keras_inception.packages import MissingPackageError, explained_imports
from keras_inception.quiet import LEVEL

_PROGRAM = "keras-inception"
# What Typer gives for Ctrl-C.
_STOPPED_BY_HAND = 130
_VERBOSE = "--verbose"


class _Listed(NamedTuple):
    """A command: what --help says of it, and where it is."""

    help: str
    module: str
    function: str = ""  # none where the module has an `app` of several commands


# In the order of --help.
_COMMANDS = {
    "train": _Listed("Train a network, evaluate it, and write it to a folder.", "train", "train"),
    "summary": _Listed("Print the cost of a network.", "summary", "summary"),
    "info": _Listed("Print what a run, an export, a model or a spec is.", "info", "info"),
    "evaluate": _Listed("Print the accuracy of one or several models.", "evaluate", "evaluate"),
    "predict": _Listed("Print the most probable labels of images.", "predict", "predict"),
    "export": _Listed("Write a model in formats that serve it.", "export", "export"),
    "time": _Listed("Write the milliseconds of exported networks.", "timing", "time"),
    "serve": _Listed("Serve a model: a page, and POST /predict.", "serve", "serve"),
    "design": _Listed("Propose widths from what a trained network measures.", "design", "design"),
    "tune": _Listed("Search the widths of a network within a budget.", "tune", "tune"),
    "tune-report": _Listed("Write the report of a search.", "tune", "tune_report"),
    "weights": _Listed("List, convert and verify public weights.", "weights"),
}


class Commands(Group):
    """The commands. Usage errors and missing packages are one line; Ctrl-C exits with 1."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, listed in _COMMANDS.items():
            self.add_command(Command(name, help=listed.help))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an unknown command before the options, whose types take Pydantic to read."""
        if args and not args[0].startswith("-") and not ctx.resilient_parsing:
            super().resolve_command(ctx, args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the listed command by the one that runs."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, None if command is None else _loaded(str(name)), rest

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
        silence.end()
        try:
            with explained_imports():
                code = super().main(
                    words or ["--help"], _PROGRAM, complete_var, False, windows_expand_args, **extra
                )
        except MissingPackageError as error:
            _end_with_error(str(error), 2)
        except typer.TyperException as error:
            context = getattr(error, "ctx", None)
            help_of = context.command_path if context else _PROGRAM
            message = error.format_message().rstrip(".")
            end = "" if message.endswith("?") else "."
            _end_with_error(f"{message}{end} See {help_of} --help.", error.exit_code)
        if code == _STOPPED_BY_HAND:
            typer.echo("Stopped.", err=True)
        sys.exit(1 if code == _STOPPED_BY_HAND else code)


def _end_with_error(message: str, code: int) -> NoReturn:
    from keras_inception.cli.common import print_error  # Rich, which --help does without

    print_error(message)
    sys.exit(code)


def _loaded(name: str) -> Any:
    """Import a command."""
    listed = _COMMANDS[name]
    module = import_module(f"keras_inception.cli.{listed.module}")
    if not listed.function:
        return typer.main.get_command(module.app)
    # Markdown's rules rewrap the paragraphs of the docstring.
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    alone.command(name, cls=Command)(getattr(module, listed.function))
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=Commands,
    help="GoogLeNet and the Inception v1 family: count, train, search, export, predict.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Typer's boxes take more time than all the rest of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{_PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            _VERBOSE,
            help="With any command: show what TensorFlow and other libraries in C++ write to "
            "standard error, which is otherwise shown only if the command fails.",
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point of the console script; --verbose may stand anywhere."""
    os.environ.setdefault(LEVEL, "0")  # what is held back is whole
    # Python would go through all objects of TensorFlow once more at the end, which takes a second.
    atexit.register(gc.freeze)
    words = [word for word in sys.argv[1:] if word != _VERBOSE]
    with held_back() if words == sys.argv[1:] else nullcontext():
        try:
            app(words)
        finally:
            _ignore_signals()


def _ignore_signals() -> None:
    """The exit status stands: a signal would replace it while Python ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last is missing on Windows
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
