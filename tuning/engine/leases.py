"""Which worker was heard of when, in which process it is, and how many each trial has lost."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from keras_inception.wording import counted

LEASE_SECONDS = 120.0
_PREFIX = "keras-inception-"


class Cause(StrEnum):
    """Why a process ended while it ran a trial."""

    OWN = "own"  # it died by itself: a crash, or out of memory
    OUTSIDE = "outside"  # SIGTERM, or the launcher or the machine ended with it
    UNKNOWN = "unknown"  # it vanished, or was killed for a reason that nothing shows


# Processes that may end for that cause while they run a trial before the trial has failed. The
# second number is large, as others than the trial may be the reason, but a search shall end.
MAX_LOSSES = {Cause.OWN: 3, Cause.UNKNOWN: 20}


@dataclass(frozen=True, kw_only=True)
class ProcessReport:
    """What a worker's process says of itself, and its launcher of the process before it.

    Attributes:
        process: its identity.
        predecessor: the identity of the process before it under the same name; "": none is known.
        cause: why the predecessor ended.
    """

    process: str = field(default_factory=lambda: secrets.token_hex(8))
    predecessor: str = ""
    cause: Cause = Cause.OUTSIDE

    @classmethod
    def from_environment(cls) -> ProcessReport:
        """Read what `to_environment` made; without it, a new process with no predecessor."""
        return cls.of({name: os.environ.get(_variable(name), "") for name in _FIELDS})

    def to_environment(self) -> dict[str, str]:
        """As environment variables."""
        return {_variable(name): str(getattr(self, name)) for name in _FIELDS}

    @classmethod
    def from_metadata(cls, metadata: Iterable[tuple[str, Any]]) -> ProcessReport:
        """Read what `to_metadata` made."""
        sent = dict(metadata)
        return cls.of({name: str(sent.get(_PREFIX + name, "")) for name in _FIELDS})

    def to_metadata(self) -> list[tuple[str, str]]:
        """As metadata of a call."""
        return [(_PREFIX + name, str(getattr(self, name))) for name in _FIELDS]

    @classmethod
    def of(cls, values: Mapping[str, str]) -> ProcessReport:
        """Read it from text; what is missing has its default."""
        known: dict[str, Any] = {name: value for name, value in values.items() if value}
        if (cause := known.get("cause")) is not None:
            known["cause"] = Cause(cause) if cause in list(Cause) else Cause.UNKNOWN
        return cls(**known)

    def cause_of(self, process: str) -> Cause:
        """Why another process under the same name has ended."""
        return self.cause if self.predecessor == process else Cause.OUTSIDE


_FIELDS = ("process", "predecessor", "cause")


def _variable(name: str) -> str:
    return (_PREFIX + name).replace("-", "_").upper()


class Leases:
    """A trial is lent to a worker, which renews the lease by heartbeats.

    Args:
        seconds: without a heartbeat, after which a lease expires.
        clock: seconds that rise.

    Attributes:
        losses: processes that ended while they ran a trial, by the trial's id, for each cause.
        processes: by worker, the process that has a trial.
    """

    def __init__(
        self, seconds: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self.losses: dict[Cause, Counter[str]] = {cause: Counter() for cause in MAX_LOSSES}
        self.processes: dict[str, str] = {}
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

    def count_loss(self, trial_id: str, cause: Cause) -> str | None:
        """Count a lost process; why the trial has failed, or None: it may run again."""
        if cause not in self.losses:
            return None
        self.losses[cause][trial_id] += 1
        count = self.losses[cause][trial_id]
        if count < MAX_LOSSES[cause]:
            return None
        how = "died by themselves, such as by a crash or out of memory,"
        if cause is Cause.UNKNOWN:
            how = "vanished or were killed for an unknown reason"
        return f"{counted(count, 'process')} {how} while they ran this trial"

    def get_state(self) -> dict[str, Any]:
        """What oracle.json holds of it."""
        return {
            "losses": dict(self.losses[Cause.OWN]),
            "unknown_losses": dict(self.losses[Cause.UNKNOWN]),
            "processes": self.processes,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Set what `get_state` returned; earlier versions had the losses alone."""
        self.losses[Cause.OWN].update(state.get("losses", {}))
        self.losses[Cause.UNKNOWN].update(state.get("unknown_losses", {}))
        self.processes = dict(state.get("processes", {}))
