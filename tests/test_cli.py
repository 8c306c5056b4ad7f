"""The command line: exit codes, one-line usage errors, printed output.

`predict` and training itself are tested in other files.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from PIL import Image
from typer.testing import CliRunner

import keras_inception.data.sources
import keras_inception.training.run
from keras_inception.cli import app, waits
from keras_inception.cost.layers import network_cost
from keras_inception.data.sample import load_sample
from keras_inception.data.splits import ImageData, Split
from keras_inception.inference.predictor import load
from keras_inception.network.build import build_network
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import QUICK
from keras_inception.spec.variants import VARIANTS

COMMAND = Path(sys.executable).with_name("keras-inception")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_mistake(result, *words: str) -> None:
    """Assert exit code 2, one line on stderr that contains `words`, and no traceback."""
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


def test_usage_errors():
    assert_mistake(run("train", "--nonsense"), "--nonsense", "See keras-inception train --help.")
    assert_mistake(run("train", "--epochs", "abc"), "'--epochs'", "valid integer")
    assert_mistake(run("fly"), "'fly'")
    assert_mistake(run("predict"), "argument 'model'")
    assert_mistake(run("weights"), "See keras-inception weights --help.")


def test_no_arguments_show_the_commands():
    result = run()
    assert result.exit_code == 0
    assert "summary" in result.output


def test_ctrl_c_in_a_command_without_output_files(monkeypatch):
    def interrupt(spec: NetworkSpec, auxiliary: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_inception.cli.summary.network_cost", interrupt)
    result = run("summary", "--layers")
    assert (result.exit_code, result.stderr) == (1, "Stopped.\n")


def test_unknown_variant():
    assert_mistake(run("summary", "--variant", "vgg"), "'vgg'", "paper", "small")
    assert_mistake(run("train", "--variant", "vgg"), "'vgg'", "paper", "small")


def test_invalid_spec_files(tmp_path):
    missing = tmp_path / "missing.json"
    assert_mistake(run("summary", "--spec", missing), str(missing))
    text = tmp_path / "text.json"
    text.write_text("widths: 64")
    assert_mistake(run("train", "--spec", text), "JSON")
    text.write_text('{"schema_version": 1}')
    assert_mistake(run("train", "--spec", text), "missing keys")
    text.write_bytes(bytes(range(256)))
    assert_mistake(run("train", "--spec", text), str(text), "not a text file")
    assert_mistake(run("train", "--spec", tmp_path), str(tmp_path), "directory")


def test_invalid_recipes(tmp_path):
    assert_mistake(run("train", "--recipe", "fast"), "'fast'", "quick")
    assert_mistake(run("train", "--recipe", tmp_path / "r.json"), "r.json")
    assert_mistake(run("train", "--epochs", 0), "epochs=0")
    assert_mistake(run("train", "--batch-size", 6001), "at most 6000", "batch_size=6001")
    assert_mistake(run("train", "--seed", 2**32), "at most 4,294,967,295", "4294967296")


def test_invalid_output_folders(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert_mistake(run("train", "--out", tmp_path), str(tmp_path), "Choose another")
    assert_mistake(run("train", "--out", tmp_path / "notes.txt" / "run"), "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_variants_too_large_for_the_sample(tmp_path):
    # 28 pixels leave nothing after the paper's pools, and less than the windows of 5 by 5 of the
    # auxiliary classifiers of `bn`: 28 / 16 after 4a.
    for variant, message in (("paper", "at least 31x31"), ("bn", "at least 5x5 under 'aux_1'")):
        result = run("train", "--variant", variant, "--out", tmp_path / "run")
        assert_mistake(result, message, 'variant="small"')
        assert not (tmp_path / "run").exists()


def test_grey_images_for_a_colour_network(tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text(replace(VARIANTS["tiny"], pixels="caffe").to_json())
    assert_mistake(run("train", "--spec", spec, "--out", tmp_path / "run"), "'caffe'", "3 channels")
    assert not (tmp_path / "run").exists()


def quick_spec() -> NetworkSpec:
    """A network of one module, which traces quickly."""
    spec = tiny_spec(size=28, channels=1, classes=10)
    return replace(spec, stages=spec.stages[1:])


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the sample by 64 training and 32 test images of it."""
    whole = load_sample()
    small = ImageData(
        whole.name,
        Split(whole.train.images[:64], whole.train.labels[:64]),
        Split(whole.test.images[:32], whole.test.labels[:32]),
        whole.class_names,
    )
    monkeypatch.setattr(keras_inception.data.sources, "open_data", lambda name, **_: small)


