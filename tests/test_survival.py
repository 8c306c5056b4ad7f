"""Runs that are killed, run out of disk space or find damaged files end with the same weights."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from processes import ENVIRONMENT, run, saved_weights, start, start_workers, wait_for_all
from training_job import RECIPE
from training_steps import noise, one_module_spec

import keras_inception.training.finish
import keras_inception.training.run
from keras_inception.spec.recipe import Recipe
from keras_inception.training.progress import TrainingDivergedError, TrainingInterruptedError
from keras_inception.training.run import train
from keras_inception.training.signals import StopSignals
from keras_inception.training.snapshot import Snapshots
from keras_inception.training.step import Trainer
from keras_inception.training.strategy import make_trainer

MODELS = ("model.keras", "unaveraged.keras")
SHORT = replace(RECIPE, epochs=2)


class StopError(Exception):
    """Raised by a callback in the middle of a run."""


class StopAfter(keras.callbacks.Callback):
    """Stops the run at a step, like a crash."""

    def __init__(self, step: int, how: Callable[[], None]) -> None:
        super().__init__()
        self._step = step
        self._how = how

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if int(self.model.optimizer.iterations) == self._step:
            self._how()


def crash() -> None:
    raise StopError


def job(folder: Path, recipe: Recipe = SHORT, **arguments: object) -> None:
    """A run in this process, with a snapshot after each step."""
    spec = one_module_spec(batch_norm=True, dropout_rate=0.4)
    train(spec, noise(), recipe, folder, snapshot_steps=1, verbose=0, **arguments)


def crashed(folder: Path, step: int) -> None:
    with pytest.raises(StopError):
        job(folder, callbacks=[StopAfter(step, crash)])


def assert_same_run(folder: Path, expected: Path, *, tolerance: float = 0.0) -> None:
    for name in MODELS:
        received = saved_weights(folder, name)
        if tolerance:
            assert_allclose(received, saved_weights(expected, name), rtol=0, atol=tolerance)
        else:
            assert_array_equal(received, saved_weights(expected, name))
            histories = [(f / "history.csv").read_text() for f in (folder, expected)]
            assert histories[0] == histories[1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    job(folder)
    return folder


# Resume


def test_resume_with_a_damaged_newest_snapshot_gives_the_same_weights(uninterrupted, tmp_path):
    """Stopped in the second epoch; the newest snapshot is damaged, so the previous one is used."""
    crashed(tmp_path / "run", step=9)
    newest = sorted((tmp_path / "run" / "snapshots").glob("*.npz"))[-1]
    assert newest.name == "step-000000008.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"step-000000008\.npz cannot be read"):
        job(tmp_path / "run")
    assert_same_run(tmp_path / "run", uninterrupted)
    assert not (tmp_path / "run" / "snapshots").exists()


def test_another_recipe_is_refused_with_the_difference(tmp_path):
    crashed(tmp_path, step=2)
    changed = replace(SHORT, clip_norm=2.0)
    with pytest.raises(ValueError, match=r" - recipe\.clip_norm: 1\.0\n \+ recipe\.clip_norm: 2"):
        job(tmp_path, changed)
    assert Snapshots(tmp_path / "snapshots").newest().document["progress"]["step"] == 1


def test_a_signal_writes_a_snapshot_and_the_run_resumes(uninterrupted, tmp_path):
    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterruptedError, match="Stopped after step 3, as asked"):
        job(tmp_path, callbacks=[StopAfter(3, terminate)])
    assert signal.getsignal(signal.SIGTERM) == before
    assert Snapshots(tmp_path / "snapshots").newest().document["progress"]["step"] == 3
    job(tmp_path)
    assert_same_run(tmp_path, uninterrupted)


def test_a_non_finite_loss_names_the_step_and_keeps_the_snapshot_before(tmp_path):
    """A weight becomes NaN after step 4: step 4 gets no snapshot, that of step 3 is kept."""

    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            if batch == 3:
                self.model.trainable_weights[0].assign(
                    np.full(self.model.trainable_weights[0].shape, np.nan)
                )

    with pytest.raises(TrainingDivergedError, match="not finite at step 4, in epoch 1"):
        job(tmp_path, callbacks=[Poison()])
    document, arrays = Snapshots(tmp_path / "snapshots").newest()
    assert document["progress"]["step"] == 3
    assert all(np.isfinite(values).all() for values in arrays.values())


def test_a_finished_run_is_not_restarted(uninterrupted):
    with pytest.raises(ValueError, match="holds files of a finished run"):
        job(uninterrupted)


def test_callbacks_may_end_the_run(tmp_path):
    class Enough(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.model.stop_training = True

    job(tmp_path, callbacks=[Enough()])
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 2  # a header and an epoch


def test_steps_started_ahead_are_the_same_steps(uninterrupted, tmp_path, monkeypatch):
    """On an accelerator two steps run before the first one's metrics are waited for."""

    def ahead(*arguments: object, **keywords: object) -> Trainer:
        trainer = make_trainer(*arguments, **keywords)
        trainer.steps_ahead = 2
        return trainer

    monkeypatch.setattr(keras_inception.training.run, "make_trainer", ahead)
    batches = []

    class Batches(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            batches.append(batch)
            if len(batches) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    spec = one_module_spec(batch_norm=True, dropout_rate=0.4)
    with pytest.raises(TrainingInterruptedError, match="Stopped after step 5, as asked"):
        train(spec, noise(), SHORT, tmp_path, callbacks=[Batches()], verbose=0)
    assert batches == [0, 1, 2, 3, 4]
    assert Snapshots(tmp_path / "snapshots").newest().document["progress"]["step"] == 5
    train(spec, noise(), SHORT, tmp_path, verbose=0)
    assert_same_run(tmp_path, uninterrupted)


def test_a_run_killed_after_its_metrics_has_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_inception.training.finish, "clear", lambda folder: crash())
    with pytest.raises(StopError):
        job(tmp_path)
    monkeypatch.undo()
    metrics = (tmp_path / "metrics.json").read_text()
    assert (tmp_path / "snapshots").is_dir()
    other = replace(SHORT, clip_norm=2.0)
    with pytest.raises(ValueError, match=r"\+ recipe\.clip_norm: 2"):
        job(tmp_path, other)
    job(tmp_path)
    assert not (tmp_path / "snapshots").exists()
    assert (tmp_path / "metrics.json").read_text() == metrics


