"""What people expect of `keras-inception train`: words, signals, resume, a full disk, callbacks."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import tiny_spec
from processes import ENVIRONMENT
from test_cli import assert_mistake, quick_spec, run, small_sample
from test_cli_first_steps import asked
from test_train import DATA, RECIPE, one_module_spec

import keras_inception.training.finish
from keras_inception.cli import display, silence, waits
from keras_inception.cli.tune_display import SearchDisplay
from keras_inception.data.record import write_record
from keras_inception.data.sample import load_sample
from keras_inception.network.build import build_network
from keras_inception.training.progress import TRAINING, Progress
from keras_inception.training.run import train
from keras_inception.training.snapshot import Snapshot, Snapshots

__all__ = ["asked", "small_sample"]  # fixtures

COMMAND = "from keras_inception.cli import main; main()"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_sample: None) -> tuple[str, ...]:
    """The arguments of a run of seconds in a new working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.json").write_text(quick_spec().to_json())
    return "train", "--spec", "tiny.json", "--epochs", "2", "--batch-size", "16"


def process(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    # A shell makes background processes ignore Ctrl-C, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Early stopping


def test_patience_is_an_option_and_a_field_of_the_recipe(asked):
    assert run("train", "--patience", 3, "--set", "class_weights=balanced").exit_code == 0
    assert asked["recipe"].patience == 3
    assert asked["recipe"].class_weights == "balanced"
    assert run("train", "--set", "patience=4").exit_code == 0
    assert asked["recipe"].patience == 4


# Words for waits


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the display reads."""
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_has_step_seconds_and_time_left(clock):
    shown = display.TrainingDisplay()
    shown.report("compiling the training step")
    clock[0] = 8.0
    assert shown._line() == "compiling the training step, 8 s"
    shown._begin(10, 50)  # resumed after ten steps
    shown.report(TRAINING)
    for _ in range(10):
        shown._advance("loss 1.000")
    clock[0] = 28.0
    # Ten steps in 20 s, thirty to go.
    assert shown._line() == "training: step 20/50 after 20 s, about 60 s left"
    for _ in range(30):
        shown._advance("loss 1.000")
    shown.report("exporting the SavedModel")
    clock[0] = 98.0
    assert shown._line() == "exporting the SavedModel, 70 s"


def test_a_run_that_stops_early_has_no_time_left(clock):
    shown = display.TrainingDisplay()
    shown._begin(0, 50)
    shown.report(TRAINING)
    for _ in range(10):
        shown._advance("loss 1.000")
    shown.callback.on_train_end()
    shown.report("exporting the SavedModel")
    clock[0] = 7.0
    assert shown._line() == "exporting the SavedModel, 7 s"


def test_waits_one_after_the_other_are_one_silence(monkeypatch, capsys):
    """The second prints what neither alone would."""
    now = [100.0]
    monkeypatch.setattr(silence.time, "monotonic", lambda: now[0])
    silence.end()
    with waits.waiting("the first"):
        now[0] += waits.SILENCE - 1
    printed = ""
    with waits.waiting("the second"):
        now[0] += 2
        for _ in range(600):
            if printed := capsys.readouterr().err:
                break
            threading.Event().wait(0.1)
    assert printed == "the second, 2 s\n"


@pytest.mark.parametrize(
    ("command", "part", "words"),
    [
        (("evaluate", "MODEL"), "keras_inception.inference.predictor.load", "Loading the model"),
        (("export", "MODEL"), "keras_inception.exporters.job.export", "loading the model"),
        (("predict", "MODEL", "MODEL"), "keras_inception.inference.predictor.load", "Loading the"),
    ],
)
def test_without_a_terminal_waits_of_other_commands_have_lines(
    monkeypatch, tmp_path, command, part, words
):
    """A part of the command takes until a line is printed, and then fails."""
    printed = threading.Event()
    monkeypatch.setattr(waits, "SILENCE", 0.0)
    monkeypatch.setattr(waits.errors, "print", lambda line: lines.append(line) or printed.set())
    lines: list[str] = []

    def long(*_: object, **__: object) -> None:
        printed.clear()
        assert printed.wait(60)
        raise ValueError("long enough")

    monkeypatch.setattr(part, long)
    model = tmp_path / "model.keras"
    build_network(tiny_spec()).save(model)
    words_of = [str(model) if word == "MODEL" else word for word in command]
    assert run(*words_of).exit_code == 2
    assert any(line.startswith(words) and line.endswith(" s") for line in lines)


def test_a_command_begins_its_own_silence(monkeypatch):
    monkeypatch.setattr(silence, "_since", -1e9)
    assert run("summary", "--variant", "nano").exit_code == 0
    assert silence.seconds() < 1e6


def test_a_silent_search_prints_a_line(monkeypatch, tmp_path, capsys):
    """Also where no trial has ended since the last one."""
    shown = SearchDisplay(tmp_path, 5, 1)
    for due in (False, True, False):
        monkeypatch.setattr(waits, "SILENCE", 0.0 if due else float("inf"))
        shown._last_update = -2.0
        shown.update()
    line = "0 of 5 trials done, 0 failed, 0 running; best none yet\n"
    assert capsys.readouterr().out == 2 * line


def test_a_silent_display_prints_a_line(monkeypatch):
    printed = threading.Event()
    monkeypatch.setattr(waits, "SILENCE", 0.0)
    monkeypatch.setattr(display.TrainingDisplay, "_print", lambda self, line: printed.set())
    with display.TrainingDisplay():
        assert printed.wait(60)


# Signals

BLOCKED = """
import hashlib, keras


class Blocked(keras.callbacks.Callback):
    '''In the first step, minutes in C.'''

    def on_train_batch_end(self, batch, logs=None):
        print("blocked", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_a_second_ctrl_c_ends_a_process_that_is_busy_in_c(tmp_path):
    """The first is answered at once; neither waits for the main thread."""
    (tmp_path / "blocked.py").write_text(BLOCKED)
    with process(
        *("train", "--variant", "nano", "--callback", "blocked:Blocked"),
        *("--out", tmp_path / "run", "--batch-size", 500),
        PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]),
    ) as started:
        assert any(line == "blocked\n" for line in started.stdout)
        started.send_signal(signal.SIGINT)
        assert any(
            "Stopping after this step; again to stop now." in line for line in started.stderr
        )
        started.send_signal(signal.SIGINT)
        started.communicate()
    assert started.returncode == 1


