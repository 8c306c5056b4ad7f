"""Commands on folders whose JSON has another shape, and names with control characters."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from conftest import tiny_spec
from rich.table import Table
from test_cli import run
from test_hostile_json import METRICS, mutations
from test_tuning_report import folder as searched

import keras_inception.training.run
import tuning.report.page
from keras_inception.cli.common import console
from keras_inception.cli.run_folder import print_resume
from keras_inception.data.record import write_record
from keras_inception.data.sample import load_sample
from keras_inception.data.splits import ImageData, Split
from keras_inception.files import csv_text
from keras_inception.runtimes.timing import Conditions, Timing, read_timings, write_timings
from keras_inception.spec.recipe import QUICK
from keras_inception.training.snapshot import Snapshot, Snapshots
from tuning.run import read_curves

__all__ = ["searched"]  # a fixture: twelve trials
# Valid JSON, or nearly, that no command writes.
SHAPES = (
    "null",
    "[]",
    "{}",
    "3",
    '"text"',
    "true",
    "NaN",
    "1e999",
    "-0",
    "[" * 5000,
    "[[" * 40 + "]" * 80,
    '{"a":' * 30 + "1" + "}" * 30,
    "",
    "\ufeff{}",
    '{"a":1}',
    "[{}]",
    '"\\ud800"',
    '{"schema_version":1}',
    '{"schema_version":99}',
    '{"schema_version":null}',
    "9" * 5000,
    '{"__class__":"x"}',
    "{} {}",
    "\x00",
    '{"":{"\\u001b[31m":"<script>"}}',
)
DATA = {
    "source": "sample",
    "training images": 12,
    "held-out images": 3,
    "classes": ["cat", "dog", "fox", "owl", "bee"],
}


def others(text: str, count: int) -> Iterator[str]:
    """What may stand in the place of a document: other shapes, half of it, and changed values."""
    yield from SHAPES
    yield text[: len(text) // 2]
    yield from map(json.dumps, mutations(json.loads(text), count))


def assert_reported(file: Path, command: Callable[[], Any], count: int) -> int:
    """Run a command on each of `others`: it works, or ends in one line; returns how often."""
    text, refused = file.read_text(), 0
    for other in others(text, count):
        file.write_text(other)
        result = command()
        assert result.exit_code in (0, 2), (other[:200], result.output, result.exception)
        assert "\x1b" not in result.output
        if result.exit_code == 2:
            lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
            assert len(lines) == 1, (other[:200], result.stderr)
            assert file.name in lines[0], (other[:200], lines[0])
            assert len(lines[0]) < 2000
            refused += 1
    file.write_text(text)
    return refused


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["spec.json", "recipe.json", "data.json", "metrics.json"])
def test_info_of_a_run_with_other_documents(tmp_path, name):
    documents = {
        "spec.json": tiny_spec().to_json(),
        "recipe.json": QUICK.to_json(),
        "data.json": json.dumps(DATA),
        "metrics.json": json.dumps(METRICS),
    }
    for document, text in documents.items():
        (tmp_path / document).write_text(text)
    assert run("info", tmp_path).exit_code == 0
    assert assert_reported(tmp_path / name, lambda: run("info", tmp_path), 60) > 40


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["search.json", "data.json", "trial_00/trial.json"])
def test_the_report_of_a_search_with_other_documents(searched, monkeypatch, name):
    monkeypatch.setattr(tuning.report.page, "draw_pictures", lambda *_: None)
    monkeypatch.setattr(tuning.report.page, "importance", lambda *_: {})
    monkeypatch.setattr(tuning.report.page, "_drawn", lambda figures: [])
    monkeypatch.setattr("keras_inception.cli.tune_display.is_installed", lambda package: False)
    (searched / "data.json").write_text(json.dumps(DATA))
    for number in range(2, 12):
        shutil.rmtree(searched / f"trial_{number:02d}")
    assert run("tune-report", searched).exit_code == 0
    least = 0 if "trial" in name else 20  # a trial is left out, which a warning says
    assert assert_reported(searched / name, lambda: run("tune-report", searched), 40) >= least


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["best_spec.json", "data.json"])
def test_training_the_best_network_of_a_folder_with_other_documents(tmp_path, monkeypatch, name):
    def reached(*_: Any, **__: Any) -> None:
        raise ValueError(f"Reached with {name}.")

    monkeypatch.setattr(keras_inception.training.run, "train", reached)
    (tmp_path / "best_spec.json").write_text(tiny_spec(channels=1, classes=10).to_json())
    write_record(tmp_path, load_sample())
    spec, out = tmp_path / "best_spec.json", tmp_path / "run"
    assert assert_reported(tmp_path / name, lambda: run("train", "--spec", spec, "--out", out), 40)


def test_a_snapshot_without_progress_is_not_resumed(tmp_path, capsys):
    for document in ({}, {"progress": None}):
        Snapshots(tmp_path / "snapshots").save(1, Snapshot(document, {}))
        print_resume(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_damaged_curve_is_set_aside(tmp_path):
    for number, text in enumerate(("[0.5, 0.6]", "[]", '["x"]', "[2.0]", "{}", "[0.5,")):
        (tmp_path / f"trial_{number}").mkdir()
        (tmp_path / f"trial_{number}" / "curve.json").write_text(text)
    with pytest.warns(UserWarning, match=r"curve\.json cannot be read .* set aside"):
        assert read_curves(tmp_path) == [[0.5, 0.6]]
    assert len(list(tmp_path.glob("*/curve.unreadable"))) == 5


def test_a_resumed_run_writes_damaged_documents_again(tmp_path):
    data = ImageData(
        name="tiny",
        train=Split(load_sample().train.images[:8], load_sample().train.labels[:8]),
        test=Split(load_sample().test.images[:8], load_sample().test.labels[:8]),
        class_names=load_sample().class_names,
    )

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    spec = tiny_spec(size=28, channels=1, classes=10)
    recipe = QUICK.__class__.from_json(
        json.dumps(json.loads(QUICK.to_json()) | {"epochs": 2, "batch_size": 4})
    )
    train = keras_inception.training.run.train
    with pytest.raises(KeyboardInterrupt):
        train(spec, data, recipe, tmp_path, callbacks=[Stop()], verbose=0)
    for name in ("spec.json", "recipe.json", "data.json", "labels.txt"):
        (tmp_path / name).write_text("[]")
    train(spec, data, recipe, tmp_path, verbose=0)
    assert json.loads((tmp_path / "data.json").read_text())["training images"] == 8
    assert (tmp_path / "spec.json").read_text() == spec.to_json()
    assert (tmp_path / "recipe.json").read_text() == recipe.to_json()
    assert (tmp_path / "labels.txt").read_text().splitlines() == list(data.class_names)


def test_control_characters_never_reach_the_terminal(capsys):
    table = Table("name\x1b[0m")
    table.add_row("a\x1b]8;;http://x\x07b\u202e\udcff")
    console.print(table)
    console.print("c\x9b31m", "two\nlines")
    out = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in out)
    assert r"\x1b" in out
    assert "two\nlines" in out


def test_names_are_no_formulas_in_csv(tmp_path):
    for text in ("=cmd|' /C calc'!A0", "+1", "-2", "@SUM(A1)", " =1"):
        assert csv_text(text).startswith("'")
    assert csv_text("a=b") == "a=b"
    data = load_sample()
    left_out = (("=HYPERLINK(0).jpg", "+bad"),)
    write_record(tmp_path, ImageData(**{**vars(data), "unreadable": left_out}))
    rows = list(csv.reader((tmp_path / "left_out.csv").read_text().splitlines()))
    assert rows[1] == ["file", "'=HYPERLINK(0).jpg", "'+bad"]


def test_the_path_of_a_timed_network_is_no_formula_and_is_found_again(tmp_path):
    write_timings(
        tmp_path / "t.csv", {tmp_path / "=1.onnx": (Conditions(threads=1, device="x"), 2.0)}
    )
    (timing,) = read_timings(tmp_path / "t.csv")
    assert isinstance(timing, Timing)
    assert "./=1.onnx" in (tmp_path / "t.csv").read_text()
