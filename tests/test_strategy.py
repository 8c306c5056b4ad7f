"""One device, two devices and two processes take the same steps; unsupported options fail."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from processes import ENVIRONMENT, run, start_workers, wait_for_all
from training_steps import SCENARIOS

from keras_inception.spec.recipe import Recipe
from keras_inception.training.strategy import check_strategy, is_chief, make_strategy

# Largest difference of a loss or a weight after 12 steps. Measured: 1e-6 without batch
# normalization; 8e-6 with it, because its synchronized statistics are rounded differently.
TOLERANCE = 1e-5
TOLERANCE_NORMALIZED = 5e-5


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one_device")
    run("training_steps.py", "cpu:1", out, *SCENARIOS)
    return out


def assert_same_steps(expected: Path, received: Path, scenario: str) -> None:
    tolerance = TOLERANCE_NORMALIZED if scenario == "normalized" else TOLERANCE
    with np.load(expected / f"{scenario}.npz") as one, np.load(received / f"{scenario}.npz") as two:
        assert set(one.files) == {"metrics", "evaluation", "weights", "averages"}
        for name in one.files:
            np.testing.assert_allclose(two[name], one[name], rtol=0, atol=tolerance, err_msg=name)


def test_two_devices_take_the_steps_of_one(one_device, tmp_path):
    run("training_steps.py", "cpu:2", tmp_path, *SCENARIOS)
    for scenario in SCENARIOS:
        assert_same_steps(one_device, tmp_path, scenario)


def test_two_processes_take_the_steps_of_one(one_device, tmp_path):
    scenarios = ("everything", "normalized")
    wait_for_all(start_workers("training_steps.py", "multi-worker", tmp_path, *scenarios))
    for scenario in scenarios:
        assert_same_steps(one_device, tmp_path, scenario)


def test_micro_batches_take_the_same_steps_and_clipping_different_ones(one_device):
    """Check that the comparisons above do cover clipping and accumulation."""
    weights = {name: np.load(one_device / f"{name}.npz")["weights"] for name in SCENARIOS}
    np.testing.assert_allclose(weights["accumulated"], weights["plain"], rtol=0, atol=TOLERANCE)
    assert np.abs(weights["clipped"] - weights["plain"]).max() > 0.01
    with np.load(one_device / "everything.npz") as everything:
        assert np.abs(everything["averages"] - everything["weights"]).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cpu:0", "Expected a strategy among auto, cpu:N"),
        ("gpu", "Expected a strategy among auto, cpu:N"),
        ("parameter-server", "Keras 3 does not train under"),
    ],
)
def test_unknown_strategies_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        make_strategy(name)


def test_mirrored_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(ValueError, match="Expected a GPU for the strategy 'mirrored'"):
        make_strategy("mirrored")


@pytest.mark.parametrize("config", ["", "{", "{}", '{"cluster": {}, "task": {}}'])
def test_multi_worker_needs_a_cluster(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="Expected the environment variable TF_CONFIG"):
        make_strategy("multi-worker")


def test_devices_cannot_change_once_tensorflow_runs():
    tf.zeros(1)
    with pytest.raises(ValueError, match="Make the strategy first in a new process"):
        make_strategy("cpu:7")


def test_auto_is_one_device_without_a_gpu():
    strategy = make_strategy("auto")
    assert strategy.num_replicas_in_sync == 1
    assert is_chief(strategy)


@pytest.mark.parametrize("name", ["tpu", "tpu:nowhere.invalid"])
def test_a_missing_tpu_is_one_error(name):
    script = f"from keras_inception.training.strategy import make_strategy; make_strategy({name!r})"
    ended = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert ended.stderr.splitlines()[-1].startswith("ValueError: Expected a TPU that answers.")


def test_unsupported_options_of_a_strategy_are_refused():
    class Four:
        num_replicas_in_sync = 4

    recipe = Recipe(name="r", epochs=1, batch_size=8, micro_batches=2)
    check_strategy(recipe, Four())
    with pytest.raises(ValueError, match=r"4 devices of 2 .*Received: batch_size=12"):
        check_strategy(Recipe(name="r", epochs=1, batch_size=12, micro_batches=2), Four())
    with pytest.raises(ValueError, match="jit_compile only on one device"):
        check_strategy(Recipe(name="r", epochs=1, batch_size=8, jit_compile=True), Four())
