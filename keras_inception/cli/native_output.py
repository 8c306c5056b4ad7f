"""What C and C++ libraries write to standard error: shown only if the command fails.

TensorFlow, XLA and oneDNN write to file descriptor 2, in part before they read any setting. While a
command runs, the descriptor is a pipe to a small process that keeps the last megabyte. It shows
that if the command ends by an exception or is killed, as after an abort in C++. `sys.stderr`, with
the messages and progress bars of the program and of Python libraries, goes to the terminal or file
as before.

Standard library only.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

_MOST_BYTES = 1 << 20
_SUCCEEDED, _FAILED = b".", b"!"
# Of this process; at most one.
_controls: list[socket.socket] = []


@contextmanager
def held_back() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, from the block until the process ends.

    For the program's entry point: before threads start, and once a process. Where processes cannot
    fork (Windows), and without standard error, nothing is held back.
    """
    if not hasattr(os, "fork") or sys.stderr is None:
        yield
        return
    screen = os.dup(2)
    control = _start_watcher(screen)
    _controls.append(control)
    sys.stderr = open(  # noqa: SIM115 - until the process ends
        screen, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors
    )
    _end_quietly_by_signals(control)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        _end(control, _SUCCEEDED)
        raise
    except BaseException:
        _end(control, _FAILED)
        os.dup2(screen, 2)  # for the traceback
        raise
    _end(control, _SUCCEEDED)


def drop_held() -> None:
    """Show nothing of what is held back: for an end by `os._exit` that is no failure."""
    for control in _controls:
        _end(control, _SUCCEEDED)


def _end(control: socket.socket, word: bytes) -> None:
    with suppress(OSError):  # the watcher may have been killed
        control.sendall(word)
        control.recv(1)  # it closes its end when it has shown what it holds


def _end_quietly_by_signals(control: socket.socket) -> None:
    """Let a process that somebody stops end as it would, and show nothing."""

    def end(number: int, frame: FrameType | None) -> None:
        _end(control, _SUCCEEDED)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


def _start_watcher(screen: int) -> socket.socket:
    """Make descriptor 2 a pipe to a new process; return the socket that tells it how this ends."""
    held, writable = os.pipe()
    ours, control = socket.socketpair()
    if os.fork() == 0:
        try:
            _close_all_but(held, screen, control.fileno())
            _watch(held, screen, control)
        finally:
            os._exit(0)
    os.dup2(writable, 2)
    os.close(held)
    os.close(writable)
    control.close()
    return ours


def _close_all_but(*kept: int) -> None:
    """Close the rest, such as the pipe that the reader of the program's output waits on."""
    for number in {int(name) for name in os.listdir("/dev/fd")} - set(kept):
        with suppress(OSError):  # the folder's own
            os.close(number)


def _watch(held: int, screen: int, control: socket.socket) -> NoReturn:
    """Keep what is written until the program says how it ended, or is gone; then show or drop it.

    Reads on until no process can write any more: one that the program started may outlive it.
    """
    os.setsid()  # Ctrl-C and Ctrl-Z are the program's
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    text = b""
    open_ends: list[int | socket.socket] = [held, control]
    while control not in select.select(open_ends, [], [])[0]:
        more = os.read(held, 1 << 16)
        text = (text + more)[-_MOST_BYTES:]
        if not more:  # the program closed it
            open_ends.remove(held)
    os.set_blocking(held, False)
    with suppress(BlockingIOError):
        while more := os.read(held, 1 << 16):
            text += more
    if control.recv(1) != _SUCCEEDED:
        _write(screen, text)
    os.close(screen)
    control.close()
    os.set_blocking(held, True)
    while os.read(held, 1 << 16):
        pass
    os._exit(0)


def _write(descriptor: int, text: bytes) -> None:
    with suppress(OSError):  # nobody reads it any more
        while text:
            text = text[os.write(descriptor, text) :]
