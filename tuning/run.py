"""Run a search in a folder.

    from tuning import SearchPlan, Space, search
    space = Space(base=..., budget=Budget(macs=8_000_000), width_divisor=4)
    search(SearchPlan(space=space, recipe=...), data, folder)

Alone, or as chief or worker by KerasTuner's environment variables (`launcher` sets them).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial

from keras_inception.bounded import read_json
from keras_inception.cost.layers import network_cost
from keras_inception.data.record import write_record
from keras_inception.data.splits import ImageData
from keras_inception.files import DATA_FILE, write_text
from keras_inception.new_folders import begun
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.validation import derived_name
from keras_inception.training.progress import TrainingInterruptedError
from keras_inception.training.snapshot import require_same
from keras_inception.training.strategy import Strategy, check_strategy
from tuning.candidate import (
    TrialResult,
    at_resolution,
    hold_out,
    is_curve,
    subset,
    train_candidate,
)
from tuning.engine.control import TrialControl
from tuning.engine.pruning import STOPPED_EPOCH, is_behind
from tuning.engine.records import read_or_set_aside
from tuning.engine.service import RETRY_SECONDS
from tuning.engine.tuner import SearchTuner, is_worker
from tuning.plan import FIDELITY_FILE, LATENCY_FILE, SearchPlan
from tuning.trials import SEARCH_FILE, best_first, read_search, read_trials
from tuning.verdict import VERDICT_FILE, read_verdict

BEST_SPEC_FILE = "best_spec.json"
# In the folder of a trial: its accuracies after each epoch.
CURVE_FILE = "curve.json"


class SearchInterruptedError(keras_tuner.errors.FatalError):
    """A signal came in the middle of a trial; the search can be resumed.

    Attributes:
        by_hand: whether it was Ctrl-C.
    """

    def __init__(self, message: str, *, by_hand: bool) -> None:
        super().__init__(message)
        self.by_hand = by_hand


def search(
    plan: SearchPlan,
    data: ImageData,
    folder: str | os.PathLike[str],
    *,
    strategy: Strategy = None,
    trials_per_process: int | None = None,
    retry_seconds: float = RETRY_SECONDS,
) -> bool:
    """Run a search in a folder, or this process's part of it; resume the one that is there.

    The folder holds `search.json`, KerasTuner's `oracle.json`, a folder for each trial with
    `trial.json` and the network's `spec.json`, and at the end `best_spec.json` and `verdict.json`.
    `trials.read_trials` reads it, `report.page.write_report` shows it.

    Args:
        plan: what is searched.
        data: its test images are not used.
        folder: new, or of a search by the same plan.
        strategy: of `make_strategy`, for each training; None: one device.
        trials_per_process: trials after which a worker ends; None: only when the search ends.
        retry_seconds: seconds that a worker waits for a chief that does not answer.

    Returns:
        Whether the search has finished; False: this worker is to be restarted.

    Raises:
        ValueError: the folder holds another search (the message has the difference), the data do
            not fit, or another process searches there.
        SearchAbortedError: too many trials in a row failed.
        SearchInterruptedError: SIGTERM or SIGINT came.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    check_strategy(plan.recipe, strategy)
    identity = plan.identity(data)
    if not is_worker():
        claim(folder, identity)
        if not (folder / DATA_FILE).exists():
            write_record(folder, data)
    tuner = NetworkTuner(
        plan,
        data,
        folder,
        strategy=strategy,
        search_id=search_id(identity),
        trials_per_process=trials_per_process,
        retry_seconds=retry_seconds,
    )
    has_finished = tuner.search()
    if not is_worker():
        write_best_spec(folder)
    return has_finished


def search_id(identity: dict[str, Any]) -> str:
    """A digest of a search's identity, by which workers know the chief's search."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def claim(folder: str | os.PathLike[str], identity: dict[str, Any]) -> None:
    """Write the identity of a new search into its folder, or check that it is this search's.

    Raises:
        ValueError: the folder is another search's, or holds something else.
    """
    folder = Path(folder)
    if (folder / SEARCH_FILE).exists():
        require_same(_comparable(read_search(folder), identity), identity, "search", folder)
        return
    require_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SEARCH_FILE, json.dumps(identity, indent=2) + "\n")


def require_free(folder: Path) -> None:
    """Refuse the folder of a new search if it holds something else.

    Raises:
        ValueError: it does.
    """
    if folder.exists() and (not folder.is_dir() or _other_files(folder)):
        raise ValueError(
            f"Expected a new folder, or one of a search. Received: {str(folder)!r}, which holds "
            "other files. Choose another one."
        )


def _comparable(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The old identity; what an earlier version did not record of the data is taken from the new.

    It recorded the data's name, which may change, and no fingerprint.
    """
    if "fingerprint" in old["data"]:
        return old
    recorded = {key: value for key, value in old["data"].items() if key != "name"}
    return old | {"data": new["data"] | recorded}


def _other_files(folder: Path) -> list[Path]:
    """What was not written in preparation of a search."""
    own = (LATENCY_FILE, FIDELITY_FILE)
    return [item for item in folder.iterdir() if item.name not in own and item.name[0] != "."]