def test_a_signal_during_the_export_stops_before_the_next_part(uninterrupted, tmp_path):
    def report(words: str) -> None:
        if words.startswith("exporting"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterruptedError, match="evaluation and export remain"):
        job(tmp_path, report=report)
    assert not (tmp_path / "metrics.json").exists()
    job(tmp_path)
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("part", ["an epoch", "the run"])
def test_a_signal_during_an_evaluation_stops_it(part, uninterrupted, tmp_path, monkeypatch):
    """After the first batch of held-out images; the run resumes with the evaluation."""
    seen = []

    class Terminate(keras.callbacks.Callback):
        def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            seen.append(batch)
            if part == "an epoch":
                os.kill(os.getpid(), signal.SIGTERM)

    def report(words: str) -> None:
        if part == "the run" and words.startswith("evaluating") and len(seen) == 2 * batches:
            os.kill(os.getpid(), signal.SIGTERM)

    batches = -(-len(noise().test) // SHORT.batch_size)
    assert batches > 1
    with monkeypatch.context() as patched:
        # Neither evaluation comes to its end.
        patched.delattr(keras_inception.training.finish, "evaluate_scores")
        with pytest.raises(TrainingInterruptedError, match="as asked"):
            job(tmp_path, callbacks=[Terminate()], report=report)
    assert len(seen) == (1 if part == "an epoch" else 2 * batches)
    progress = Snapshots(tmp_path / "snapshots").newest().document["progress"]
    assert progress["epoch"] == (0 if part == "an epoch" else 2)
    job(tmp_path)
    assert_same_run(tmp_path, uninterrupted)


def test_a_signal_is_acknowledged_while_the_main_thread_is_in_c():
    acknowledged = []
    with StopSignals(lambda *signal: acknowledged.append(signal)) as signals:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGHUP)).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 6_000_000)  # seconds in C
        assert acknowledged == [(signal.SIGHUP, 1)]
    assert signals.received == signal.SIGHUP
    assert not signals.by_hand


# Killed processes


