"""The files of a search: oracle.json, and trial.json and spec.json in a folder for each trial.

Each is written aside and renamed, so that a kill or a full disk leaves the old file. KerasTuner
writes in place; a file that it left half written is set aside when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_inception.bounded import read_text
from keras_inception.files import SPEC_FILE, write_text
from tuning.engine.records import TRIAL_PREFIX, read_or_set_aside, set_aside, trial_state

TRIAL_FILE = "trial.json"


class TrialFiles:
    """The trials' files in the folder of a search."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write_trial(self, trial_id: str, state: dict[str, Any]) -> None:
        """Write a trial's state."""
        write_text(self._folder_of(trial_id) / TRIAL_FILE, json.dumps(state))

    def read_trials(self) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Each trial's id and state, in order; None: it could not be read and is set aside."""
        for file in trial_files(self._folder):
            yield file.parent.name.removeprefix(TRIAL_PREFIX), read_or_set_aside(file, trial_state)

    def set_aside(self, trial_id: str, error: Exception) -> None:
        """Rename the state of a trial that cannot be used, with a warning."""
        set_aside(self._folder_of(trial_id) / TRIAL_FILE, error)

    def write_network(self, trial_id: str, text: str) -> None:
        """Write the network that a trial stands for."""
        write_text(self._folder_of(trial_id) / SPEC_FILE, text)

    def read_network(self, trial_id: str) -> str | None:
        """What `write_network` wrote; None: nothing."""
        file = self._folder / f"{TRIAL_PREFIX}{trial_id}" / SPEC_FILE
        return read_text(file) if file.exists() else None

    def _folder_of(self, trial_id: str) -> Path:
        folder = self._folder / f"{TRIAL_PREFIX}{trial_id}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def trial_files(folder: Path) -> list[Path]:
    """The trial.json of each trial of a search, in the order of their ids."""
    return sorted(folder.glob(f"{TRIAL_PREFIX}*/{TRIAL_FILE}"))
