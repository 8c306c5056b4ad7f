"""No folder is left by a run, a search or an export that fails before its first step."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import pytest
from conftest import tiny_spec
from processes import ENVIRONMENT
from test_cli import assert_mistake, quick_spec, run

import keras_inception.training.run
from keras_inception.locks import only_run_in
from keras_inception.network.build import build_network
from keras_inception.new_folders import begun, left_as_found, remove_unbegun, removed_if_unbegun


def write_and_fail(folder: Path, *, after_begun: bool = False) -> None:
    def write() -> None:
        with removed_if_unbegun(folder):
            (folder / "snapshots").mkdir(parents=True)
            (folder / "snapshots" / "one").touch()
            (folder / ".lock").touch()
            if after_begun:
                begun(folder)
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        write()


def test_a_new_folder_and_its_new_parents_are_removed(tmp_path: Path) -> None:
    write_and_fail(tmp_path / "runs" / "one")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_stays_empty(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_and_fail(tmp_path / "mine")
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_a_folder_that_holds_files_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    write_and_fail(tmp_path)
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "snapshots" / "one").exists()


def test_a_folder_that_has_begun_stays(tmp_path: Path) -> None:
    write_and_fail(tmp_path / "run", after_begun=True)
    assert (tmp_path / "run" / "snapshots" / "one").exists()


def test_a_block_that_succeeds_keeps_its_folder(tmp_path: Path) -> None:
    with removed_if_unbegun(tmp_path / "run"):
        (tmp_path / "run").mkdir()
    remove_unbegun()
    assert (tmp_path / "run").exists()


def test_blocks_in_each_other_share_the_folder(tmp_path: Path) -> None:
    """The outer one knows which parents are new."""

    def write() -> None:
        with removed_if_unbegun(tmp_path / "runs" / "one"):
            (tmp_path / "runs" / "one").mkdir(parents=True)
            write_and_fail(tmp_path / "runs" / "one")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_the_process_removes_it(tmp_path: Path) -> None:
    with removed_if_unbegun(tmp_path / "runs" / "one"):
        (tmp_path / "runs" / "one").mkdir(parents=True)
        (tmp_path / "runs" / "one" / "spec.json").touch()
        remove_unbegun()
        assert list(tmp_path.iterdir()) == []


def test_another_process_keeps_its_folder(tmp_path: Path) -> None:
    """Two that begin at once: the second sees an empty folder, and then the first one's lock."""
    folder = tmp_path / "run"

    def second() -> None:
        with removed_if_unbegun(folder), only_run_in(folder):
            pass

    with only_run_in(folder), pytest.raises(ValueError, match="has locked"):
        second()
    assert folder.exists()

    def during() -> None:
        with removed_if_unbegun(folder), only_run_in(folder):
            (folder / "spec.json").touch()
            with only_run_in(folder):
                pass

    with pytest.raises(ValueError, match="has locked"):
        during()
    assert (folder / "spec.json").exists()


def test_a_check_leaves_a_folder_as_it_was(tmp_path: Path) -> None:
    with left_as_found(tmp_path / "runs" / "one"):
        (tmp_path / "runs" / "one").mkdir(parents=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with left_as_found(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


# --- commands -----------------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a spec of the sample's size, and a model of another one."""
    monkeypatch.chdir(tmp_path)
    Path("spec.json").write_text(quick_spec().to_json())
    Path("model.keras").write_text("no model")
    Path("broken.json").write_text('{"schema_version": 3}')
    return tmp_path


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"spec.json", "model.keras", "broken.json"}


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--data", "dir:missing"),
        ("train", "--data", "tfds:no_such_data"),
        ("train", "--spec", "broken.json"),
        ("train", "--init", "model.keras"),
        ("train", "--batch-size", 100_000),
        ("train", "--freeze-until", "9z"),
        ("train", "--callback", "json:JSONDecoder"),
        ("train", "--set", "class_weights=[1,2]"),
        ("train", "--variant", "paper_floor", "--input-size", 32),
        ("train", "--variant", "bn"),
        ("train", "--resume"),
        ("tune", "--data", "dir:missing"),
        ("tune", "--spec", "broken.json"),
        ("tune", "--budget-macs", 1000),
        ("tune", "--halving-epochs", "5,2"),
        ("tune", "--oracle", "bayesian", "--second-objective", "macs"),
        ("tune", "--data-fraction", "0"),
        ("design", "--data", "dir:missing"),
        ("design", "--spec", "broken.json"),
        ("design", "--budget-macs", 1000),
        ("export", "model.keras"),
        ("evaluate", "model.keras"),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_usage_errors_leave_nothing(work: Path, words: tuple[object, ...]) -> None:
    assert run(*words).exit_code == 2
    assert left(work) == set()
    if words[0] != "train" or "--resume" not in words:
        assert run(*words, "--out", "runs/one").exit_code == 2
        assert left(work) == set()


def test_what_fails_before_the_first_step_leaves_nothing(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras_inception.training.run, "write_record", full)
    assert_mistake(run("train", "--spec", "spec.json", "--data", "sample"), "No space left")
    assert left(work) == set()
    monkeypatch.undo()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tuning.run.NetworkTuner", full)
    assert run("tune", "--variant", "nano", "--finalists", 0).exit_code == 2
    assert left(work) == set()
    build_network(tiny_spec()).save("model.keras")
    monkeypatch.setattr("keras_inception.exporters.job.write_text", full)
    assert run("export", "model.keras", "--out", "exports/one").exit_code == 2
    assert left(work) == set()


class Interrupted(keras.callbacks.Callback):
    """Ctrl-C while the first step is compiled, as far as Python sees it."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_before_the_first_step_leaves_nothing(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    words = ("train", "--spec", "spec.json", "--data", "sample", "--out", "runs/one")
    result = run(*words, "--callback", f"{__name__}:Interrupted")
    assert result.exit_code == 1
    assert left(work) == set()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_second_ctrl_c_while_compiling_leaves_nothing(tmp_path: Path) -> None:
    """In a process of its own: it ends at once, without Python's clean-up."""
    folder = tmp_path / "runs" / "one"
    program = "import sys; from keras_inception.cli import main; main()"
    words = ("train", "--variant", "small", "--out", str(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env=ENVIRONMENT,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "data.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "There is nothing to resume, and no folder is left." in stderr
    assert list(tmp_path.iterdir()) == []
