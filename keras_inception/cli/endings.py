"""How commands end early: signals, errors, output that nobody reads."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from keras_inception.cli.common import INTERRUPTED, console, errors, print_error, usage_errors
from keras_inception.cli.native_output import drop_held
from keras_inception.files import MODEL_FILE, remove_own_leftovers
from keras_inception.new_folders import remove_unbegun

if TYPE_CHECKING:
    from keras_inception.cli.display import TrainingDisplay

# Seconds that the last words may take, of a terminal that does not answer.
_LAST_WORDS = 2.0


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """End the command on SIGINT, SIGTERM or SIGHUP at once; also a decorator.

    For commands, and parts of commands, that cannot be resumed.
    """
    from keras_inception.training.signals import StopSignals

    def end(number: int, count: int) -> None:
        def say() -> None:
            errors.show_cursor()  # a progress bar hides it
            errors.print("Stopped. No incomplete files are left; start the command again.")

        _end_at_once(number, say)

    with StopSignals(end):
        yield


def acknowledging(display: TrainingDisplay, folder: Path) -> Callable[[int, int], None]:
    """What answers signals during a training, in the thread that watches for them.

    The first gets words. A second ends the process at once.
    """

    def acknowledge(number: int, count: int) -> None:
        def say() -> None:
            display.close()
            errors.print(f"Stopped. {_kept(folder)}")

        if count == 1:
            with suppress(OSError):  # the terminal may be gone
                display.say("Stopping after this step; again to stop now.")
        else:
            _end_at_once(number, say)

    return acknowledge


def _end_at_once(number: int, say: Callable[[], None]) -> NoReturn:
    """End the process from a thread, without its incomplete files.

    An exception would wait until the main thread returns from C++, where it may compile for
    minutes, or be lost there.
    """
    code = 1 if number == signal.SIGINT else INTERRUPTED
    timer = threading.Timer(_LAST_WORDS, os._exit, (code,))
    timer.daemon = True
    timer.start()
    remove_own_leftovers()
    remove_unbegun()
    with suppress(OSError):
        say()
    drop_held()
    os._exit(code)


@contextmanager
def early_ends(folder: Path) -> Iterator[None]:
    """Print why a run stopped early, and exit with the code for it."""
    from keras_inception.training.progress import TrainingInterruptedError

    try:
        with usage_errors():
            yield
    except TrainingInterruptedError as error:
        errors.print(f"{escape(str(error))} {_kept(folder)}")
        raise typer.Exit(1 if error.by_hand else INTERRUPTED) from None
    except KeyboardInterrupt:  # before or after the watch for signals
        errors.print(f"Stopped. {_kept(folder)}")
        raise typer.Exit(1) from None
    except FloatingPointError as error:
        print_error(f"{error} {_model(folder)} Start again in another folder.")
        raise typer.Exit(2) from None


def go_on_without_readers() -> None:
    """Finish the command when the readers of its output are gone, as in `train | head`."""
    _go_on(console, sys.stdout.fileno)
    _go_on(errors, sys.stderr.fileno)


def _go_on(output: Console, descriptor: Callable[[], int]) -> None:
    def silence() -> None:
        output.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor())

    output.on_broken_pipe = silence  # type: ignore[method-assign]


def _kept(folder: Path) -> str:
    """What is kept of a run that was stopped, and how to resume it, for the console."""
    model = f"{escape(_model(folder))} " if folder.is_dir() else ""
    return model + resuming(folder)


def resuming(folder: Path) -> str:
    """How to resume a run or a search that was stopped, for the console."""
    if not folder.is_dir():
        return "There is nothing to resume, and no folder is left."
    return f"The same command with [bold]--out {escape(str(folder))}[/] resumes it."


def _model(folder: Path) -> str:
    model = folder / MODEL_FILE
    if model.exists():
        return f"The model of the last complete epoch is in {model}."
    return f"{folder} holds no model yet."
