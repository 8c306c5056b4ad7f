"""The command line: exit codes, one clear line for a mistake, what is shown.

The tests of `predict` and of training itself are in their own files; here it is what a user types.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest
from typer.testing import CliRunner

from keras_inception.cli import app
from keras_inception.variants import VARIANTS

COMMAND = Path(sys.executable).with_name("keras-inception")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_mistake(result, *words: str) -> None:
    """Exit code 2, one line on stderr that holds `words`, no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("command", ["train", "summary", "predict"])
def test_help(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_unknown_option_is_a_mistake():
    result = run("train", "--nonsense")
    assert result.exit_code == 2
    assert "--nonsense" in result.output


def test_unknown_variant():
    assert_mistake(run("summary", "--variant", "vgg"), "'vgg'", "paper", "small")
    assert_mistake(run("train", "--variant", "vgg"), "'vgg'", "paper", "small")


def test_spec_files_that_are_none(tmp_path):
    missing = tmp_path / "missing.json"
    assert_mistake(run("summary", "--spec", missing), str(missing))
    text = tmp_path / "text.json"
    text.write_text("widths: 64")
    assert_mistake(run("train", "--spec", text), "JSON")
    text.write_text('{"schema_version": 1}')
    assert_mistake(run("train", "--spec", text), "missing keys")


def test_recipes_that_are_none(tmp_path):
    assert_mistake(run("train", "--recipe", "fast"), "'fast'", "quick")
    assert_mistake(run("train", "--recipe", tmp_path / "r.json"), "r.json")
    assert_mistake(run("train", "--epochs", 0), "epochs=0")


def test_training_folders_that_cannot_be(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert_mistake(run("train", "--out", tmp_path), str(tmp_path), "Choose another")
    assert_mistake(run("train", "--out", tmp_path / "notes.txt" / "run"), "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_variant_too_large_for_the_sample(tmp_path):
    # 28 pixels are less than the paper's total stride of 32.
    assert_mistake(run("train", "--variant", "bn", "--out", tmp_path / "run"), "28", "32")


def test_predict_mistakes(tmp_path):
    (tmp_path / "empty").mkdir()
    image = tmp_path / "image.png"
    image.write_bytes(b"")
    assert_mistake(run("predict", tmp_path / "empty", image), "model.keras")
    model = tmp_path / "model.keras"
    model.write_bytes(b"not a zip file")
    assert_mistake(run("predict", model, tmp_path / "no.png"), "no.png")
    assert_mistake(run("predict", model, image), "model.keras")


@pytest.mark.parametrize("table", [(), ("--layers",)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_summary_fits_80_columns(variant, table):
    result = run("summary", "--variant", variant, *table)
    assert result.exit_code == 0
    table, cost = result.output.rstrip("\n").rsplit("\n", 1)
    assert max(len(line) for line in table.splitlines()) <= 80
    assert "…" not in table  # Rich's mark of a cell that was cut
    assert "multiply-adds" in cost


def test_summary_of_the_paper():
    lines = run("summary", "--variant", "paper").output.splitlines()
    (row,) = (line.split() for line in lines if line.split()[:1] == ["4a"])
    # facts of Table 1: widths, true and printed parameters and operations
    assert row == ["4a", "14x14", *"192 96 208 16 48 64".split(), "366.8K", "73.6M", "364K", "73M"]
    assert "6,998,552 parameters, 1,582,671,872 multiply-adds" in lines[-1]


def test_summary_options(tmp_path):
    assert "1,582,671,872" in run("summary", "--list").output
    assert "3a_3x3_reduce" in run("summary", "--layers", "--variant", "small").output
    spec = tmp_path / "Größe.json"
    spec.write_text(VARIANTS["tiny"].to_json(), encoding="utf-8")
    assert "102,090 parameters" in run("summary", "--spec", spec).output
    # The global pool makes the convolutions' parameters independent of the input size:
    # only 1000 - 10 classes of 1024 + 1 parameters are gone.
    changed = run("summary", "--input-size", 160, "--classes", 10).output
    assert f"{6_998_552 - 990 * 1025:,} parameters" in changed
    assert_mistake(run("summary", "--input-size", 16), "32")


def _start_training(folder: Path) -> subprocess.Popen:
    arguments = ["train", "--variant", "nano", "--epochs", "40", "--out", folder]
    return subprocess.Popen(
        [COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait_for(condition, process: subprocess.Popen) -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.kill()
    raise AssertionError("the training did not come so far in two minutes")


def test_ctrl_c_leaves_the_last_epoch_and_says_where(tmp_path):
    folder = tmp_path / "run"
    process = _start_training(folder)
    _wait_for((folder / "model.keras").exists, process)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in stderr
    assert str(folder / "model.keras") in stderr
    model = keras.models.load_model(folder / "model.keras", compile=False)
    assert model.output_shape == (None, 10)


def test_ctrl_c_before_the_first_epoch_ends(tmp_path):
    folder = tmp_path / "run"
    process = _start_training(folder)
    _wait_for((folder / "labels.txt").exists, process)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in stderr
    assert str(folder) in stderr
    assert "no model" in stderr
