"""Words for waits: at once on a terminal; elsewhere a line at least every 30 seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from keras_inception.cli import silence
from keras_inception.cli.common import errors

# Seconds after which a line is due where nobody sees a bar move. Python's own start and a late
# thread make it 30 at most.
SILENCE = 20.0
# What is waited for at the start of a command.
LOADING = "Loading Keras and its backend"
LOADING_MODEL = "Loading the model and its runtime"


@contextmanager
def each_second(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` once a second, in a thread of its own."""
    closed = threading.Event()

    def repeat() -> None:
        while not closed.wait(1.0):
            action()

    threading.Thread(target=repeat, name="display", daemon=True).start()
    try:
        yield
    finally:
        closed.set()


def line_is_due() -> bool:
    """Whether a command without a terminal, whose waits may follow each other, must say a word."""
    return silence.seconds() >= SILENCE


@contextmanager
def waiting(words: str, *, on: Console = errors) -> Iterator[Callable[[str], None]]:
    """Say what a wait of seconds is for; lines may be printed on the same console meanwhile.

    Yields what takes the words for the next part of the wait.
    """
    if on.is_terminal:
        with on.status(words) as status:
            yield status.update
        return
    now = words, time.monotonic()

    def update(words: str) -> None:
        nonlocal now
        now = words, time.monotonic()

    def line() -> str:
        words, since = now
        return f"{words}, {time.monotonic() - since:.0f} s"

    with lines(line):
        yield update


@contextmanager
def scanning() -> Iterator[Callable[[int, int], None]]:
    """Say how far a scan is; yields what takes the number of files scanned, and of all."""
    from rich.progress import Progress

    place, began = (0, 0), time.monotonic()
    bar = Progress(console=errors, transient=True, disable=not errors.is_terminal)
    task = bar.add_task("opening the data", total=None)

    def scanned(done: int, total: int) -> None:
        nonlocal place
        place = done, total
        bar.update(task, description="scanning the images", completed=done, total=total)

    def words() -> str:
        done, total = place
        scan = f"scanning the images, {done:,} of {total:,}" if total else "opening the data"
        return f"{scan}, {time.monotonic() - began:.0f} s"

    if errors.is_terminal:
        with bar:
            yield scanned
    else:
        with lines(words):
            yield scanned


@contextmanager
def lines(line: Callable[[], str]) -> Iterator[None]:
    """Print a line whenever one is due."""

    def print_line() -> None:
        if line_is_due():
            silence.end()
            errors.print(line())

    with each_second(print_line):
        yield
