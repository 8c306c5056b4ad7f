"""Processor seconds of each command until its first words on a terminal, and its foreign lines.

    python benchmarks/first_line.py

Each command runs on a pseudo-terminal, in a folder with a run of `nano` of one epoch. "First words"
are the first that a person sees, if only what the command waits for. Processor seconds are those of
the command and its children, so background load changes them little. A foreign line is one of
TensorFlow, XLA, oneDNN, MLIR, a converter or a logger of Python. Writes
benchmarks/results/first_line.csv.
"""

import csv
import os
import pty
import re
import select
import signal
import socket
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import NamedTuple

import psutil
from machine import device

RESULTS = Path(__file__).parent / "results" / "first_line.csv"
PHOTOS = Path(__file__).parents[1] / "keras_inception" / "assets" / "photos"
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")
FOREIGN = re.compile(
    rb"^[IWEF]\d{4} |absl::InitializeLog|oneDNN|XLA|MLIR|tf2onnx|tensorflow(?!\.org)|retracing"
    rb"|[a-z]Warning: |INFO:|WARNING:|nncf"
)
# In an order in which each finds what it needs.
COMMANDS = (
    "--help",
    "--version",
    "trian",
    "train --help",
    "train --variant nano --epochs 1 --out run",
    "summary",
    "info run",
    "weights list",
    f"predict run {PHOTOS}",
    "evaluate run",
    "export run --format all",
    "time run/export/model.tflite",
    "design --model run --out designed",
    "tune --variant nano --epochs 1 --trials 1 --finalists 0 --out search",
    "tune-report search",
    "serve run --port {port}",
)


class Measured(NamedTuple):
    """Processor seconds of a command, and its lines of other libraries."""

    first_words: float
    whole: float | None  # None of a server, which does not end by itself
    foreign_lines: int


def main() -> None:
    """Measure every command, print and write the table."""
    about = (device(), date.today().isoformat())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with RESULTS.open("w", newline="") as file, tempfile.TemporaryDirectory() as folder:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("command", "first_words", "to_its_end", "foreign_lines", "device", "date"))
        for command in COMMANDS:
            found = measured(command.format(port=port), Path(folder))
            name = command.replace(str(PHOTOS), "PHOTOS").partition(" --port")[0]
            whole = "" if found.whole is None else f"{found.whole:.2f}"
            rows.writerow((name, f"{found.first_words:.2f}", whole, found.foreign_lines, *about))
            print(name, found, flush=True)


def measured(command: str, folder: Path) -> Measured:
    """Run a command on a terminal of its own; a server is stopped when it has named its address."""
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
        os.execl(sys.executable, sys.executable, "-m", "keras_inception", *command.split())
    process, shown, first, stopped = psutil.Process(child), b"", None, False
    while (read := _read(terminal)) is not None:
        shown += read
        if first is None and CONTROL.sub(b"", shown).strip():
            first = _seconds(process)
        if command.startswith("serve") and b"http://" in shown and not stopped:
            os.kill(child, signal.SIGINT)
            stopped = True
    _, _, used = os.wait4(child, 0)
    lines = re.split(rb"[\r\n]+", CONTROL.sub(b"", shown))
    foreign = sum(bool(FOREIGN.search(line)) for line in lines)
    whole = used.ru_utime + used.ru_stime
    return Measured(whole if first is None else first, None if stopped else whole, foreign)


def _read(terminal: int) -> bytes | None:
    """What is new on the terminal within a moment; None when it is closed."""
    try:
        ready, _, _ = select.select([terminal], [], [], 0.02)
        return (os.read(terminal, 65536) or None) if ready else b""
    except OSError:
        return None


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return sum((times.user, times.system, times.children_user, times.children_system))


if __name__ == "__main__":
    main()
