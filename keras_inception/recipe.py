"""The training as data: a frozen recipe, validated, to and from JSON. Standard library only.

A recipe says how a network is trained, never what it is (`spec`) or on what (`data`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

SCHEMA_VERSION = 1

Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Fields:
        epochs: passes over the training images.
        batch_size: images per step, over all devices together.
        base_learning_rate: peak rate for a batch of 256; `learning_rate` scales it linearly.
        warmup: share of all steps in which the rate rises linearly from 0; a cosine to 0 follows.
        weight_decay: AdamW's decoupled decay, or SGD's.
        momentum: of SGD.
        label_smoothing: probability spread evenly over all classes.
        aux_loss_weight: weight of each auxiliary classifier's loss (section 5: .3).
        flip: mirror half of the training images.
        shift: move training images by up to this many pixels in each direction, edges repeated.
        seed: of initialization, order, augmentation and dropout.
    """

    name: str
    epochs: int
    batch_size: int = 64
    optimizer: Optimizer = "adamw"
    base_learning_rate: float = 0.012
    warmup: float = 0.1
    weight_decay: float = 0.02
    momentum: float = 0.9
    label_smoothing: float = 0.0
    aux_loss_weight: float = 0.3
    flip: bool = True
    shift: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(Optimizer):
            raise ValueError(
                f"Expected `optimizer` among {get_args(Optimizer)}. Received: {self.optimizer!r}"
            )
        for label, least in (("epochs", 1), ("batch_size", 1), ("shift", 0), ("seed", 0)):
            value = getattr(self, label)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"Expected `{label}` to be an integer of {least} or more. "
                    f"Received: {label}={value!r}"
                )
        if not self.base_learning_rate > 0:
            raise ValueError(
                "Expected a positive `base_learning_rate`. "
                f"Received: base_learning_rate={self.base_learning_rate!r}"
            )
        for label in ("warmup", "momentum", "label_smoothing", "weight_decay", "aux_loss_weight"):
            value = getattr(self, label)
            if not 0 <= value < 1:
                raise ValueError(
                    f"Expected `{label}` from 0 up to, not including, 1. "
                    f"Received: {label}={value!r}"
                )

    @property
    def learning_rate(self) -> float:
        """Peak learning rate: base_learning_rate * batch_size / 256."""
        return self.base_learning_rate * self.batch_size / 256

    def to_json(self) -> str:
        """JSON text with a schema version; `from_json` gives an equal recipe back."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read what `to_json` wrote.

        Raises:
            ValueError: not JSON, another schema version, missing or unknown keys, refused values.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"Expected the JSON of a recipe. Received text that is not: {error}"
            ) from error
        if not isinstance(data, dict) or data.pop("schema_version", None) != SCHEMA_VERSION:
            raise ValueError(
                f"Expected a recipe with schema_version {SCHEMA_VERSION}. Received another "
                "document or version."
            )
        unknown = sorted(set(data) - {item.name for item in fields(cls)})
        missing = sorted({"name", "epochs"} - set(data))
        if unknown or missing:
            raise ValueError(
                f"Expected the keys of Recipe. Received: missing keys {missing}, "
                f"unknown keys {unknown}"
            )
        return cls(**data)


# Long enough for the embedded sample on two CPU cores in under three minutes.
QUICK = Recipe(name="quick", epochs=10)

RECIPES = {recipe.name: recipe for recipe in (QUICK,)}
