"""Recipes: refused values and the reasons, the scaled learning rate, JSON round trip."""

import json
import re
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from keras_inception.spec.recipe import QUICK, RECIPES, Recipe

FULL = Recipe(
    name="full",
    epochs=3,
    batch_size=128,
    optimizer="sgd",
    base_learning_rate=0.1,
    warmup=0.05,
    weight_decay=0.0002,
    momentum=0.5,
    label_smoothing=0.1,
    aux_loss_weight=0.2,
    flip=False,
    shift=0,
    seed=7,
    micro_batches=4,
    clip_norm=2.0,
    class_weights=(1.0, 0.5),
    average="exponential",
    average_momentum=0.9,
    average_start=0.25,
    precision="mixed_bfloat16",
    jit_compile=True,
    freeze_until="4a",
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "`name` of Recipe '' to be text without slashes"),
        ({"name": "../x"}, "text without slashes"),
        ({"name": 3}, "text without slashes"),
        ({"epochs": 0}, "a positive integer. Received: epochs=0"),
        ({"epochs": 2.0}, "a positive integer. Received: epochs=2.0"),
        ({"epochs": True}, "a positive integer. Received: epochs=True"),
        ({"batch_size": 0}, "a positive integer. Received: batch_size=0"),
        ({"batch_size": "64"}, "a positive integer. Received: batch_size='64'"),
        ({"shift": -1}, "an integer of 0 or more. Received: shift=-1"),
        ({"seed": -1}, "an integer of 0 or more. Received: seed=-1"),
        ({"seed": None}, "an integer of 0 or more. Received: seed=None"),
        ({"optimizer": "adam"}, "one of ('adamw', 'sgd'). Received: optimizer='adam'"),
        ({"optimizer": []}, "one of ('adamw', 'sgd'). Received: optimizer=[]"),
        ({"base_learning_rate": 0}, "a positive finite number. Received: base_learning_rate=0"),
        ({"base_learning_rate": "0.1"}, "a positive finite number"),
        ({"base_learning_rate": float("nan")}, "a positive finite number"),
        ({"base_learning_rate": float("inf")}, "a positive finite number"),
        ({"warmup": 1}, "from 0 up to, not including, 1. Received: warmup=1"),
        ({"warmup": "x"}, "from 0 up to, not including, 1. Received: warmup='x'"),
        ({"momentum": 1.0}, "from 0 up to, not including, 1. Received: momentum=1.0"),
        ({"label_smoothing": -0.1}, "from 0 up to, not including, 1. Received: label_smoothing"),
        ({"weight_decay": 1}, "from 0 up to, not including, 1. Received: weight_decay=1"),
        ({"aux_loss_weight": None}, "not including, 1. Received: aux_loss_weight=None"),
        ({"flip": 1}, "True or False. Received: flip=1"),
        ({"seed": 2**32}, "to be at most 4,294,967,295. Received: seed=4294967296"),
        ({"micro_batches": 3}, "a divisor of batch_size, 64. Received: micro_batches=3"),
        ({"schedule": "staircase"}, "only the cosine schedule warms up. Received: warmup=0.1"),
        ({"decay_factor": 1.5}, "at most 1. Received: decay_factor=1.5"),
        ({"decay_epochs": 0}, "a positive integer. Received: decay_epochs=0"),
        ({"clip_norm": -1}, "0 or more. Received: clip_norm=-1"),
        ({"class_weights": [1, 2]}, "a tuple of numbers of 0 or more, not all 0"),
        ({"class_weights": (1, -1)}, "a tuple of numbers of 0 or more, not all 0"),
        ({"class_weights": (0, 0)}, "a tuple of numbers of 0 or more, not all 0"),
        ({"class_weights": "equal"}, '"balanced", or a tuple'),
        ({"bias_rate": 2.0}, "1: AdamW's steps do not scale with the gradient"),
        ({"bias_rate": 0}, "Received: bias_rate=0"),
        ({"patience": -1}, "Received: patience=-1"),
        ({"average": "polyak"}, "Received: average='polyak'"),
        ({"average_momentum": 1}, "from 0 up to, not including, 1"),
        ({"precision": "mixed_float16"}, "one of ('float32', 'mixed_bfloat16')"),
        ({"freeze_until": 4}, "an endpoint's name or None. Received: freeze_until=4"),
    ],
)
def test_refused_values_say_what_was_expected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(QUICK, **change)


