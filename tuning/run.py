"""A search in a folder: what is searched, the identity that a resume must keep, and the run.

    from tuning import SearchPlan, Space, search
    space = Space(base=..., budget=Budget(macs=8_000_000), step=4)
    search(SearchPlan(space=space, recipe=...), data, folder)

Alone, or as chief or worker by KerasTuner's environment variables (`launcher` sets them).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine.trial import Trial

from keras_inception.cost.layers import network_cost
from keras_inception.data.splits import ImageData
from keras_inception.files import write_text
from keras_inception.spec.network import NetworkSpec
from keras_inception.training.loop import TrainingInterruptedError
from keras_inception.training.snapshot import require_same
from keras_inception.training.step import check_strategy
from tuning.candidate import TrialResult, at_resolution, hold_out, part_of, train_candidate
from tuning.engine.oracle import EPOCHS_VALUE, ROUND_VALUE, TRIAL_VALUE
from tuning.engine.service import PATIENCE_SECONDS
from tuning.engine.tuner import MendedTuner, is_worker
from tuning.plan import LATENCY_FILE, TRUST_FILE, SearchPlan
from tuning.trials import SEARCH_FILE, best_first, read_trials


class SearchInterruptedError(keras_tuner.errors.FatalError):
    """A signal came in the middle of a trial; the same search goes on.

    Attributes:
        by_hand: whether it was Ctrl-C.
    """

    def __init__(self, message: str, *, by_hand: bool) -> None:
        super().__init__(message)
        self.by_hand = by_hand


def search(
    plan: SearchPlan,
    data: ImageData,
    folder: Path,
    *,
    strategy: tf.distribute.Strategy | None = None,
    trials_per_process: int | None = None,
    patience: float = PATIENCE_SECONDS,
) -> bool:
    """Run a search in a folder, or this process's part of it; in the same folder it goes on.

    The folder holds KerasTuner's project (`oracle.json`, `trial_*/trial.json`), `search.json`, and
    at the end `best_spec.json`. `trials.read_trials` reads it, `report.write_report` shows it.

    Args:
        plan: what is searched.
        data: its test images are not looked at.
        folder: new, or of a search by the same plan.
        strategy: of `make_strategy`, for each training; None: one device.
        trials_per_process: a worker ends after so many.
        patience: seconds that a worker waits for its chief.

    Returns:
        Whether the search is over; False: this worker is to be started again.

    Raises:
        ValueError: the folder's search is another one (the difference is told), the data do not
            fit, or another process searches there.
        SearchAbortedError: too many trials in a row failed.
        SearchInterruptedError: SIGTERM or SIGINT came.
        OSError: the folder cannot be written.
    """
    check_strategy(plan.recipe, strategy or tf.distribute.get_strategy())
    identity = plan.identity(data)
    text = json.dumps(identity, sort_keys=True)
    if not is_worker():
        claim(folder, identity)
    tuner = NetworkTuner(
        plan,
        part_of(hold_out(data, plan.validation_share, plan.seed), plan.data_fraction, plan.seed),
        folder,
        strategy=strategy,
        search_id=hashlib.sha256(text.encode()).hexdigest()[:16],
        trials_per_process=trials_per_process,
        patience=patience,
    )
    over = tuner.search()
    if not is_worker() and (best := best_spec(folder)) is not None:
        write_text(folder / "best_spec.json", best.to_json())
    return over


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Write the identity of a new search into its folder.

    Raises:
        ValueError: the folder is another search's, or holds something else.
    """
    file = folder / SEARCH_FILE
    if file.exists():
        require_same(json.loads(file.read_text(encoding="utf-8")), identity, "search", folder)
        return
    if folder.exists() and (not folder.is_dir() or _others(folder)):
        raise ValueError(
            f"Expected a new folder, or one of a search. Received: {str(folder)!r}, which holds "
            "other files. Choose another one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(identity, indent=2) + "\n")


def _others(folder: Path) -> list[Path]:
    """What was not put there in preparation of a search."""
    own = (LATENCY_FILE, TRUST_FILE)
    return [item for item in folder.iterdir() if item.name not in own and item.name[0] != "."]


def best_spec(folder: Path) -> NetworkSpec | None:
    """The best network of a search; None: no trial was completed."""
    best = best_first(read_trials(folder))
    return replace(best[0].spec, name=f"{best[0].spec.name}_tuned") if best else None


class NetworkTuner(MendedTuner):
    """Trains the networks of a plan."""

    def __init__(
        self,
        plan: SearchPlan,
        data: ImageData,
        folder: Path,
        *,
        strategy: tf.distribute.Strategy | None,
        search_id: str,
        trials_per_process: int | None,
        patience: float,
    ) -> None:
        super().__init__(
            plan.make_oracle(),
            folder,
            search_id=search_id,
            trials_per_process=trials_per_process,
            patience=patience,
        )
        self._plan = plan
        self._data = data
        self._strategy = strategy

    def run_trial(self, trial: Trial, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """Train the trial's network; the numbers of `TrialResult`, and its cost."""
        spec = self._plan.space.spec(trial.hyperparameters.values)
        result = self._train(trial, spec)
        cost = network_cost(spec).total
        return {
            "val_accuracy": result.accuracy,
            "val_loss": result.loss,
            "macs": float(cost.macs),
            "params": float(cost.params),
            "training_seconds": result.training_seconds,
            "evaluation_seconds": result.evaluation_seconds,
            "seconds": result.seconds,
        }

    def _train(self, trial: Trial, spec: NetworkSpec) -> TrialResult:
        values, rounds = trial.hyperparameters.values, self._plan.round_epochs
        # Hyperband has rounds of its own; what it trains on is not known here.
        last = self._plan.oracle != "hyperband" and values.get(ROUND_VALUE, 0) + 1 >= len(rounds)
        try:
            return train_candidate(
                at_resolution(spec, self._plan.resolution),
                self._data,
                self._plan.recipe,
                epochs=values.get(EPOCHS_VALUE, self._plan.recipe.epochs),
                folder=None if last else self._folder_of(trial.trial_id),
                start_from=self._folder_of(values[TRIAL_VALUE]) if TRIAL_VALUE in values else None,
                strategy=self._strategy,
                after_step=lambda: self.beat(trial),
            )
        except TrainingInterruptedError as error:
            raise SearchInterruptedError(str(error), by_hand=error.by_hand) from error

    def _folder_of(self, trial_id: str) -> Path:
        return Path(self.get_trial_dir(trial_id))
