"""A network compiled for Keras's own `fit`: fields of the recipe, and refused ones."""

from dataclasses import replace

import keras
import pytest
from training_job import RECIPE
from training_steps import one_module_spec

from keras_inception.network.build import build_network
from keras_inception.spec.recipe import Recipe
from keras_inception.training.keras_fit import compile_model


def logits_network() -> keras.Model:
    return build_network(one_module_spec(), classifier_activation=None)


@pytest.mark.parametrize(
    "change",
    [{"average": "uniform"}, {"micro_batches": 2}, {"precision": "mixed_bfloat16"}],
)
def test_features_of_the_training_step_are_refused(change):
    recipe = replace(RECIPE, average="none")
    with pytest.raises(ValueError, match=r"which only `train` and `tuning\.search` have"):
        compile_model(logits_network(), replace(recipe, **change), total_steps=9)


def test_balanced_class_weights_are_refused():
    recipe = Recipe(name="r", epochs=1, class_weights="balanced")
    with pytest.raises(ValueError, match="Expected numbers as class weights"):
        compile_model(logits_network(), recipe, total_steps=9)


def test_clipping_is_the_optimizers():
    model = logits_network()
    compile_model(model, Recipe(name="r", epochs=1, clip_norm=0.5), total_steps=9)
    assert model.optimizer.global_clipnorm == 0.5


@pytest.mark.parametrize(("asked", "compiled"), [(True, True), (False, "auto")])
def test_the_recipe_enables_xla(asked, compiled, monkeypatch):
    seen = []
    monkeypatch.setattr(
        keras.Model, "compile", lambda *_, jit_compile, **__: seen.append(jit_compile)
    )
    recipe = Recipe(name="r", epochs=1, jit_compile=asked)
    compile_model(logits_network(), recipe, total_steps=9)
    assert seen == [compiled]