def test_zero_is_allowed_where_it_turns_something_off() -> None:
    off = ("warmup", "weight_decay", "momentum", "label_smoothing", "aux_loss_weight", "shift")
    assert Recipe(name="bare", epochs=1, **dict.fromkeys(off, 0)).shift == 0  # type: ignore[arg-type]


def test_recipes_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        QUICK.epochs = 1  # type: ignore[misc]


def test_learning_rate_is_linear_in_the_batch() -> None:
    # .1 for a batch of 256: .05 for 128, .2 for 512.
    assert FULL.learning_rate == pytest.approx(0.05)
    assert replace(FULL, batch_size=512).learning_rate == pytest.approx(0.2)


def test_named_recipes_are_listed_under_their_names() -> None:
    assert RECIPES["quick"] is QUICK
    assert list(RECIPES) == ["quick", "paper", "modern"]
    assert all(recipe.name == name for name, recipe in RECIPES.items())


def test_the_papers_recipe_is_section_6():
    """Momentum .9, 4% less every 8 epochs, averaged weights, crops; BVLC's rate for 32 images."""
    recipe = RECIPES["paper"]
    assert (recipe.optimizer, recipe.momentum, recipe.schedule) == ("sgd", 0.9, "staircase")
    assert (recipe.decay_factor, recipe.decay_epochs) == (0.96, 8)
    assert (recipe.average, recipe.aux_loss_weight) == ("uniform", 0.3)
    assert (recipe.crop, recipe.photometric, recipe.flip) == ("paper", True, True)
    assert recipe.learning_rate == pytest.approx(0.01)
    assert recipe.batch_size == 32
    assert recipe.bias_rate == 2  # BVLC's lr_mult
    assert [recipe.name for recipe in RECIPES.values()] == list(RECIPES)


@pytest.mark.parametrize("recipe", [*RECIPES.values(), FULL], ids=lambda recipe: recipe.name)
def test_json_round_trip(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_json_is_plain_and_versioned() -> None:
    assert json.loads(FULL.to_json()) == {
        "schema_version": 1,
        "name": "full",
        "epochs": 3,
        "batch_size": 128,
        "optimizer": "sgd",
        "base_learning_rate": 0.1,
        "warmup": 0.05,
        "weight_decay": 0.0002,
        "momentum": 0.5,
        "label_smoothing": 0.1,
        "aux_loss_weight": 0.2,
        "flip": False,
        "shift": 0,
        "crop": "none",
        "photometric": False,
        "mixup": 0.0,
        "seed": 7,
        "micro_batches": 4,
        "schedule": "cosine",
        "decay_factor": 0.96,
        "decay_epochs": 8,
        "bias_rate": 1.0,
        "patience": 0,
        "clip_norm": 2.0,
        "class_weights": [1.0, 0.5],
        "average": "exponential",
        "average_momentum": 0.9,
        "average_start": 0.25,
        "precision": "mixed_bfloat16",
        "jit_compile": True,
        "freeze_until": "4a",
    }


def test_steps_are_whole_batches() -> None:
    recipe = Recipe(name="r", epochs=3, batch_size=64)
    assert [recipe.steps_per_epoch(images) for images in (63, 64, 200)] == [0, 1, 3]
    assert recipe.total_steps(200) == 9  # not 600 // 64: an epoch never ends within a batch


def test_missing_fields_take_their_defaults() -> None:
    text = '{"schema_version": 1, "name": "short", "epochs": 2}'
    assert Recipe.from_json(text) == Recipe(name="short", epochs=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the JSON of a recipe. Received text that is not"),
        ("[]", "the JSON of a recipe, an object"),
        ("3", "the JSON of a recipe, an object"),
        ("{}", "\"schema_version\" among its keys. Received: '{}'"),
        ('{"schema_version": 2}', "a recipe with schema_version 1. Received: schema_version=2"),
        ('{"schema_version": 1, "name": "x"}', "missing keys ['epochs'], unknown keys []"),
        (
            '{"schema_version": 1, "name": "x", "epochs": 1, "lr": 1, "a": 2}',
            "missing keys [], unknown keys ['a', 'lr']",
        ),
        ('{"schema_version": 1, "name": "x", "epochs": [1]}', "Received: epochs=[1]"),
        ('{"schema_version": 1, "name": {}, "epochs": 1}', "text without slashes"),
        ('{"schema_version": 1, "name": "x", "epochs": 1, "warmup": NaN}', "Received: warmup=nan"),
    ],
)
def test_refused_documents(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Recipe.from_json(text)
