"""The training as data: a frozen recipe, validated, to and from JSON. Standard library only.

A recipe says how a network is trained, never what it is (`spec`) or on what (`data`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from keras_inception.spec.validation import (
    Migrations,
    from_fields,
    is_finite,
    json_document,
    require_choice,
    require_flags,
    require_integers,
    require_numbers,
    require_rates,
    require_title,
    tuple_of,
    unexpected,
)

SCHEMA_VERSION = 1
MIGRATIONS: Migrations = {}

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "staircase"]
Average = Literal["none", "uniform", "exponential"]
Precision = Literal["float32", "mixed_bfloat16"]
Crop = Literal["none", "paper"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        name: of the recipe, in messages and tables.
        epochs: passes over the training images.
        batch_size: images per step, over all devices together.
        micro_batches: equal parts into which each device splits its share of a batch. They are
            computed one after another, which needs less memory (gradient accumulation). The step
            stays the same.
        optimizer: "adamw" or "sgd".
        base_learning_rate: peak rate for a batch of 256; `learning_rate` scales it linearly.
        schedule: "cosine" falls to 0; "staircase" multiplies the rate by `decay_factor` every
            `decay_epochs` epochs.
        warmup: share of all steps in which the rate rises linearly from 0; cosine only.
        decay_factor: factor of the staircase, at most 1.
        decay_epochs: epochs between two stairs.
        weight_decay: share that a kernel loses in each step, times the rate; decoupled from the
            gradient. Biases and batch normalization's gamma and beta do not decay.
        momentum: of SGD.
        bias_rate: factor of the rate for biases of convolutions and classifiers; SGD only.
        patience: stop after this many epochs without a better held-out accuracy and keep the
            weights of the best epoch. 0: train to the last epoch.
        clip_norm: largest norm of the gradient of all weights together. 0: no limit.
        label_smoothing: probability spread evenly over all classes.
        class_weights: a factor of the loss for each class, in the order of the labels. (): all 1.
            "balanced": inversely proportional to the number of a class's training images, with
            mean 1 over all images.
        aux_loss_weight: weight of each auxiliary classifier's loss (section 5: .3).
        average: of the weights over the steps; the average is evaluated and saved. "uniform" is
            Polyak averaging, "exponential" has the decay `average_momentum`.
        average_momentum: decay of the exponential average in one step, less in early steps, so
            that the initial weights have no influence.
        average_start: share of all steps before averaging starts.
        precision: "mixed_bfloat16" computes in bfloat16 and keeps weights in float32.
        jit_compile: compile the step with XLA; one device only under TensorFlow.
        freeze_until: freeze every layer below this endpoint. None: train all layers.
        flip: mirror half of the training images left to right.
        shift: move training images by up to this many pixels in each direction; edges are mirrored.
        crop: "none" trains on the largest centred part with the shape of the input. "paper" trains
            on random parts of 8-100% of the area with aspect ratio 3/4-4/3 and random
            interpolation (section 6).
        photometric: distort contrast, brightness and colour at random (Howard, arXiv 1312.5402).
        mixup: alpha of the Beta distribution with which pairs of images are blended. 0: none.
        seed: of initialization, order, augmentation and dropout.
    """

    name: str
    epochs: int
    batch_size: int = 64
    micro_batches: int = 1
    optimizer: Optimizer = "adamw"
    base_learning_rate: float = 0.012
    schedule: Schedule = "cosine"
    warmup: float = 0.1
    decay_factor: float = 0.96
    decay_epochs: int = 8
    weight_decay: float = 0.02
    momentum: float = 0.9
    bias_rate: float = 1.0
    patience: int = 0
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | Literal["balanced"] = ()
    aux_loss_weight: float = 0.3
    average: Average = "none"
    average_momentum: float = 0.999
    average_start: float = 0.0
    precision: Precision = "float32"
    jit_compile: bool = False
    freeze_until: str | None = None
    flip: bool = True
    shift: int = 2
    crop: Crop = "none"
    photometric: bool = False
    mixup: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_title(self)
        require_choice(self, "optimizer", Optimizer)
        require_choice(self, "schedule", Schedule)
        require_choice(self, "average", Average)
        require_choice(self, "precision", Precision)
        require_integers(self, "epochs", "batch_size", "micro_batches", "decay_epochs")
        require_integers(self, "shift", "patience", least=0)
        require_integers(self, "seed", least=0, most=2**32 - 1)
        require_numbers(self, "base_learning_rate")
        require_rates(self, "warmup", "momentum", "label_smoothing", "weight_decay")
        require_rates(self, "aux_loss_weight", "average_momentum", "average_start")
        require_flags(self, "jit_compile")
        self._check_schedule()
        self._check_loss()
        self._check_augmentation()

    def _check_schedule(self) -> None:
        require_numbers(self, "decay_factor")
        if self.decay_factor > 1:
            raise unexpected(self, "decay_factor", "at most 1")
        if self.schedule != "cosine" and self.warmup:
            raise unexpected(self, "warmup", "0: only the cosine schedule warms up")
        require_numbers(self, "bias_rate")
        if self.optimizer != "sgd" and self.bias_rate != 1:
            raise unexpected(self, "bias_rate", "1: AdamW's steps do not scale with the gradient")
        if self.batch_size % self.micro_batches:
            raise unexpected(self, "micro_batches", f"a divisor of batch_size, {self.batch_size}")

    def _check_loss(self) -> None:
        require_numbers(self, "clip_norm", positive=False)
        if self.clip_norm < 0:
            raise unexpected(self, "clip_norm", "0 or more")
        weights = self.class_weights
        positive = isinstance(weights, tuple) and all(
            is_finite(weight) and weight >= 0 for weight in weights
        )
        if weights != "balanced" and (not positive or (weights and not any(weights))):
            raise unexpected(
                self, "class_weights", '"balanced", or a tuple of numbers of 0 or more, not all 0'
            )
        if self.freeze_until is not None and not isinstance(self.freeze_until, str):
            raise unexpected(self, "freeze_until", "an endpoint's name or None")

    def _check_augmentation(self) -> None:
        require_choice(self, "crop", Crop)
        require_numbers(self, "mixup", positive=False)
        if self.mixup < 0:
            raise unexpected(self, "mixup", "0 or more")
        require_flags(self, "flip", "photometric")

    @property
    def learning_rate(self) -> float:
        """Peak learning rate: base_learning_rate * batch_size / 256."""
        return self.base_learning_rate * self.batch_size / 256

    def steps_per_epoch(self, images: int) -> int:
        """Return the steps of an epoch over `images` training images: whole batches only."""
        return images // self.batch_size

    def total_steps(self, images: int) -> int:
        """Return the steps of all epochs over `images` training images."""
        return self.steps_per_epoch(images) * self.epochs

    def to_json(self) -> str:
        """Return JSON text with a schema version; `from_json` restores an equal recipe."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read the JSON of this or an older schema version; only "name" and "epochs" are required.

        Raises:
            ValueError: not JSON, a newer schema version, missing or unknown keys, invalid values.
        """
        data = json_document(text, "recipe", SCHEMA_VERSION, MIGRATIONS)
        return from_fields(cls, data, class_weights=tuple_of())


