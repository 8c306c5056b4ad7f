"""A search in a folder: what is searched, the identity that a resume must keep, and the run.

    from tuning import SearchPlan, Space, search
    space = Space(base=..., budget=Budget(macs=8_000_000), step=4)
    search(SearchPlan(space=space, recipe=...), data, folder)

Alone, or as chief or worker by KerasTuner's environment variables (`launcher` sets them).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine.trial import Trial

from keras_inception.atomic import write_text
from keras_inception.cost import network_cost
from keras_inception.data import ImageData
from keras_inception.loop import TrainingInterruptedError
from keras_inception.recipe import Recipe
from keras_inception.snapshot import require_same
from keras_inception.spec import NetworkSpec
from keras_inception.trainer import check_strategy
from tuning.oracle import EPOCHS_VALUE, ROUND_VALUE, TRIAL_VALUE
from tuning.oracles import Kind, make_oracle
from tuning.service import PATIENCE_SECONDS
from tuning.space import Space, Value
from tuning.training import TrialResult, at_resolution, hold_out, part_of, train_candidate
from tuning.trials import SEARCH_FILE, best_first, read_trials
from tuning.tuner import MendedTuner, is_worker

# What may be measured before a search, and lies in its folder.
LATENCY_FILE, TRUST_FILE = "latency.json", "trust.json"
OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")
# What may be a second objective: the less of it, the better.
COSTS = ("macs", "params")
VALIDATION_SHARE = 1 / 6


class SearchInterruptedError(keras_tuner.errors.FatalError):
    """A signal came in the middle of a trial; the same search goes on.

    Attributes:
        by_hand: whether it was Ctrl-C.
    """

    def __init__(self, message: str, *, by_hand: bool) -> None:
        super().__init__(message)
        self.by_hand = by_hand


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What is searched, and how; all but the number of trials must stay when it is taken up again.

    Attributes:
        space: of the networks.
        recipe: of the trials; its epochs are those of a full training.
        oracle: "tpe", "bayesian", "random" or "hyperband".
        max_trials: in all; with `round_epochs` in the first round; not of "hyperband".
        against: "macs" or "params" as a second objective beside the accuracy; None: one.
        round_epochs: for successive halving, the epochs at the end of each round; the last is at
            most the recipe's. For "hyperband" the one number that is the most a trial gets.
        resolution: train on images of this height and width; None: the space's.
        data_fraction: of the training images.
        validation_share: of the training images, held out to judge the trials.
        seed: of the proposals and of what is held out.
    """

    space: Space
    recipe: Recipe
    oracle: Kind = "tpe"
    max_trials: int = 30
    against: str | None = None
    round_epochs: tuple[int, ...] = ()
    resolution: int | None = None
    data_fraction: float = 1.0
    validation_share: float = VALIDATION_SHARE
    seed: int = 1

    def __post_init__(self) -> None:
        if self.against not in (None, *COSTS):
            raise ValueError(
                f"Expected a second objective among {', '.join(COSTS)}. "
                f"Received: against={self.against!r}"
            )
        if self.max_trials < 1 or self.seed < 1:  # KerasTuner takes 0 for no seed
            raise ValueError(
                "Expected max_trials and seed of 1 or more. "
                f"Received: max_trials={self.max_trials!r}, seed={self.seed!r}"
            )
        if self.round_epochs and self.round_epochs[-1] > self.recipe.epochs:
            raise ValueError(
                f"Expected rounds of at most the recipe's {self.recipe.epochs} epochs. "
                f"Received: round_epochs={self.round_epochs!r}"
            )
        self.make_oracle()  # refuses what the kind cannot do

    @property
    def trial_count(self) -> int:
        """Trials of all rounds, if none fails."""
        return getattr(self.make_oracle(), "trial_count", self.max_trials)

    @property
    def is_proxy(self) -> bool:
        """Whether trials are judged by less than a full training."""
        rounds_short = bool(self.round_epochs) and self.round_epochs[0] < self.recipe.epochs
        return rounds_short or self.resolution is not None or self.data_fraction < 1

    def make_oracle(self) -> keras_tuner.Oracle:
        """The mended oracle of the plan."""
        hyperparameters = keras_tuner.HyperParameters()
        self.space.declare(hyperparameters)
        second = self.against and keras_tuner.Objective(self.against, "min")
        return make_oracle(
            self.oracle,
            objective=OBJECTIVE,
            max_trials=self.max_trials,
            second=second or None,
            round_epochs=self.round_epochs,
            hyperparameters=hyperparameters,
            seed=self.seed,
            network_of=self.network_of,
        )

    def network_of(self, values: dict[str, Value]) -> str:
        """The network of a point as text: what makes two trials the same."""
        return self.space.spec(values).to_json()

    def identity(self, data: ImageData) -> dict[str, Any]:
        """What must be the same in all processes, and when the search is taken up again."""
        same = {
            "oracle": self.oracle,
            "against": self.against,
            "round_epochs": list(self.round_epochs),
            "resolution": self.resolution,
            "data_fraction": self.data_fraction,
            "validation_share": self.validation_share,
            "seed": self.seed,
        }
        return {
            "space": json.loads(self.space.to_json()),
            "recipe": json.loads(self.recipe.to_json()),
            "data": {
                "name": data.name,
                "training images": len(data.train),
                "classes": list(data.class_names),
            },
            "search": same | ({"max_trials": self.max_trials} if self.round_epochs else {}),
        }


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