@pytest.mark.usefixtures("small_sample")
def test_training_output(tmp_path, monkeypatch):
    """The plan and its cost, a line per epoch, the result and its files."""
    monkeypatch.setattr(waits, "SILENCE", float("inf"))  # as on a machine without load
    monkeypatch.chdir(tmp_path)
    spec, recipe = tmp_path / "spec ö.json", tmp_path / "recipe ö.json"
    spec.write_text(quick_spec().to_json(), encoding="utf-8")
    recipe.write_text(replace(QUICK, name="[odd] name").to_json(), encoding="utf-8")
    result = run(
        "train", "--spec", spec, "--recipe", recipe, "--epochs", 2, "--batch-size", 16, "--seed", 5
    )
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    (folder,) = (tmp_path / "saved_models").iterdir()
    lines = result.stdout.splitlines()
    cost = network_cost(quick_spec()).total
    data, *lines = lines
    assert data == f"Data: sample, since {tmp_path} has no data.json. --data chooses other data."
    assert lines[0] == (
        f"tiny_for_tests on 28 x 28 x 1, 10 classes: {cost.params:,} parameters, "
        f"{cost.macs:,} multiply-adds, "
        f"{cost.activations * 4 / 1e6:.1f} MB of activations per image."
    )
    assert lines[1] == (
        "64 training images and 32 held-out images in 10 classes of fashion_mnist_sample."
    )
    # Counted by NumPy's unique, not by the command.
    counts = np.unique(load_sample().train.labels[:64], return_counts=True)[1]
    assert lines[2].startswith(f"Training images per class: {counts[0]} T-shirt/top, ")
    assert lines[2].endswith(f", {counts[9]} Ankle boot.")
    assert lines[3].startswith("2 epochs by the recipe [odd] name. Training images are mirrored")
    numbers = r"loss \d\.\d{3}  accuracy [01]\.\d{3}"
    for epoch, line in enumerate(lines[4:6], start=1):
        assert re.fullmatch(rf"epoch +{epoch}/2  {numbers}  held out: {numbers}", line)
    assert re.match(r"Held-out accuracy \d+\.\d\d% \(top-5 \d+\.\d\d%\) after \d+ s", lines[6])
    relative = folder.relative_to(tmp_path)
    assert lines[7] == f"Everything is in {relative}:"
    shown = {line.strip().rstrip("/") for line in lines[8:-3]}
    assert shown == {path.name for path in folder.iterdir()}
    assert lines[-3:] == [
        f"Try it on a picture: keras-inception predict {relative} IMAGE",
        f"Evaluate it: keras-inception evaluate {relative}",  # these data were made in Python
        f"Write other formats of it: keras-inception export {relative} --format all",
    ]
    assert '"seed": 5' in (folder / "recipe.json").read_text(encoding="utf-8")


@pytest.mark.usefixtures("small_sample")
def test_diverging_training_exits_with_status_2(tmp_path):
    spec, recipe = tmp_path / "spec.json", tmp_path / "recipe.json"
    spec.write_text(quick_spec().to_json())
    wild = replace(QUICK, optimizer="sgd", base_learning_rate=1e30, warmup=0, batch_size=16)
    recipe.write_text(wild.to_json())
    result = run("train", "--spec", spec, "--recipe", recipe, "--out", tmp_path / "run")
    assert_mistake(result, "finite", "Lower base_learning_rate", str(tmp_path / "run"))


