"""Signals at the first and the last moment of a command, each in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tiny_spec
from processes import ENVIRONMENT
from training_steps import PLAIN, noise, one_module_spec

import keras_inception.training.run
from keras_inception.network.build import build_network
from keras_inception.training.progress import TrainingInterruptedError
from keras_inception.training.run import train

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

# A shell makes background processes ignore Ctrl-C, and nohup makes them ignore SIGHUP.
HEEDING = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
COMMAND = "from keras_inception.cli import main; main()"
# A backend that is loaded for ever, and in which Python's exceptions get lost.
LOADING = """
import os, signal, time
os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))
while True:
    try:
        time.sleep(1)
    except BaseException:
        pass
"""
# Sends the signal while Python ends.
LATE = """
import atexit
atexit.register(lambda: os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"])))
"""


def ended(
    folder: Path, program: str, *words: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program of Python with the words of a command."""
    return subprocess.run(
        [sys.executable, "-c", HEEDING + program, *map(str, words)],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 1), ("SIGTERM", 75), ("SIGHUP", 75)])
@pytest.mark.parametrize(
    "command",
    [
        *("train", "tune", "design", "export model.keras", "evaluate model.keras"),
        *("predict model.keras model.keras", "weights convert model.keras --to to.keras"),
    ],
)
def test_a_signal_while_the_backend_is_loaded(
    tmp_path: Path, command: str, name: str, code: int
) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "keras.py").write_text(LOADING)
    if "model.keras" in command:
        build_network(tiny_spec()).save(tmp_path / "model.keras")
    path = os.pathsep.join([str(tmp_path / "packages"), ENVIRONMENT["PYTHONPATH"]])
    result = ended(tmp_path, COMMAND, *command.split(), SIGNAL=name, PYTHONPATH=path)
    assert result.stderr == "Stopped. No incomplete files are left; start the command again.\n"
    assert result.returncode == code
    assert {item.name for item in tmp_path.iterdir()} <= {"packages", "model.keras"}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_python_ends_leaves_the_exit_status(tmp_path: Path, name: str) -> None:
    result = ended(tmp_path, LATE + COMMAND, "summary", "--variant", "nano", SIGNAL=name)
    assert (result.returncode, result.stderr) == (0, "")
    assert "nano" in result.stdout
    result = ended(tmp_path, LATE + COMMAND, "train", "--variant", "vgg", SIGNAL=name)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_ctrl_c_while_the_first_files_are_written_is_heeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noted before a file is written, and the run stops before its first step."""

    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(keras_inception.training.run, "write_record", interrupted)
    with pytest.raises((TrainingInterruptedError, KeyboardInterrupt)) as caught:
        train(one_module_spec(), noise(), PLAIN, tmp_path / "run", verbose=0)
    assert isinstance(caught.value, TrainingInterruptedError)
    assert "Stopped after step 0" in str(caught.value)
