"""Under JAX, Keras's fit trains the same recipe, data-parallel over virtual CPU devices."""

from dataclasses import replace

import keras
import pytest
from conftest import RUN_FILES
from numpy.testing import assert_allclose
from processes import saved_weights, start, wait_for_all
from training_job import RECIPE
from training_steps import noise, one_module_spec

from keras_inception.network.build import build_network
from keras_inception.spec.recipe import Recipe
from keras_inception.training import keras_fit


@pytest.mark.slow
def test_two_devices_of_jax_take_the_steps_of_one(tmp_path):
    wait_for_all(
        [
            start("jax_job.py", devices, tmp_path / str(devices), KERAS_BACKEND="jax")
            for devices in (1, 2)
        ]
    )
    one, two = (saved_weights(tmp_path / str(devices)) for devices in (1, 2))
    assert_allclose(two, one, rtol=0, atol=1e-5)
    assert {path.name for path in (tmp_path / "2").iterdir()} == RUN_FILES - {"saved_model"}


def test_the_training_time_is_reported(tmp_path):
    recipe = replace(RECIPE, average="none", clip_norm=0.0, epochs=1)
    progress = keras_fit.fit(one_module_spec(), noise(), recipe, tmp_path)
    assert 0.1 < progress.seconds < 300


@pytest.mark.parametrize(
    "change",
    [{"average": "uniform"}, {"micro_batches": 2}, {"precision": "mixed_bfloat16"}],
)
def test_features_of_the_tensorflow_step_are_refused(tmp_path, change):
    recipe = replace(RECIPE, average="none")
    with pytest.raises(ValueError, match="which need KERAS_BACKEND=tensorflow"):
        keras_fit.fit(one_module_spec(), noise(), replace(recipe, **change), tmp_path)


def test_the_training_time_is_at_least_a_step(tmp_path):
    recipe = replace(RECIPE, average="none", micro_batches=1, precision="float32", epochs=1)
    assert keras_fit.fit(one_module_spec(), noise(), recipe, tmp_path).seconds > 0.01


@pytest.mark.parametrize(("asked", "compiled"), [(True, True), (False, "auto")])
def test_the_recipe_enables_xla(asked, compiled, monkeypatch):
    seen = []
    monkeypatch.setattr(
        keras.Model, "compile", lambda *_, jit_compile, **__: seen.append(jit_compile)
    )
    recipe = Recipe(name="r", epochs=1, jit_compile=asked)
    keras_fit.compile_model(build_network(one_module_spec()), recipe, total_steps=9)
    assert seen == [compiled]
