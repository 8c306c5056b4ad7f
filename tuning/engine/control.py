"""What chief and workers say to each other about a trial, beside the point that it evaluates.

KerasTuner's protocol has no fields for it, so it travels as hyperparameter values whose names begin
with "tuner/". They become a `TrialControl`, and come from one, in this module alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

_PREFIX = "tuner/"
# These names are KerasTuner's: its Hyperband writes and reads them. Others are the field's own.
_KEYS = {"parent": "trial_id"}
# The value of the space by which a worker knows that it takes part in the chief's search.
SEARCH_KEY = f"{_PREFIX}search"


@dataclass(frozen=True, kw_only=True)
class TrialControl:
    """How far a trial is trained, and what it is sent with.

    Attributes:
        parent: the trial whose training it continues.
        epochs: complete ones at its end; None: the recipe's.
        initial_epoch: those that its parent was trained for.
        round: of successive halving, from 0.
        bracket: of Hyperband.
        finalist: the trial whose network it trains in the last stage.
        seed: of its training; None: the recipe's.
        network: the network to train, as text. Sent to a worker, which then trains what the chief
            has stored, whatever its own version makes of the point.
        error: why the trial failed. Sent by a worker, as the protocol has no messages.
    """

    parent: str | None = None
    epochs: int | None = None
    initial_epoch: int | None = None
    round: int | None = None
    bracket: int | None = None
    finalist: str | None = None
    seed: int | None = None
    network: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TrialControl:
        """Read it from the values of a trial's hyperparameters."""
        return cls(**{item.name: values.get(_key(item.name)) for item in fields(cls)})

    def to_values(self) -> dict[str, Any]:
        """As hyperparameter values; None is left out."""
        own = {_key(item.name): getattr(self, item.name) for item in fields(self)}
        return {key: value for key, value in own.items() if value is not None}


def point_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the search space alone, without control data."""
    return {name: value for name, value in values.items() if not name.startswith(_PREFIX)}


def _key(field: str) -> str:
    return _PREFIX + _KEYS.get(field, field)
