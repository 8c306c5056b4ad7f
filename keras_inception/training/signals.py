"""Requests to stop: Ctrl-C, pre-emption, a terminal that closes."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

# Ctrl-C, pre-emption, and the end of the terminal (which Windows lacks).
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class StopSignals:
    """Within it, the first SIGINT, SIGTERM or SIGHUP is only noted.

    An exception raised by a signal gets lost, or aborts the process, where TensorFlow builds and
    traces: it calls Python from C++. A second signal does what it did before, or what
    `acknowledge` does. In a thread other than the main one, nothing changes. A signal that is
    ignored (nohup) stays ignored.

    Args:
        acknowledge: called with the number of a signal and the count of them so far, in a thread of
            its own: at once, while the main thread may compile for minutes in C++.
        numbers: the signals, those three by default.

    Attributes:
        received: the first signal.
    """

    def __init__(
        self,
        acknowledge: Callable[[int, int], None] | None = None,
        numbers: tuple[int, ...] = STOP_SIGNALS,
    ) -> None:
        self.received: int | None = None
        self._numbers = numbers
        self._acknowledge = acknowledge
        self._before: dict[int, Any] = {}
        self._watch: _Watch | None = None

    @property
    def by_hand(self) -> bool:
        """Whether it was Ctrl-C."""
        return self.received == signal.SIGINT

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in self._numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._request)
        if self._acknowledge:
            self._watch = _Watch(self._acknowledge, set(self._before))
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        if self._watch:
            self._watch.close()
            self._watch = None

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
        if self._acknowledge is None:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class _Watch:
    """Counts signals in a thread: Python's own handler writes each to a socket, from C."""

    def __init__(self, acknowledge: Callable[[int, int], None], numbers: set[int]) -> None:
        self._acknowledge = acknowledge
        self._numbers = numbers
        self._reader, self._writer = socket.socketpair()  # Windows takes no pipe
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._read, name="signals", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        count = 0
        while received := self._reader.recv(1):
            if (number := received[0]) in self._numbers:
                count += 1
                self._acknowledge(number, count)

    def close(self) -> None:
        signal.set_wakeup_fd(self._before)
        self._writer.close()
        self._thread.join()
        self._reader.close()
