"""First steps on the command line: folders, names, sizes, and common usage errors.

These tests train no network: they replace training by a record of its arguments.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_spec
from PIL import Image
from test_cli import assert_mistake, run

import keras_inception.training.run
from keras_inception.data.record import write_record
from keras_inception.data.sample import load_sample
from keras_inception.data.splits import Split
from keras_inception.exporters.job import Exported, RefusedFormatsError
from keras_inception.exporters.parity import Agreement
from keras_inception.network.build import build_network
from keras_inception.spec.variants import variant_spec
from keras_inception.training.run import TrainResult


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The arguments of the training that a command starts, in a new working directory."""
    seen: dict[str, Any] = {}

    def train(spec: Any, data: Any, recipe: Any, folder: Path, **others: Any) -> TrainResult:
        seen.update(spec=spec, data=data, recipe=recipe, folder=folder, **others)
        return TrainResult(None, folder, {})

    monkeypatch.setattr(keras_inception.training.run, "train", train)
    monkeypatch.chdir(tmp_path)
    return seen


def pictures(folder: Path, size: int = 28) -> Path:
    """Write two classes of 40 grey images, and a file that is not an image."""
    random = np.random.default_rng(0)
    for name in ("hund 🐕", "kätzchen"):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            pixels = random.integers(0, 256, (size, size), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    (folder / "kätzchen" / "Notiz.jpg").write_text("no picture")
    return folder


# --- training -----------------------------------------------------------------------------------


def test_a_folder_of_images_with_non_ascii_names(asked, tmp_path):
    folder = pictures(tmp_path / "Größe 28")
    result = run("train", "--data", f"dir:{folder}", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert asked["data"].class_names == ("hund 🐕", "kätzchen")
    # Unreadable files are reported, not dropped silently.
    assert "1 file left out:" in result.stderr
    assert "Notiz.jpg" in result.stderr
    # The run has one folder, even if the path of the data has slashes and spaces.
    assert asked["folder"].parent == Path("saved_models")
    assert "-Größe-28-" in asked["folder"].name


def test_the_input_size_is_that_of_the_images_or_the_option(asked, tmp_path):
    data = ("--data", f"dir:{pictures(tmp_path / 'data', size=40)}")
    assert run("train", *data).exit_code == 0
    assert asked["spec"].input_shape == (40, 40, 1)
    assert run("train", *data, "--input-size", 32).exit_code == 0
    assert asked["spec"].input_shape == (32, 32, 1)
    paper = ("--variant", "paper_floor", "--input-size", 32)
    assert_mistake(run("train", *data, *paper), "at least 61x61", "(32, 32, 1)")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "Expected a folder of images"),
        ("empty", "Expected a folder for each class, at least two"),
        ("one class", "['cat']"),
        ("unreadable", "Expected training images"),
    ],
)
def test_folders_that_are_not_a_data_set(asked, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one class" / "cat").mkdir(parents=True)
    for letter in "ab":
        (tmp_path / "unreadable" / letter).mkdir(parents=True)
        (tmp_path / "unreadable" / letter / "x.png").write_text("no picture")
    assert_mistake(run("train", "--data", f"dir:{tmp_path / name}"), message)
    assert not asked
    assert not Path("saved_models").exists()


def test_initial_weights_are_a_run_or_a_file(asked, tmp_path):
    assert_mistake(run("train", "--init", "missing.keras"), "Expected a folder", "'missing.keras'")
    assert not Path("saved_models").exists()
    model = tmp_path / "before" / "model.keras"
    model.parent.mkdir()
    fitted = replace(variant_spec("small"), input_shape=(28, 28, 1))
    build_network(fitted).save(model)
    for given in (model, model.parent):
        assert run("train", "--init", given).exit_code == 0
        assert asked["init"] == model


def test_resume_skips_runs_that_ended_before_their_first_snapshot(asked):
    runs = [Path(f"saved_models/small-fashion_mnist_sample-2026010{day}-120000") for day in (1, 2)]
    for folder in runs:
        (folder / "snapshots").mkdir(parents=True)
    assert_mistake(run("train", "--resume"), "Expected an unfinished run")
    (runs[0] / "snapshots" / "step-3.npz").touch()
    write_record(runs[0], load_sample())
    assert run("train", "--resume").exit_code == 0
    assert asked["folder"] == runs[0]


def test_resume_skips_runs_of_other_data_and_finished_runs(asked):
    runs = Path("saved_models")
    name = "small-fashion_mnist_sample"
    for folder in ("20260101-120000", "20260102-120000", "new-20260103-120000"):
        (runs / f"{name}-{folder}" / "snapshots").mkdir(parents=True)
        (runs / f"{name}-{folder}" / "snapshots" / "step-3.npz").touch()
        data = load_sample()
        if folder.startswith("new"):
            data = replace(data, train=Split(data.train.images[::-1], data.train.labels[::-1]))
        write_record(runs / f"{name}-{folder}", data)
    # Killed after its last file was written and before its snapshots were removed.
    (runs / f"{name}-20260102-120000" / "metrics.json").touch()
    assert run("train", "--resume").exit_code == 0
    assert asked["folder"] == runs / f"{name}-20260101-120000"
    # The same command, when the only run left was killed so.
    shutil.rmtree(runs / f"{name}-20260101-120000")
    assert run("train", "--resume").exit_code == 0
    assert asked["folder"] == runs / f"{name}-20260102-120000"


def test_resume_in_a_folder_that_is_missing(asked, tmp_path):
    assert_mistake(run("train", "--resume", "--out", "typo"), "Received: none in 'typo'")
    (tmp_path / "run").mkdir()
    assert run("train", "--resume", "--out", "run").exit_code == 0  # killed before any snapshot


def test_hidden_folders_are_not_classes(asked, tmp_path):
    folder = pictures(tmp_path / "pictures")
    (folder / ".ipynb_checkpoints").mkdir()
    assert run("train", "--data", f"dir:{folder}").exit_code == 0
    assert asked["data"].class_names == ("hund 🐕", "kätzchen")


# --- other commands -----------------------------------------------------------------------------


def saved_model(folder: Path) -> Path:
    folder.mkdir()
    build_network(tiny_spec()).save(folder / "model.keras")
    return folder


def test_no_images_to_predict(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_mistake(run("predict", saved_model(tmp_path / "run"), empty), "Received: none")


def test_export_to_an_unwritable_folder(tmp_path):
    model = saved_model(tmp_path / "run")
    file = tmp_path / "file"
    file.write_text("mine")
    assert_mistake(run("export", model, "--out", file), "Expected a new or empty folder")
    assert_mistake(run("export", model, "--out", file / "export"), "can be written", "'")
    assert file.read_text() == "mine"


def test_export_prints_what_was_measured_before_the_refusal(tmp_path, monkeypatch):
    row = Exported("litert", None, 10, Agreement(48, 0.25, 0.5), None, 1.5)

    def refuse(*_: object, **__: object) -> None:
        raise RefusedFormatsError("onnx: expected more.", [replace(row, kind="keras"), row])

    monkeypatch.setattr("keras_inception.exporters.job.export", refuse)
    result = run("export", saved_model(tmp_path / "run"), "--format", "all")
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: onnx: expected more.\n")
    assert re.search(r"litert .* 2\.5e-01 .* 50\.0% .* 1\.50 ", result.stdout)


def test_design_of_an_invalid_run_and_invalid_kernels(tmp_path):
    assert_mistake(run("design", "--model", tmp_path), "Expected a folder that holds model.keras")
    assert_mistake(run("design", "--kernels", "1,three"), "such as 1,3,5", "'1,three'")
