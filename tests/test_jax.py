"""Runs under KERAS_BACKEND=jax: the same loop, folder, snapshots and resume."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import RUN_FILES
from numpy.testing import assert_allclose
from processes import ENVIRONMENT, run, saved_weights, start, wait_for_all
from test_survival import assert_same_run, last_step, wait_for_snapshot

JAX = {"KERAS_BACKEND": "jax"}

WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # as where it is not installed
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from dataclasses import replace
from training_job import RECIPE
from training_steps import noise, one_module_spec
from keras_inception.training.run import train
recipe = replace(RECIPE, epochs=1, micro_batches=2, precision="mixed_bfloat16")
train(one_module_spec(batch_norm=True), noise(), recipe, Path(sys.argv[2]), verbose=0)
"""


def test_a_run_without_tensorflow_leaves_all_but_the_saved_model(tmp_path):
    """Averages, micro-batches, half precision, and a last held-out batch of five."""
    from processes import TESTS

    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, str(TESTS), str(tmp_path / "run")],
        env=ENVIRONMENT | JAX,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left - {"confusion_matrix.png", "training_curve.png"} == (
        RUN_FILES | {"unaveraged.keras"}
    ) - {"saved_model", "confusion_matrix.png", "training_curve.png"}


@pytest.mark.slow
def test_a_killed_run_ends_bit_for_bit_where_it_would_have(tmp_path):
    wait_for_all([start("training_job.py", "cpu:1", tmp_path / "expected", **JAX)])
    process = start("training_job.py", "cpu:1", tmp_path / "run", **JAX)
    wait_for_snapshot(tmp_path / "run", process, after=8)
    process.kill()
    process.communicate()
    assert last_step(tmp_path / "run") < 24
    wait_for_all([start("training_job.py", "cpu:1", tmp_path / "run", **JAX)])
    assert_same_run(tmp_path / "run", tmp_path / "expected")


@pytest.mark.slow
def test_two_devices_take_the_steps_of_one(tmp_path):
    scenarios = ("everything", "normalized")
    folders = [tmp_path / name for name in ("cpu1", "cpu2")]
    for folder in folders:
        folder.mkdir()
    wait_for_all(
        [
            start("training_steps.py", f"cpu:{count}", folder, *scenarios, **JAX)
            for count, folder in enumerate(folders, start=1)
        ]
    )
    for scenario in scenarios:
        one, two = (np.load(folder / f"{scenario}.npz") for folder in folders)
        for name in one.files:
            assert_allclose(two[name], one[name], rtol=0, atol=5e-5, err_msg=name)


@pytest.mark.slow
def test_tensorflow_starts_from_a_snapshot_of_the_same_recipe(tmp_path):
    """The state is numbered alike in both: a run may be handed over."""
    process = start("training_job.py", "cpu:1", tmp_path / "run", **JAX)
    wait_for_snapshot(tmp_path / "run", process, after=4)
    process.kill()
    process.communicate()
    run("training_job.py", "cpu:1", tmp_path / "run")
    assert np.isfinite(saved_weights(tmp_path / "run")).all()
