"""Which worker was heard of when, and how many processes each trial has lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

LEASE_SECONDS = 120.0


class Leases:
    """A trial is lent to a worker, which renews the lease by heartbeats.

    Args:
        seconds: without a heartbeat, after which a lease expires.
        clock: seconds that rise.

    Attributes:
        losses: processes that ended while they ran a trial, by the trial's id.
    """

    def __init__(
        self, seconds: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self.losses: Counter[str] = Counter()
        self._clock = clock
        self._renewed: dict[str, float] = {}

    def renew(self, worker: str) -> None:
        """Note a heartbeat."""
        self._renewed[worker] = self._clock()

    def restart(self, workers: Iterable[str]) -> None:
        """Give these workers a new lease each, after a restart of the chief."""
        self._renewed = dict.fromkeys(workers, self._clock())

    def take_expired(self) -> list[str]:
        """The workers whose leases have expired; they are forgotten."""
        oldest = self._clock() - self.seconds
        expired = [worker for worker, renewed in self._renewed.items() if renewed < oldest]
        for worker in expired:
            del self._renewed[worker]
        return expired
