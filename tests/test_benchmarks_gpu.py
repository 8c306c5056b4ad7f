"""benchmarks/gpu.py: its data and comparison by hand, and whole at tiny sizes on a CPU."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("jax")
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("gpu")


def test_the_arrays_of_fashion_mnist(gpu: ModuleType, tmp_path: Path) -> None:
    arrays = {
        "train_images": np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28),
        "train_labels": np.array([9, 0], np.uint8),
        "test_images": np.full((1, 28, 28, 1), 7, np.uint8),  # as TFDS has them
        "test_labels": np.array([3]),
    }
    np.savez(tmp_path / "all.npz", **arrays)
    data = gpu.fashion_mnist(tmp_path / "all.npz")
    np.testing.assert_array_equal(data.train.images[..., 0], arrays["train_images"])
    np.testing.assert_array_equal(data.test.images, arrays["test_images"])
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([9, 0], [3])
    assert data.class_names[9] == "Ankle boot"


def test_the_difference_of_two_steps_by_hand(gpu: ModuleType) -> None:
    """Changes of 4 and 3; the second step misses half of the smaller one."""
    start = {
        "model/0": np.array([1.0, 1.0]),
        "model/1": np.array([2.0]),
        "model/2": np.array([0, 1], np.uint32),  # of dropout
        "optimizer/0": np.array(0.0),
    }
    after = start | {"model/0": np.array([1.0, 5.0]), "model/1": np.array([5.0])}
    other = after | {"model/1": np.array([3.5]), "optimizer/0": np.array(7.0)}
    found = gpu.compared(start, (2.0, after), (2.5, other))
    assert found == {
        "loss": 0.25,
        "change of all weights": pytest.approx(1.5 / 5),
        "change of the worst tensor": 0.5,
    }
    assert set(gpu.compared(start, (2.0, after), (2.0, after)).values()) == {0.0}


def test_rows_of_parts_that_are_not_chosen_stay(gpu: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "gpu.csv"
    first = gpu.Table(path, gpu.PARTS, {})
    first.add("resume", "model.keras", "passed", value=0.0)
    first.add("fashion", "seconds", value=70)
    gpu.Table(path, ["fashion", "training"], {}).add("fashion", "seconds", value=50)
    found = [(row["part"], row["value"], row["result"]) for row in gpu.rows_of(path)]
    assert found == [("resume", "0.0", "passed"), ("fashion", "50", "measured")]


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_without_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    blocked = tmp_path / "tensorflow"
    blocked.mkdir()
    blocked.joinpath("__init__.py").write_text("raise ModuleNotFoundError('blocked')")
    out = tmp_path / "gpu.csv"
    command = [sys.executable, str(SCRIPT), "--tiny", "--seconds", "3000", "--out", str(out)]
    done = subprocess.run(
        command,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            # Compiles in half the time.
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["card"] and "jax=" in row["versions"] and row["date"] for row in rows)
    results = [(row["part"], row["result"]) for row in rows if row["what"] != "compilation"]
    assert [found for found in results if found[0] in ("equality", "resume")] == [
        *[("equality", "passed")] * 3,
        *[("resume", "passed")] * 2,
    ]
    fashion = {row["what"]: row for row in rows if row["part"] == "fashion"}
    assert list(fashion) == ["nano, first epoch", "nano, seconds", "nano, accuracy", "compilation"]
    assert {row["result"] for row in fashion.values()} == {"measured"}
    first, whole = (float(fashion[f"nano, {what}"]["value"]) for what in ("first epoch", "seconds"))
    assert 0 < first < whole
    for what in ("seconds", "accuracy"):
        assert "fashion_mnist_sample" in fashion[f"nano, {what}"]["note"]
    has_torch = importlib.util.find_spec("torchvision") is not None
    for part, batches in (("training", ["2"]), ("inference", ["1", "2"])):
        for batch in batches:
            found = [row for row in rows if (row["part"], row["batch"]) == (part, batch)]
            assert {row["precision"] for row in found if row["what"].startswith("nano")} == {
                "float32",
                "mixed_bfloat16",
            }
            expected = "measured" if has_torch else "skipped"
            theirs = [row for row in found if row["what"].startswith("googlenet")]
            assert [row["result"] for row in theirs] == [expected] * (
                3 if part == "training" else 2
            )
    assert all(float(row["value"]) > 0 for row in rows if row["unit"] == "images/s")