# Resume


def test_resume_takes_the_run_that_was_saved_last_and_says_from_where(asked):
    """By what the snapshots record: the run with the older name was saved later."""
    data = load_sample()
    for day, saved_at in ((1, 2000.0), (2, 1000.0)):
        folder = Path(f"saved_models/small-fashion_mnist_sample-2026010{day}-120000")
        progress = Progress(step=40 + day, epoch=3)
        document = {"progress": asdict(progress), "saved_at": saved_at}
        Snapshots(folder / "snapshots").save(40 + day, Snapshot(document, {}))
        write_record(folder, data)
    result = run("train", "--resume")
    assert result.exit_code == 0, result.output
    assert asked["folder"].name.endswith("20260101-120000")
    assert f"Resuming {asked['folder']} from step 41, after epoch 3; saved 1970-" in result.stdout


def test_a_run_that_was_killed_after_its_metrics_has_finished(tiny, monkeypatch):
    command = (*tiny, "--out", "run")

    def kill(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(keras_inception.training.finish, "clear", kill)
        assert run(*command).exit_code == 1
    assert Path("run/metrics.json").exists()
    assert Path("run/snapshots").is_dir()
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert "Resuming" not in result.stdout
    assert "Held-out accuracy" in result.stdout
    assert not Path("run/snapshots").exists()


# A full disk


def test_a_disk_that_is_full_during_the_export_is_one_line(tiny, small_disk, monkeypatch):
    """The run is then finished by the same command."""
    filler, export = small_disk / "filler", keras_inception.training.finish._export

    def export_to_a_full_disk(*arguments: object) -> None:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        export(*arguments)

    command = (*tiny, "--out", small_disk / "run")
    with monkeypatch.context() as patched:
        patched.setattr(keras_inception.training.finish, "_export", export_to_a_full_disk)
        assert_mistake(run(*command), "No space left on device")
    left = {path.name for path in (small_disk / "run").iterdir()}
    assert "model.keras" in left
    assert "saved_model" not in left
    assert not any(name.startswith(".partial-") for name in left)
    filler.unlink()
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert (small_disk / "run" / "saved_model").is_dir()


# Output that nobody reads


@pytest.mark.slow
def test_a_training_goes_on_when_its_output_is_closed(tmp_path):
    """As in `train | head -1`."""
    with process(
        *("train", "--variant", "nano", "--epochs", 1, "--batch-size", 500),
        *("--out", tmp_path / "run"),
    ) as started:
        assert started.stdout.readline()
        started.stdout.close()
        errors = started.stderr.read()
    assert started.returncode == 0, errors
    assert (tmp_path / "run" / "metrics.json").exists()


# Packages


@pytest.mark.parametrize(("backend", "extra"), [("tensorflow", "cpu"), ("jax", "jax")])
def test_a_missing_backend_is_one_line(tmp_path, backend, extra):
    script = f"import sys; sys.modules[{backend!r}] = None\n{COMMAND}"
    ended = subprocess.run(
        [sys.executable, "-c", script, "train", "--out", str(tmp_path / "run")],
        env=ENVIRONMENT | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        f"Error: Expected the package {backend!r}. It is not installed: "
        f'pip install "keras-inception[{extra}]"\n'
    )
    assert not (tmp_path / "run").exists()


def test_a_backend_that_does_not_train_is_one_line(tmp_path):
    pytest.importorskip("torch")
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, "train", "--out", str(tmp_path / "run")],
        env=ENVIRONMENT | {"KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    line = ended.stderr.splitlines()[-1]  # after "Loading Keras" on a machine under load
    assert "Expected KERAS_BACKEND=tensorflow or jax to train. Received: 'torch'" in line
    assert not (tmp_path / "run").exists()


# Notebooks


def test_train_shows_keras_own_progress_bar(tmp_path, capsys):
    train(one_module_spec(), DATA, replace(RECIPE, epochs=2), tmp_path / "run")
    shown = capsys.readouterr().out
    assert "Epoch 2/2" in shown
    steps = len(DATA.train) // RECIPE.batch_size
    assert f"{steps}/{steps}" in shown
    assert "val_accuracy" in shown
