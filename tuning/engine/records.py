"""The shape of the JSON that a search keeps: what is valid JSON but no trial or state is refused.

A process that was killed, a disk that was full, or another program may have left anything there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from keras_inception.bounded import read_json
from keras_inception.spec.validation import is_finite, is_integer
from tuning.engine.control import TrialControl

_Document = TypeVar("_Document")

TRIAL_PREFIX = "trial_"
# KerasTuner's statuses of trials that are kept.
COMPLETED = "COMPLETED"
_STATUSES = (COMPLETED, "FAILED", "RUNNING", "INVALID", "IDLE", "STOPPED")
# The parts of its oracle.json, and of ours.
_ORACLE: dict[str, type] = {
    "ongoing_trials": dict,
    "hyperparameters": dict,
    "start_order": list,
    "end_order": list,
    "run_times": dict,
    "retry_queue": list,
    "seed": int,
    "seed_state": int,
    "tried_so_far": list,
    "id_to_hash": dict,
    "display": dict,
}


def read_or_set_aside(path: Path, read: Callable[[Path], _Document]) -> _Document | None:
    """What a file holds; None: no file, or one that `read` refuses, set aside with a warning."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        set_aside(path, error)
        return None


def set_aside(path: Path, error: Exception) -> None:
    """Rename a file that cannot be read, with a warning."""
    warnings.warn(f"{path} cannot be read ({error}) and is set aside.", stacklevel=3)
    path.replace(path.with_suffix(".unreadable"))


def trial_state(path: Path) -> dict[str, Any]:
    """The state of a trial.json, in which every part that is read later has its type.

    Raises:
        FileNotFoundError: no file.
        ValueError: no JSON, or of another shape.
    """
    state = read_json(path, "trial")
    point = _member(state, "hyperparameters", dict, path)
    values = _member(point, "values", dict, path)
    _member(point, "space", list, path)
    histories = _member(_member(state, "metrics", dict, path), "metrics", dict, path)
    number, status = _member(state, "trial_id", str, path), _member(state, "status", str, path)
    fits = (
        path.parent.name == TRIAL_PREFIX + number
        and number.isdecimal()
        and status in _STATUSES
        and (state.get("message") is None or isinstance(state["message"], str))
    )
    fits = fits and all(_is_value(value) for value in values.values())
    fits = fits and _controls_fit(values)
    fits = fits and all(_has_numbers(history, status) for history in histories.values())
    if status == COMPLETED:
        fits = fits and is_finite(state.get("score"))
    if not fits:
        raise _other_shape(path)
    return state


def oracle_state(path: Path) -> dict[str, Any]:
    """The state of an oracle.json; its trials may be missing from the folder.

    Raises:
        FileNotFoundError: no file.
        ValueError: no JSON, or of another shape.
    """
    state = read_json(path, "search")
    for key, kind in _ORACLE.items():
        _member(state, key, kind, path)
    for key in ("losses", "unknown_losses"):  # KerasTuner writes none
        losses = _member({key: {}} | state, key, dict, path)
        if not all(map(is_integer, losses.values())):
            raise _other_shape(path)
    texts = [
        *state["ongoing_trials"].values(),
        *(item for key in ("start_order", "end_order", "retry_queue") for item in state[key]),
    ]
    counts = [*state["run_times"].values()]
    numbers = [state["seed"], state["seed_state"], *counts]
    if not all(isinstance(text, str) for text in texts) or not all(map(is_integer, numbers)):
        raise _other_shape(path)
    if not all(isinstance(text, str) for text in state["tried_so_far"]):
        raise _other_shape(path)
    processes = _member({"processes": {}} | state, "processes", dict, path)
    if not all(isinstance(process, str) for process in processes.values()):
        raise _other_shape(path)
    for key in ("trial_start", "trial_number"):
        _member(state["display"], key, dict, path)
    return state


def _member(holder: Any, key: str, kind: type, path: Path) -> Any:
    if not isinstance(holder, dict) or not isinstance(holder.get(key), kind):
        raise _other_shape(path)
    return holder[key]


def _other_shape(path: Path) -> ValueError:
    return ValueError(f"Expected what a search writes. Received: {str(path)!r} of another shape")


def _is_value(value: Any) -> bool:
    return isinstance(value, str | bool) or is_finite(value)


def _controls_fit(values: dict[str, Any]) -> bool:
    control = TrialControl.of(values)
    counts = (control.epochs, control.initial_epoch, control.round, control.bracket, control.seed)
    texts = (control.parent, control.network, control.error, control.finalist)
    if isinstance(control.finalist, str) and not control.finalist.isdecimal():
        return False
    return all(count is None or is_integer(count) for count in counts) and all(
        text is None or isinstance(text, str) for text in texts
    )


def _has_numbers(history: Any, status: str) -> bool:
    """Whether a metric has observations of numbers, which are finite in a completed trial."""
    is_right = is_finite if status == COMPLETED else _is_number
    observations = history.get("observations") if isinstance(history, dict) else None
    return (
        isinstance(observations, list)
        and bool(observations)
        and history.get("direction") in ("min", "max")
        and all(
            isinstance(item, dict)
            and isinstance(item.get("value"), list)
            and item["value"]
            and all(map(is_right, item["value"]))
            and is_integer(item.get("step"))
            for item in observations
        )
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
