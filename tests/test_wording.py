"""Counts in messages: in the singular where there is one."""

import importlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from test_cli import quick_spec, run
from test_tuning_search import pretended

import keras_inception.data.sources
from keras_inception.data.sample import load_sample
from keras_inception.data.splits import ImageData, Split
from keras_inception.wording import counted

# "1 images", "of 1 held-out images", but not "0.1 images", "10 x 1 images" or "1 class".
_WRONG = re.compile(r"(?<![\d.,x] )(?<![\d.,:/])\b1 (?:[a-z-]+ )?(?!class\b|loss\b|is\b)[a-z]+s\b")


def test_counts() -> None:
    assert counted(1, "image") == "1 image"
    assert counted(0, "image") == "0 images"
    assert counted(1200, "held-out image") == "1,200 held-out images"
    assert counted(2, "class") == "2 classes"
    assert counted(1, "branch") == "1 branch"
    assert counted(3, "branch") == "3 branches"
    assert counted(2, "epoch") == "2 epochs"


def one_of_each(name: str, **_: Any) -> ImageData:
    """One image to train and one held out of the sample's ten classes; seven for a search."""
    whole = load_sample()
    count = 7 if name == "dir:search" else 1
    train, test = cast(Split, whole.train), cast(Split, whole.test)
    picked = np.flatnonzero(train.labels == 3)[:count]
    return ImageData(
        whole.name,
        Split(train.images[picked], train.labels[picked]),
        Split(test.images[:1], test.labels[:1]),
        whole.class_names,
        note="1 image held out",
    )


def test_messages_of_runs_with_one_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras_inception.data.sources, "open_data", one_of_each)
    monkeypatch.setattr(importlib.import_module("tuning.run"), "train_candidate", pretended)
    monkeypatch.setattr("tuning.base.POINTS", 1)
    Path("spec.json").write_text(replace(quick_spec(), name="one").to_json())
    Path("images").mkdir()
    Image.new("L", (28, 28)).save("images/one.png")
    Path("images/.hidden").touch()
    search = ("tune", "--variant", "nano", "--data", "dir:search", "--out", "search")
    commands: list[tuple[object, ...]] = [
        ("train", "--spec", "spec.json", "--epochs", 1, "--set", "shift=1", "--out", "run"),
        ("info", "run"),
        ("evaluate", "run"),
        ("predict", "run", "images"),
        (*search, "--epochs", 1, "--trials", 1, "--finalists", 1, "--seeds", 1),
        ("tune-report", "search"),
    ]
    printed = ""
    for words in commands:
        result = run(*words)
        assert result.exit_code == 0, (words, result.output)
        printed += result.output
    for path in ("run/README.md", "run/report.html", "search/report.html"):
        printed += re.sub(r"(?s)<script.*?</script>|data:[^\"]*", "", Path(path).read_text())
    # What is there to be found.
    for right in ("1 epoch ", "1 trial by", "1 full training", "1 held-out image", "1 file left"):
        assert right in printed, right
    assert _WRONG.findall(printed) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("1 images", True),
        ("of 1 held-out images.", True),
        ("(1 trials)", True),
        ("1 class", False),
        ("1 image", False),
        ("28 x 28 x 1 pixels", False),
        ("21 images, 0.1 images, epoch 1/2 steps", False),
    ],
)
def test_the_search_for_wrong_counts(text: str, wrong: bool) -> None:
    assert bool(_WRONG.search(text)) == wrong
