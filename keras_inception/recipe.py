"""The training as data: a frozen recipe, validated, to and from JSON. Standard library only.

A recipe says how a network is trained, never what it is (`spec`) or on what (`data`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Literal

from keras_inception.validation import (
    json_document,
    require_choice,
    require_flags,
    require_integers,
    require_keys,
    require_numbers,
    require_rates,
    require_title,
    unexpected,
)

SCHEMA_VERSION = 1

Optimizer = Literal["adamw", "sgd"]
Crop = Literal["none", "paper"]


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
        crop: "none" trains on the largest centred part of the input's shape; "paper" on random
            parts of 8-100% of the area and aspect ratio 3/4-4/3, randomly interpolated (section 6).
        photometric: distort contrast, brightness and colour at random (Howard, arXiv 1312.5402).
        mixup: alpha of the Beta distribution by which pairs of images are blended; 0 blends none.
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
    crop: Crop = "none"
    photometric: bool = False
    mixup: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_title(self)
        require_choice(self, "optimizer", Optimizer)
        require_integers(self, "epochs", "batch_size")
        require_integers(self, "shift", "seed", least=0)
        if self.seed >= 2**32:
            raise ValueError(f"Expected `seed` below 2^32. Received: seed={self.seed}")
        require_numbers(self, "base_learning_rate")
        require_rates(
            self, "warmup", "momentum", "label_smoothing", "weight_decay", "aux_loss_weight"
        )
        require_choice(self, "crop", Crop)
        require_numbers(self, "mixup", positive=False)
        if self.mixup < 0:
            raise unexpected(self, "mixup", "0 or more")
        require_flags(self, "flip", "photometric")

    @property
    def learning_rate(self) -> float:
        """Peak learning rate: base_learning_rate * batch_size / 256."""
        return self.base_learning_rate * self.batch_size / 256

    def to_json(self) -> str:
        """JSON text with a schema version; `from_json` gives an equal recipe back."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read what `to_json` wrote, or a shorter text: every field but two has a default.

        Raises:
            ValueError: not JSON, another schema version, missing or unknown keys, refused values.
        """
        data = json_document(text, "recipe", SCHEMA_VERSION)
        require_keys(cls, data, optional=_OPTIONAL)
        return cls(**data)


_OPTIONAL = tuple(item.name for item in fields(Recipe) if item.name not in ("name", "epochs"))

# Long enough for the embedded sample on two CPU cores in under three minutes.
QUICK = Recipe(name="quick", epochs=10)

RECIPES = {recipe.name: recipe for recipe in (QUICK,)}
