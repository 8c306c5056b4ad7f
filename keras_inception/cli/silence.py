"""How long a command has printed nothing. Standard library only."""

from __future__ import annotations

import time

_since = time.monotonic()


def end() -> None:
    """Note that a line is printed, or that a command begins."""
    global _since
    _since = time.monotonic()


def seconds() -> float:
    """Seconds since the last `end`."""
    return time.monotonic() - _since