def wait_for_snapshot(folder: Path, process: subprocess.Popen[str], after: int = 0) -> None:
    """Wait for a snapshot of a step beyond `after`, or the end of the process."""
    while process.poll() is None and last_step(folder) <= after:
        time.sleep(0.01)


def last_step(folder: Path) -> int:
    steps = [int(path.stem[5:]) for path in (folder / "snapshots").glob("step-*.npz")]
    return max(steps, default=0)


@pytest.mark.slow
def test_twenty_kills_of_a_run(tmp_path):
    """Kill -9 at random moments of start-up, steps, writes, ends of epochs; bit for bit equal."""
    moments = random.Random(1)
    kills = 0
    run("training_job.py", "cpu:1", tmp_path / "expected", "epochs=20")
    folder = tmp_path / "run"
    while kills < 20:
        process = start("training_job.py", "cpu:1", folder, "epochs=20")
        if kills % 5 == 4:
            time.sleep(moments.uniform(0, 5))
        else:
            wait_for_snapshot(folder, process, after=last_step(folder))
            time.sleep(moments.uniform(0, 0.3))
        assert process.poll() is None, process.communicate()[1][-3000:]
        process.kill()
        process.communicate()
        kills += 1
    run("training_job.py", "cpu:1", folder, "epochs=20")
    assert_same_run(folder, tmp_path / "expected")


@pytest.mark.slow
def test_a_kill_on_two_devices(tmp_path):
    run("training_job.py", "cpu:2", tmp_path / "expected")
    process = start("training_job.py", "cpu:2", tmp_path / "run")
    wait_for_snapshot(tmp_path / "run", process, after=8)
    process.kill()
    process.communicate()
    run("training_job.py", "cpu:2", tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "expected", tolerance=1e-6)


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_and_both_resume(tmp_path):
    job_of = ("training_job.py", "multi-worker")
    wait_for_all(start_workers(*job_of, tmp_path / "expected", "epochs=6"))
    chief, other = start_workers(*job_of, tmp_path / "run", "epochs=6")
    wait_for_snapshot(tmp_path / "run", chief, after=2)
    other.kill()
    other.communicate()
    _, errors = chief.communicate()
    assert chief.returncode != 0
    assert "TrainingInterruptedError: Another worker was lost after step" in errors, errors[-3000:]
    wait_for_all(start_workers(*job_of, tmp_path / "run", "epochs=6"))
    assert_same_run(tmp_path / "run", tmp_path / "expected", tolerance=1e-6)


def test_a_full_disk_ends_the_run_and_keeps_earlier_snapshots(uninterrupted, small_disk):
    """The disk is full after step 8; the run resumes once there is space."""
    folder, filler = small_disk / "run", small_disk / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    with pytest.raises(OSError, match="No space left"):
        job(folder, callbacks=[StopAfter(8, fill)])
    assert last_step(folder) == 7
    assert not list((folder / "snapshots").glob(".partial-*"))
    filler.unlink()
    job(folder)
    assert_same_run(folder, uninterrupted)


# The command


def command(*arguments: object) -> subprocess.Popen[str]:
    script = "from keras_inception.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", script, "train", "--variant", "nano", *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_the_command_twice_in_one_folder_terminated_and_resumed(tmp_path):
    """The second is refused; SIGTERM ends the first with status 75; --resume continues it."""
    common = ("--epochs", 1, "--set", "batch_size=500", "--snapshot-steps", 1, "--out")
    folder = tmp_path / "run"
    first = command(*common, folder)
    wait_for_snapshot(folder, first, after=1)
    first.send_signal(signal.SIGSTOP)  # otherwise it may finish before the second starts
    _, errors = command(*common, folder).communicate()
    assert "Expected a folder in which no other run is going on" in errors
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate()
    assert first.returncode == 75, errors[-3000:]
    assert "resumes it." in errors

    other = command(*common, folder, "--set", "label_smoothing=0.3")
    _, errors = other.communicate()
    assert other.returncode == 2
    assert "- recipe.label_smoothing: 0.0 + recipe.label_smoothing: 0.3" in errors

    resumed = command(*common, folder, "--resume")
    output, errors = resumed.communicate()
    assert resumed.returncode == 0, errors[-3000:]
    assert "Held-out accuracy" in output
