"""Every command in a process of its own: no line of TensorFlow or another library is printed."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from processes import free_ports

from keras_inception.cli.program import _COMMANDS

FOREIGN = re.compile(
    r"^[IWEF]\d{4} |absl::InitializeLog|oneDNN|XLA|MLIR|tf2onnx|tensorflow(?!\.org)|retracing"
    r"|UserWarning|DeprecationWarning|INFO:|WARNING:|nncf",
    re.MULTILINE,
)
PHOTOS = Path(__file__).parents[1] / "keras_inception" / "assets" / "photos"
# Each command with its arguments, in an order in which each finds what it needs.
LINES = {
    "train": ["--variant", "nano", "--epochs", "1", "--out", "run"],
    "summary": [],
    "info": ["run"],
    "evaluate": ["run"],
    "predict": ["run", str(PHOTOS)],
    "export": ["run", "--format", "all"],
    "time": ["run/export/model.tflite"],
    "design": ["--model", "run", "--out", "designed"],
    "tune": ["--variant", "nano", "--epochs", "1", "--trials", "1", "--out", "search"],
    "tune-report": ["search"],
    "weights": ["list"],
}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "keras_inception", *words]


def environment() -> dict[str, str]:
    """Without the level that the tests' own environment may set."""
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return inherited | {"PYTHONPATH": os.pathsep.join(sys.path)}


def test_every_command_is_tried_here() -> None:
    assert set(LINES) | {"serve"} == set(_COMMANDS)


@pytest.mark.slow
def test_no_command_prints_lines_of_libraries(tmp_path: Path) -> None:
    for name, words in LINES.items():
        result = subprocess.run(
            command(name, *words), cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert result.returncode == 0, (name, result.stderr)
        for text in (result.stdout, result.stderr):
            assert not FOREIGN.search(text), (name, text)


@pytest.mark.slow
def test_serve_prints_its_address_alone(tmp_path: Path) -> None:
    train = command("train", *LINES["train"])
    subprocess.run(train, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    (port,) = free_ports(1)
    server = subprocess.Popen(
        command("serve", "run", "--port", str(port)),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10)
            break
        except OSError:
            time.sleep(0.5)
    server.send_signal(signal.SIGTERM)
    out, errors = server.communicate(timeout=60)
    assert str(port) in out
    assert not FOREIGN.search(out + errors), errors


def test_libraries_are_shown_on_request_and_when_the_command_fails(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from keras_inception.cli import program\n"
        "def app(words):\n"
        "    os.write(2, b'noise\\n')\n"
        "    if 'fail' in words: raise RuntimeError('broken')\n"
        "program.app = app\n"
        "program.main()\n"
    )

    def shown(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program, *words],
            env=environment(),
            capture_output=True,
            text=True,
        ).stderr

    assert shown("train") == ""
    assert shown("train", "--verbose") == "noise\n"
    failed = shown("fail")
    assert failed.startswith("noise\n")
    assert failed.endswith("RuntimeError: broken\n")
