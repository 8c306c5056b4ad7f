"""Shared by the tests of the weights: files from other libraries, and comparison of endpoints.

Scripts under tests/writers write the files with the sources' own libraries in separate
environments. `.ci/run` creates these environments; without them, the tests skip and give the
reason.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_inception import feature_extractor

ROOT = Path(__file__).resolve().parents[1]
LARGEST_DIFFERENCE = 1e-4  # relative to the endpoint's largest value


def written(tmp_path_factory: pytest.TempPathFactory, library: str) -> Path:
    """Return the output folder of tests/writers/LIBRARY_network.py, run once for all processes."""
    own = sys.executable if library == "torch" else ROOT / f".venv-{library}" / "bin" / "python"
    python = os.environ.get(f"KERAS_INCEPTION_{library.upper()}_PYTHON", own)
    if not Path(python).is_file():
        pytest.skip(f"no environment with {library}: tests/writers/{library}_network.py says how")
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if run else base) / f"{library}-{run}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "endpoints.npz").is_file():
            script = ROOT / "tests" / "writers" / f"{library}_network.py"
            # Keep this environment's path and settings out of the other environment.
            clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
            result = subprocess.run(
                [python, script, folder], capture_output=True, text=True, env=clean
            )
            assert result.returncode == 0, result.stderr
    return folder


def assert_same_endpoints(
    model: keras.Model, inputs: np.ndarray, expected: dict[str, np.ndarray]
) -> float:
    """Assert equal endpoints, channels last; return the largest relative difference."""
    values = feature_extractor(model, list(expected)).predict_on_batch(inputs)
    return assert_same(values, expected)


def assert_same(values: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    differences = {}
    for name, right in expected.items():
        assert values[name].shape == right.shape, name
        assert right.std() > 1e-3 * np.abs(right).max() > 0, f"{name} is constant"
        differences[name] = float(np.abs(values[name] - right).max() / np.abs(right).max())
    worst = max(differences.values())
    assert worst < LARGEST_DIFFERENCE, differences
    print(f"largest relative difference of {len(expected)} endpoints: {worst:.1e}")
    return worst
