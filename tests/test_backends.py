"""Under JAX and torch the same network trains and saves, and TensorFlow loads the file."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from backend_worker import every_layer, step
from numpy.testing import assert_allclose

from keras_inception.network.build import build_network

WORKER = Path(__file__).with_name("backend_worker.py")
BACKENDS = [
    "jax",
    pytest.param(
        "torch",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("torch") is None,
            reason="torch is not a dependency of this package; this test runs if it is installed",
        ),
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_computes_trains_and_saves_like_tensorflow(backend, tmp_path):
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
    labels = np.array([0, 1, 2, 4])
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    assert run_worker(backend, tmp_path) == [backend]  # TensorFlow was not imported

    def saved(name):
        return dict(np.load(tmp_path / f"{name}.npz"))

    initial, trained = (list(saved(name).values()) for name in ("initial", "trained"))
    model = build_network(every_layer(), auxiliary=True)
    model.set_weights(initial)
    assert_same_outputs(model.predict_on_batch(images), saved("initial_outputs"))
    # The same gradient step.
    step(model, images, labels)
    for old, ours, theirs in zip(initial, model.get_weights(), trained, strict=True):
        assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
        assert (old != theirs).any()
    # The saved file, and the other data format, which TensorFlow does not support on CPUs.
    # (`compile=False`, because the saved optimizer is a class of its backend.)
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert_same_outputs(loaded.predict_on_batch(images), saved("trained_outputs"))
    assert_same_outputs(loaded.predict_on_batch(images), saved("first_outputs"))


def run_worker(backend, folder):
    result = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        # JAX compiles in half the time without optimization.
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def assert_same_outputs(actual, expected):
    assert set(actual) == set(expected) == {"main", "aux_1"}
    for name in expected:
        assert_allclose(actual[name], expected[name], rtol=1e-4, atol=1e-6)
