"""Runs under KERAS_BACKEND=jax: the same loop, folder, snapshots and resume."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import RUN_FILES
from numpy.testing import assert_allclose
from processes import (
    ENVIRONMENT,
    TESTS,
    run,
    saved_weights,
    start,
    start_jax_workers,
    wait_for_all,
)
from test_survival import assert_same_run, last_step, wait_for_snapshot

JAX = {"KERAS_BACKEND": "jax"}

WITHOUT_TENSORFLOW = """
import sys
sys.path.insert(0, sys.argv[1])
tried = []
class Absent:  # as where it is not installed
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            tried.append(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from dataclasses import replace
from pathlib import Path
import numpy as np
from PIL import Image
from training_job import RECIPE
from training_steps import noise, one_module_spec
from keras_inception.data.sources import open_data
from keras_inception.data.splits import Split
from keras_inception.training.run import fitted_to_data, train
out = Path(sys.argv[2])
recipe = replace(RECIPE, epochs=1, micro_batches=2, precision="mixed_bfloat16")
spec = one_module_spec(batch_norm=True)
train(spec, noise(), recipe, out / "arrays", verbose=0)
arrays = noise(16, 8)
for part, split in (("train", arrays.train), ("test", arrays.test)):
    for number, (image, label) in enumerate(zip(split.images, split.labels)):
        path = out / "images" / part / "abc"[label] / f"{number}.{'png' if number % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
files = open_data(f"dir:{out / 'images'}")
crops = replace(RECIPE, epochs=1, crop="paper", shift=0)
train(fitted_to_data(spec, files), files, crops, out / "files", verbose=0)
sample = open_data("sample")
few = [Split(split.images[:16], split.labels[:16]) for split in (sample.train, sample.test)]
sample = replace(sample, train=few[0], test=few[1])
train(fitted_to_data(spec, sample), sample, replace(RECIPE, epochs=1), out / "sample", verbose=0)
assert tried == [], tried
assert "tensorflow" not in sys.modules
"""


def test_arrays_files_and_the_sample_train_without_tensorflow(tmp_path):
    """Nothing tries to import it. Averages, micro-batches, bfloat16, a last batch of five."""
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, str(TESTS), str(tmp_path)],
        env=ENVIRONMENT | JAX,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    pictures = {"confusion_matrix.png", "training_curve.png"}
    for name in ("arrays", "files", "sample"):
        left = {path.name for path in (tmp_path / name).iterdir()}
        expected = (RUN_FILES | {"unaveraged.keras"}) - {"saved_model"}
        assert left - pictures == expected - pictures


HELD = """
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from itertools import islice
import jax
import numpy as np
from training_job import RECIPE
from training_steps import noise, one_module_spec
from keras_inception.data.stream import training_batches
from keras_inception.training.strategy import make_trainer
spec, recipe, split = one_module_spec(), replace(RECIPE, flip=True, shift=2), noise().train
trainer = make_trainer(spec, recipe, total_steps=10)
assert not trainer.holds_images  # a CPU
trainer.holds_images = True
held = trainer.batches(lambda *shard: trainer.stream(split)(3, *shard))
streamed = training_batches(split, spec, recipe, start_step=3)
for (images, labels), (expected, right) in islice(zip(held, streamed), 12):
    assert isinstance(images, jax.Array)
    np.testing.assert_allclose(images, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(labels, right)
    assert images.dtype == expected.dtype and labels.dtype == right.dtype
blending = make_trainer(spec, replace(recipe, mixup=1.0), total_steps=10)
blending.holds_images = True
mixed = next(blending.stream(split)(0, 0, 1))
assert isinstance(mixed[0], np.ndarray)  # blended on the host
"""


def test_images_held_on_the_device_give_the_streamed_batches(tmp_path):
    """Across the end of a pass of six batches and two images."""
    ended = subprocess.run(
        [sys.executable, "-c", HELD, str(TESTS)],
        env=ENVIRONMENT | JAX,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


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


def assert_same_steps(expected: Path, received: Path, scenarios: tuple[str, ...]) -> None:
    for scenario in scenarios:
        one, two = (np.load(folder / f"{scenario}.npz") for folder in (expected, received))
        for name in one.files:
            assert_allclose(two[name], one[name], rtol=0, atol=5e-5, err_msg=name)


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
    assert_same_steps(*folders, scenarios)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    """Each prepares its half of a batch; JAX sums over the CPUs of both by Gloo."""
    scenarios = ("everything", "normalized")
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    wait_for_all(
        [
            start("training_steps.py", "cpu:1", folders[0], *scenarios, **JAX),
            *start_jax_workers("training_steps.py", "multi-worker", folders[1], *scenarios),
        ]
    )
    assert_same_steps(*folders, scenarios)


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_both_resume(tmp_path):
    job = ("training_job.py", "multi-worker")
    wait_for_all(start_jax_workers(*job, tmp_path / "expected"))
    chief, other = start_jax_workers(*job, tmp_path / "run")
    wait_for_snapshot(tmp_path / "run", chief, after=2)
    other.kill()
    other.communicate()
    chief.communicate()
    assert chief.returncode != 0
    assert last_step(tmp_path / "run") < 24
    wait_for_all(start_jax_workers(*job, tmp_path / "run"))
    assert_same_run(tmp_path / "run", tmp_path / "expected", tolerance=1e-6)


@pytest.mark.slow
def test_tensorflow_starts_from_a_snapshot_of_the_same_recipe(tmp_path):
    """The state is numbered alike in both: a run may be handed over."""
    process = start("training_job.py", "cpu:1", tmp_path / "run", **JAX)
    wait_for_snapshot(tmp_path / "run", process, after=4)
    process.kill()
    process.communicate()
    run("training_job.py", "cpu:1", tmp_path / "run")
    assert np.isfinite(saved_weights(tmp_path / "run")).all()
