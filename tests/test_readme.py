"""The README and the pages that a newcomer reads first: commands exist, every snippet runs."""

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_inception import GoogLeNet, open_data
from keras_inception.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_family_table_has_the_published_counts():
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", README, flags=re.MULTILINE))
    assert "6,998,552 | 1,582,671,872" in rows["paper"]
    assert "6,624,904 | 1,498,376,192" in rows["torchvision"]  # torchvision's own table


def test_exactly_two_set_up_commands():
    commands = re.findall(r"^python3 -m venv .*$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith(".venv/bin/keras-inception train")
    assert commands[1].endswith(".venv/bin/pytest")


@pytest.mark.parametrize("command", re.findall(r"`keras-inception (\w[\w-]*)", README))
def test_every_command_named_exists(command):
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


EXAMPLE, *MIGRATION = blocks(ROOT / "README.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone after `train`: a run, the docs, and the cache of ImageNet weights, all small."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "docs").symlink_to(ROOT / "docs")
    photos = ROOT / "keras_inception" / "assets" / "photos"
    for name in ("cat.jpg", "picture.jpg"):
        shutil.copy(photos / "cat.jpg", folder / name)
    for label in ("cat", "rocket"):
        for name in ("one.jpg", "two.jpg"):
            (folder / "my images" / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / f"{label}.jpg", folder / "my images" / label / name)
    run = folder / "saved_models" / "RUN"
    run.mkdir(parents=True)
    model = GoogLeNet(weights=None, variant="nano")
    model.save(run / "model.keras")
    (run / "labels.txt").write_text("\n".join(open_data("sample").class_names) + "\n")
    cache = folder / "home" / "models" / "keras_inception"
    cache.mkdir(parents=True)
    for name, variant in (("bvlc", "paper"), ("torchvision", "torchvision"), ("slim", "slim")):
        model = GoogLeNet(weights=None, variant=variant)
        model.save_weights(cache / f"{name}_1000_v1.weights.h5")
    return folder


@pytest.fixture
def clone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KERAS_HOME", str(folder / "home"))


def run(code: str) -> dict[str, Any]:
    """Run a snippet on two images of noise; return its names."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype("float32")
    names: dict[str, Any] = {"pixels": pixels}
    exec(compile(code, "snippet", "exec"), names)
    return names


@pytest.mark.usefixtures("clone")
def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Five lines after the import. Their output is the README's, but for the untrained labels."""
    assert len(ast.parse(EXAMPLE).body) == 6
    run(EXAMPLE)
    labels, *lines = capsys.readouterr().out.splitlines()
    assert [len(label) for label in ast.literal_eval(labels)] == [2, 2]
    shown_labels, *shown = re.search(r"```\n(\[\(.*?)```", README, flags=re.DOTALL)[1].splitlines()
    assert ast.literal_eval(shown_labels)[0][0] == "Ankle boot"
    assert lines == shown
    assert int(re.search(r"macs=(\d+)", lines[-1])[1]) <= 600_000_000


@pytest.mark.usefixtures("clone")
@pytest.mark.parametrize("code", MIGRATION)
def test_the_three_lines_for_other_libraries_run(code: str) -> None:
    names = run(code)
    assert len([line for line in code.splitlines() if line]) == 3
    if "scores" in names:
        assert names["scores"].shape == (2, 1000)
    if "vectors" in names:
        assert names["vectors"].output_shape == (None, 1024)
        grids = names["features"](np.zeros((1, 224, 224, 3), np.float32))
        assert [224 // grid.shape[1] for grid in grids.values()] == [2, 4, 8, 16, 32]


# Pages whose snippets run on the files of `folder`; the others need a training or public weights.
PAGES = ("migration", "quickstart", "predicting", "own-images")
SNIPPETS = [
    pytest.param(code, id=f"{page}-{number}")
    for page in PAGES
    for number, code in enumerate(blocks(ROOT / "docs" / f"{page}.md"))
]


@pytest.mark.usefixtures("clone")
@pytest.mark.parametrize("code", SNIPPETS)
def test_the_snippets_of_a_page_run(code: str) -> None:
    assert run(code)


@pytest.mark.usefixtures("clone")
def test_the_snippets_about_looking_inside_run() -> None:
    """Two of them; gradient ascent takes longer and has tests of its own."""
    names: dict[str, Any] = {
        "model": GoogLeNet(weights=None, variant="nano"),
        "pixels": open_data("sample").test.images[:2],
    }
    for code in blocks(ROOT / "docs" / "visualization.md")[:2]:
        exec(compile(code, "snippet", "exec"), names)
    assert names["maps"].shape[0] == 2
    assert names["maps"].shape[-1] == 10
    assert set(names["found"]) == set(names["names"])
