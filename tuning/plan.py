"""The plan of a search: space, recipe, oracle, fidelity, and what must not change on resume."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any, get_args

import keras_tuner

from keras_inception.data.record import identity as data_identity
from keras_inception.data.splits import ImageData
from keras_inception.spec.recipe import Recipe
from keras_inception.wording import counted
from tuning.engine.finals import Finals
from tuning.engine.oracle import SearchOracle
from tuning.engine.oracles import Kind, make_oracle
from tuning.engine.pruning import Pruning
from tuning.space import Space, Value

# What may be measured before a search, in its folder.
LATENCY_FILE, FIDELITY_FILE = "latency.json", "fidelity.json"
OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")
# Of the numbers that every trial reports; a longer time than a year is no time.
_SECONDS = (0.0, 366 * 24 * 3600.0)
BOUNDS = {
    "val_accuracy": (0.0, 1.0),
    "val_loss": (0.0, math.inf),
    "macs": (1.0, math.inf),
    "params": (1.0, math.inf),
    "training_seconds": _SECONDS,
    "evaluation_seconds": _SECONDS,
    "seconds": _SECONDS,
}
# What may be a second objective, minimized.
COSTS = ("macs", "params")
VALIDATION_SHARE = 1 / 6


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What is searched, and how.

    All but the numbers of trials, finalists and seeds must be the same on resume.

    Attributes:
        space: of the networks.
        recipe: of the trials; its epochs are those of a full training.
        oracle: "tpe", "bayesian", "random" or "hyperband".
        max_trials: in all; with `halving_epochs` in the first round; ignored by "hyperband".
        second_objective: "macs" or "params", minimized beside the accuracy; None: accuracy alone.
        halving_epochs: for successive halving, the epochs at the end of each round, at most the
            recipe's. For "hyperband" one number, the most epochs of a trial.
        resolution: height and width in pixels to train on; None: the space's.
        data_fraction: of the training images, above 0, up to 1.
        validation_share: of the training images, held out to evaluate the trials.
        pruning: stops a trial whose accuracy after an epoch falls behind that of others:
            "median" or "halving", by Optuna's pruners, or "none". Not with a second objective:
            cheap networks would fall behind.
        finalists: the best networks, which are trained fully at the end, on all training images
            but the held-out ones; 0: none.
        seeds: trainings of each finalist, by the seeds after the recipe's.
        seed: of the proposals and of the choice of held-out images, 1 or more.
    """

    space: Space
    recipe: Recipe
    oracle: Kind = "tpe"
    max_trials: int = 30
    second_objective: str | None = None
    halving_epochs: tuple[int, ...] = ()
    resolution: int | None = None
    data_fraction: float = 1.0
    validation_share: float = VALIDATION_SHARE
    pruning: Pruning = "none"
    finalists: int = 5
    seeds: int = 2
    seed: int = 1

    def __post_init__(self) -> None:
        if self.second_objective not in (None, *COSTS):
            raise ValueError(
                f"Expected a second objective among {', '.join(COSTS)}. "
                f"Received: second_objective={self.second_objective!r}"
            )
        if self.max_trials < 1 or self.seed < 1:  # KerasTuner takes 0 for no seed
            raise ValueError(
                "Expected max_trials and seed of 1 or more. "
                f"Received: max_trials={self.max_trials!r}, seed={self.seed!r}"
            )
        if self.pruning not in get_args(Pruning):
            raise ValueError(
                f"Expected pruning among {', '.join(get_args(Pruning))}. "
                f"Received: pruning={self.pruning!r}"
            )
        if self.pruning != "none" and self.second_objective:
            raise ValueError(
                "Expected no pruning with a second objective, whose cheap networks fall behind. "
                f"Received: pruning={self.pruning!r}"
            )
        if self.finalists < 0 or self.seeds < 1:
            raise ValueError(
                "Expected finalists of 0 or more, and seeds of 1 or more. "
                f"Received: finalists={self.finalists!r}, seeds={self.seeds!r}"
            )
        if self.halving_epochs and self.halving_epochs[-1] > self.recipe.epochs:
            raise ValueError(
                f"Expected rounds of at most the recipe's {counted(self.recipe.epochs, 'epoch')}. "
                f"Received: halving_epochs={self.halving_epochs!r}"
            )
        self.make_oracle()  # refuses what the kind cannot do

    @property
    def trial_count(self) -> int:
        """Trials of all rounds, and trainings of the finalists, if none fails."""
        return self.make_oracle().trial_count or self.max_trials

    @property
    def search_trial_count(self) -> int:
        """Trials of all rounds, if none fails."""
        return replace(self, finalists=0).trial_count

    @property
    def is_proxy(self) -> bool:
        """Whether the first round compares networks by less than a full training."""
        return (
            self.first_epochs < self.recipe.epochs
            or self.resolution is not None
            or self.data_fraction < 1
        )

    @property
    def first_epochs(self) -> int:
        """Epochs of the first round."""
        return self.halving_epochs[0] if self.halving_epochs else self.recipe.epochs

    def make_oracle(self) -> SearchOracle:
        """The oracle of the plan."""
        hyperparameters = keras_tuner.HyperParameters()
        self.space.declare(hyperparameters)
        cost = self.second_objective
        return make_oracle(
            self.oracle,
            objective=OBJECTIVE,
            max_trials=self.max_trials,
            second_objective=keras_tuner.Objective(cost, "min") if cost else None,
            halving_epochs=self.halving_epochs,
            hyperparameters=hyperparameters,
            seed=self.seed,
            network_of=self.network_of,
            bounds=BOUNDS,
            finals=self.finals,
        )

    @property
    def finals(self) -> Finals | None:
        """The last stage; None: there is none."""
        first = self.recipe.seed + 1  # the trials had the recipe's
        return (
            Finals(
                finalists=self.finalists,
                seeds=tuple(range(first, first + self.seeds)),
                epochs=self.recipe.epochs,
            )
            if self.finalists
            else None
        )

    def network_of(self, values: dict[str, Value]) -> str:
        """The network of a point, as the JSON text that its trial keeps."""
        return self.space.spec(values).to_json()

    def identity(self, data: ImageData) -> dict[str, Any]:
        """What must be the same in all processes, and on resume."""
        same = {
            "oracle": self.oracle,
            "second_objective": self.second_objective,
            "halving_epochs": list(self.halving_epochs),
            "resolution": self.resolution,
            "data_fraction": self.data_fraction,
            "validation_share": self.validation_share,
            "seed": self.seed,
            "pruning": self.pruning,
        }
        return {
            "space": json.loads(self.space.to_json()),
            "recipe": json.loads(self.recipe.to_json()),
            "data": data_identity(data),
            "search": same | ({"max_trials": self.max_trials} if self.halving_epochs else {}),
        }