# Long enough for the bundled sample on two CPU cores in under three minutes.
QUICK = Recipe(name="quick", epochs=10)

# Section 6: SGD with momentum .9, 4% less rate every 8 epochs, Polyak averaging; section 5: the
# auxiliary losses weigh .3 (the dropout of .4 and .7 is in the spec). What the paper does not say
# is BVLC's models/bvlc_googlenet/solver.prototxt: rate .01 for a batch of 32 (so .08 for 256),
# 10,000,000 iterations (of 32 images, 1.28 million an epoch: 250 epochs), weight decay 2e-4. There
# the decay enters the gradient and with it the momentum, which adds up to 1 / (1 - .9) of it; here
# it stands beside the gradient, hence 2e-3. Biases learn at twice the rate and do not decay, as in
# its train_val.prototxt (`lr_mult: 2`, `decay_mult: 0`). The paper does not say either over which
# steps it averages: here, over the last half.
PAPER = Recipe(
    name="paper",
    epochs=250,
    batch_size=32,
    optimizer="sgd",
    base_learning_rate=0.08,
    schedule="staircase",
    warmup=0.0,
    weight_decay=2e-3,
    bias_rate=2.0,
    average="uniform",
    average_start=0.5,
    shift=0,
    crop="paper",
    photometric=True,
)

# What made networks of this family better since: cosine and warm-up, label smoothing, averages.
# docs/results-training.md has the curve of `medium` on Fashion-MNIST in full.
MODERN = Recipe(
    name="modern",
    epochs=30,
    batch_size=128,
    base_learning_rate=0.008,
    weight_decay=0.04,
    label_smoothing=0.1,
    average="exponential",
)

RECIPES = {recipe.name: recipe for recipe in (QUICK, PAPER, MODERN)}
