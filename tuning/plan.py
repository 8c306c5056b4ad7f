"""What a search is: space, data, budget, recipe, kind, and the identity that a resume keeps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import keras_tuner

from keras_inception.data.splits import ImageData
from keras_inception.spec.recipe import Recipe
from tuning.engine.oracles import Kind, make_oracle
from tuning.space import Space, Value

# What may be measured before a search, and lies in its folder.
LATENCY_FILE, TRUST_FILE = "latency.json", "trust.json"


OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")


# What may be a second objective: the less of it, the better.
COSTS = ("macs", "params")


VALIDATION_SHARE = 1 / 6


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
