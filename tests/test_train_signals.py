"""Ctrl-C, SIGTERM and SIGHUP while `keras-inception train` compiles and exports, on a terminal and
without one, under both engines.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import ENVIRONMENT
from test_train_command import COMMAND

pty = pytest.importorskip("pty")  # not on Windows

ACKNOWLEDGED = "Stopping after this step; again to stop now."
WORDS = {"compile": "compiling the training step", "export": "exporting the SavedModel"}
# Without a terminal, a line a second.
CHATTY = f"from keras_inception.cli import waits; waits.SILENCE = 0.0; {COMMAND}"
# Prints when the first step has been compiled and taken.
MARK = """
import keras


class Mark(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            print("the first step is taken", flush=True)
"""


class Command:
    """The command in a process of its own, and what it writes to standard output and error."""

    def __init__(self, folder: Path, backend: str, *, terminal: bool) -> None:
        (folder / "mark.py").write_text(MARK)
        path = os.pathsep.join([str(folder), *sys.path])
        # A shell makes background processes ignore Ctrl-C, and child processes inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._read, written = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", CHATTY, "train", "--variant", "nano", "--epochs", "1"),
                *("--batch-size", "500", "--callback", "mark:Mark", "--out", folder / "run"),
            ],
            env=ENVIRONMENT
            | {"KERAS_BACKEND": backend, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
        os.close(written)
        self.output = ""

    def wait_for(self, words: str) -> None:
        """Read until the command has written `words`."""
        for text in self._texts():
            self.output += text
            if words in self.output:
                return
        raise AssertionError(f"Expected {words!r}. Received: {self.output[-3000:]}")

    def interrupt(self, phase: str, name: str) -> None:
        """Send a signal in a phase, and wait until it is acknowledged."""
        self.wait_for(WORDS[phase])
        self.process.send_signal(getattr(signal, name))
        self.wait_for(ACKNOWLEDGED)

    def end(self) -> int:
        """Read the rest, and return the exit status."""
        self.output += "".join(self._texts())
        os.close(self._read)
        return self.process.wait()

    def _texts(self) -> Iterator[str]:
        while True:
            try:
                data = os.read(self._read, 1 << 16)
            except OSError:  # the end of a terminal
                return
            if not data:
                return
            yield data.decode(errors="replace")


@pytest.mark.parametrize(
    ("backend", "terminal", "phase", "name"),
    [
        ("tensorflow", True, "compile", "SIGINT"),
        pytest.param("tensorflow", True, "export", "SIGHUP", marks=pytest.mark.slow),
        pytest.param("tensorflow", False, "export", "SIGTERM", marks=pytest.mark.slow),
        pytest.param("jax", False, "compile", "SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_the_first_signal_is_answered_at_once(tmp_path, backend, terminal, phase, name):
    command = Command(tmp_path, backend, terminal=terminal)
    command.interrupt(phase, name)
    code = command.end()
    assert code == (1 if name == "SIGINT" else 75), command.output
    begun, answered = (command.output.index(words) for words in (WORDS[phase], ACKNOWLEDGED))
    assert begun < answered
    if phase == "compile":
        assert answered < command.output.index("the first step is taken")
        assert "Stopped after step 1, as asked." in command.output
        assert [path.stem for path in (tmp_path / "run" / "snapshots").iterdir()] == [
            "step-000000001"
        ]
    else:
        assert "Stopped after the last step, as asked; evaluation and export remain." in (
            command.output
        )
        assert not (tmp_path / "run" / "metrics.json").exists()
    assert "resumes it." in command.output
    assert "Traceback" not in command.output


@pytest.mark.parametrize(
    ("backend", "terminal", "phase", "name"),
    [
        ("tensorflow", False, "export", "SIGINT"),
        ("jax", True, "compile", "SIGINT"),
        pytest.param("tensorflow", True, "compile", "SIGTERM", marks=pytest.mark.slow),
        pytest.param("jax", False, "compile", "SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_the_second_signal_stops_now(tmp_path, backend, terminal, phase, name):
    command = Command(tmp_path, backend, terminal=terminal)
    command.interrupt(phase, name)
    command.process.send_signal(getattr(signal, name))
    code = command.end()
    assert code == (1 if name == "SIGINT" else 75), command.output
    assert "Traceback" not in command.output
    run = tmp_path / "run"
    if phase == "compile":
        nothing = "Stopped. There is nothing to resume, and no folder is left."
        assert nothing in command.output
        assert "the first step is taken" not in command.output
        assert not run.exists()
    else:
        assert "Stopped. The model of the last complete epoch is in" in command.output
        assert not (run / "saved_model").exists()
        assert not list(run.glob(".partial-*"))
    if terminal:  # the bar hides the cursor
        assert command.output.rindex("\x1b[?25h") > command.output.rindex("\x1b[?25l")