@pytest.mark.usefixtures("small_sample")
def test_internal_errors_exit_with_status_1(tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(keras_inception.training.run, "train", fail)
    result = run("train", "--variant", "nano", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert isinstance(result.exception, RuntimeError)


@pytest.fixture
def saved_run(tmp_path: Path) -> Path:
    """A folder with a network of grey 28 x 28 images and its labels."""
    folder = (
        tmp_path / "läufe" / "ein sehr langer Name von einem Ordner, länger als die Zeile breit"
    )
    folder.mkdir(parents=True)
    build_network(tiny_spec(size=28, channels=1)).save(folder / "model.keras")
    (folder / "labels.txt").write_text("a\n[b]\nß\nd\ne\n", encoding="utf-8")
    return folder


def test_predict_prints_full_paths_and_the_best_labels(saved_run):
    """A path longer than 80 columns wraps to the next line and is not truncated."""
    image = saved_run / "Prüfling.png"
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(image)
    result = run("predict", saved_run, image)
    assert result.exit_code == 0, result.output
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines()
    ]
    rows = [row for row in cells if row]
    assert "".join(row[0] for row in rows).replace(" ", "") == str(image).replace(" ", "")
    expected = load(saved_run / "model.keras")(image, 5).labels
    answers = [row[1:] for row in rows if row[1]]
    assert answers == [[label, f"{score:.4f}"] for label, score in expected]
    of_file = run("predict", saved_run / "model.keras", image)
    assert of_file.stdout == result.stdout


def test_predict_reads_standard_input_and_prints_json_lines(saved_run):
    """A file that is not an image is reported at its position, and the exit code is 2."""
    image, missing = saved_run / "Prüfling.png", saved_run / "nowhere.png"
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(image)
    result = CliRunner().invoke(
        app,
        ["predict", str(saved_run), "-", "--json", "--top", "2"],
        input=f"{image}\n\n{missing}\n{image}\n",
    )
    assert result.exit_code == 2
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(image), str(missing), str(image)]
    expected = load(saved_run / "model.keras")(image, 2).labels
    answers = [(answer["label"], answer["score"]) for answer in lines[2]["labels"]]
    assert [label for label, _ in answers] == [label for label, _ in expected]
    assert [score for _, score in answers] == pytest.approx([score for _, score in expected])
    assert "nowhere.png" in lines[1]["error"]
    assert result.stderr.count("nowhere.png") == 1


@pytest.mark.parametrize("table", [(), ("--layers",)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_summary_fits_80_columns(variant, table):
    result = run("summary", "--variant", variant, *table)
    assert result.exit_code == 0
    table, cost = result.output.rstrip("\n").rsplit("\n", 1)
    assert max(len(line) for line in table.splitlines()) <= 80
    assert "…" not in table  # Rich's mark of a truncated cell
    assert "multiply-adds" in cost


def test_summary_of_the_paper():
    lines = run("summary", "--variant", "paper").output.splitlines()
    (row,) = (line.split() for line in lines if line.split()[:1] == ["4a"])
    # facts of Table 1: widths, true and printed parameters and operations
    assert " ".join(row) == "4a 14x14 192 96 208 16 48 64 366.8K 73.6M 364K 73M"
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
    assert_mistake(run("summary", "--input-size", 16), "31x31")


def _start_training(folder: Path) -> subprocess.Popen:
    arguments = [
        "train",
        "--variant",
        "nano",
        "--batch-size",
        "500",
        "--epochs",
        "90",
        "--out",
        folder,
    ]
    # A shell makes background processes ignore Ctrl-C, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


def test_ctrl_c_keeps_the_last_epoch_and_prints_its_path(tmp_path):
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
    if folder.exists():  # the first step was being taken
        assert any((folder / "snapshots").iterdir())
        assert str(folder) in stderr
        assert "no model" in stderr
    else:
        assert "There is nothing to resume, and no folder is left." in stderr


COUNTING = """
import keras


class Counting(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        open("ended", "w").close()
"""


@pytest.mark.usefixtures("small_sample")
def test_a_callback_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_callbacks.py").write_text(COUNTING)
    spec = tmp_path / "spec.json"
    spec.write_text(quick_spec().to_json())
    common = ("train", "--spec", spec, "--epochs", 1, "--batch-size", 16, "--out", tmp_path / "run")
    wrong = run(*common, "--callback", "own_callbacks:Missing")
    assert_mistake(wrong, "--callback package.module:Class", "own_callbacks:Missing")
    result = run(*common, "--callback", "own_callbacks:Counting")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ended").exists()