def best_spec(folder: str | os.PathLike[str]) -> NetworkSpec | None:
    """The best network of a search: the best finalist, by the mean over its seeds.

    Without finalists it is the network of the best trial; None: no trial was completed.
    """
    if (found := read_verdict(folder)) is not None:
        best = found.finalists[0].spec
    elif trials := best_first(read_trials(folder)):
        best = trials[0].spec
    else:
        return None
    return replace(best, name=derived_name(best.name, "_tuned"))


def write_best_spec(folder: Path) -> None:
    """Write best_spec.json, if a trial was completed, and verdict.json, if finalists were."""
    if (best := best_spec(folder)) is not None:
        write_text(folder / BEST_SPEC_FILE, best.to_json())
    if (found := read_verdict(folder)) is not None:
        write_text(folder / VERDICT_FILE, found.to_json())


def read_curves(folder: Path) -> list[list[float]]:
    """The learning curves of the trials that have ended in the folder of a search.

    A file that holds none is set aside, with a warning.
    """
    files = sorted(folder.glob(f"trial_*/{CURVE_FILE}"))
    return [curve for file in files if (curve := read_or_set_aside(file, _curve))]


def _curve(path: Path) -> list[float]:
    curve: list[float] = read_json(path, "curve")
    if not is_curve(curve):
        raise ValueError(
            f"Expected the accuracies of a trial. Received: {str(path)!r} of another shape"
        )
    return curve


class NetworkTuner(SearchTuner):
    """Trains the networks of a plan.

    Args:
        plan: of the search.
        data: as for `search`.
        folder: of the search.
        strategy: for each training; None: one device.
        settings: of `SearchTuner`.
    """

    def __init__(
        self,
        plan: SearchPlan,
        data: ImageData,
        folder: str | os.PathLike[str],
        *,
        strategy: Strategy = None,
        **settings: Any,
    ) -> None:
        super().__init__(plan.make_oracle(), Path(folder), **settings)
        self._folder = Path(folder)
        self._plan = plan
        # Training images alone: those of finalists, and those of the other trials.
        self._final_data = hold_out(data, plan.validation_share, plan.seed)
        self._data = subset(self._final_data, plan.data_fraction, plan.seed)
        self._strategy = strategy

    def run_trial(self, trial: Trial, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """Train the trial's network; the numbers of `TrialResult`, and its cost."""
        spec = NetworkSpec.from_json(str(self.network_of(trial)))
        result = self._train(trial, spec)
        cost = network_cost(spec).total
        self._keep_curve(trial, result.curve)
        stopped = {STOPPED_EPOCH: float(len(result.curve))} if result.stopped else {}
        return stopped | {
            "val_accuracy": result.accuracy,
            "val_loss": result.loss,
            "macs": float(cost.macs),
            "params": float(cost.params),
            "training_seconds": result.training_seconds,
            "evaluation_seconds": result.evaluation_seconds,
            "seconds": result.seconds,
        }

    def _train(self, trial: Trial, spec: NetworkSpec) -> TrialResult:
        control = TrialControl.of(trial.hyperparameters.values)
        parent, is_final = control.parent, control.finalist is not None
        recipe = self._plan.recipe
        try:
            return train_candidate(
                spec if is_final else at_resolution(spec, self._plan.resolution),
                self._final_data if is_final else self._data,
                recipe if control.seed is None else replace(recipe, seed=control.seed),
                epochs=control.epochs or recipe.epochs,
                folder=self._folder_of(trial.trial_id) if self._may_continue(control) else None,
                start_from=None if parent is None else self._folder_of(parent),
                strategy=self._strategy,
                after_step=lambda: self._after_step(trial),
                after_epoch=lambda curve: not is_final and self._is_behind(curve),
            )
        except TrainingInterruptedError as error:
            raise SearchInterruptedError(str(error), by_hand=error.by_hand) from error

    def _after_step(self, trial: Trial) -> None:
        begun(self._folder)
        self.heartbeat(trial)

    def _is_behind(self, curve: list[float]) -> bool:
        """Whether a trial falls behind those that have ended, by the curves in this folder."""
        if self._plan.pruning == "none":
            return False
        return is_behind(self._plan.pruning, curve, read_curves(Path(self.project_dir)))

    def _keep_curve(self, trial: Trial, curve: Sequence[float]) -> None:
        if TrialControl.of(trial.hyperparameters.values).finalist is None and curve:
            folder = self._folder_of(trial.trial_id)
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / CURVE_FILE, json.dumps(curve))

    def _may_continue(self, control: TrialControl) -> bool:
        """Whether the training may be continued by a trial of a later round.

        Hyperband's rounds are its own: any trial may be.
        """
        if control.finalist is not None:
            return False
        last_round = len(self._plan.halving_epochs) - 1
        return self._plan.oracle == "hyperband" or (control.round or 0) < last_round

    def _folder_of(self, trial_id: str) -> Path:
        return Path(self.get_trial_dir(trial_id))
