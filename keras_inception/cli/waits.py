"""Words for waits: at once on a terminal; elsewhere a line at least every 30 seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keras_inception.cli.common import errors

# Seconds after which a line is due where nobody sees a bar move. A late thread makes it 30 at most.
SILENCE = 25.0
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


class Quiet:
    """How long nothing has been printed."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def is_over(self) -> bool:
        """Whether a line is due."""
        return time.monotonic() - self._since >= SILENCE

    def end(self) -> None:
        """Note that a line is printed."""
        self._since = time.monotonic()


@contextmanager
def waiting(words: str) -> Iterator[None]:
    """Say what a wait of seconds is for."""
    if errors.is_terminal:
        with errors.status(words):
            yield
    else:
        with _lines(lambda: words):
            yield


@contextmanager
def scanning() -> Iterator[Callable[[int, int], None]]:
    """Say how far a scan is; yields what takes the number of files scanned, and of all."""
    from rich.progress import Progress

    place = (0, 0)
    bar = Progress(console=errors, transient=True, disable=not errors.is_terminal)
    task = bar.add_task("opening the data", total=None)

    def scanned(done: int, total: int) -> None:
        nonlocal place
        place = done, total
        bar.update(task, description="scanning the images", completed=done, total=total)

    def words() -> str:
        done, total = place
        return f"scanning the images, {done:,} of {total:,}" if total else "opening the data"

    if errors.is_terminal:
        with bar:
            yield scanned
    else:
        with _lines(words):
            yield scanned


@contextmanager
def _lines(words: Callable[[], str]) -> Iterator[None]:
    began, quiet = time.monotonic(), Quiet()

    def print_line() -> None:
        if quiet.is_over():
            errors.print(f"{words()}, {time.monotonic() - began:.0f} s")
            quiet.end()

    with each_second(print_line):
        yield
