"""What libraries in C++ write to standard error: held back while all goes well, and never lost.

The programs of these tests write to file descriptor 2 themselves, as TensorFlow does.
"""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

IMPORTS = """
import os, signal, subprocess, sys, time
from keras_inception.cli.native_output import held_back
"""
BEGIN = f"""{IMPORTS}
with held_back():
    os.write(2, b"noise\\n")
    print("message", file=sys.stderr)
    print("answer")
"""


def ended(
    lines: str = "", begin: str = BEGIN, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run a program that holds back, and then `lines`."""
    body = "".join(f"    {line}\n" for line in lines.splitlines())
    return subprocess.run(
        [sys.executable, "-c", begin + body],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        timeout=60,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("", 0),
        ("sys.exit(2)", 2),
        ("sys.exit(75)", 75),
        ("from keras_inception.cli.native_output import drop_held; drop_held(); os._exit(75)", 75),
        # Somebody stops it, with and without a handler of its own.
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(60)", -signal.SIGHUP),
        (
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
            "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
            7,
        ),
        # More than a pipe takes at once.
        ("for _ in range(100_000): os.write(2, b'noise, 80 bytes a line' + b'.' * 57 + b'\\n')", 0),
        # A process that inherits the descriptor.
        ("subprocess.run(['sh', '-c', 'echo noise >&2'], check=True)", 0),
    ],
)
def test_noise_is_dropped(lines, code):
    result = ended(lines)
    assert (result.returncode, result.stdout, result.stderr) == (code, "answer\n", "message\n")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("raise TypeError('broken')", 1),
        ("os.abort()", -signal.SIGABRT),  # as a failed check in C++
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os._exit(3)", 3),
    ],
)
def test_noise_is_shown_when_the_command_fails(lines, code):
    result = ended(f"os.write(2, b'reason')\n{lines}")
    assert result.returncode == code
    assert result.stderr.startswith("message\nnoise\nreason")
    assert ("TypeError: broken" in result.stderr) == ("TypeError" in lines)


def test_the_newest_of_much_noise_is_shown():
    result = ended("for n in range(200_000): os.write(2, b'%9d\\n' % n)\nos.abort()")
    shown = result.stderr.splitlines()
    assert shown[0] == "message"
    assert shown[-1] == "   199999"
    assert 100_000 < len(shown) < 110_000  # a megabyte of ten bytes a line


def test_a_process_that_outlives_the_program_can_write_on(tmp_path):
    # It must neither be killed by a closed pipe, nor keep those waiting who read the output.
    done = tmp_path / "done"
    script = f"sleep 2; for i in $(seq 10000); do echo noise >&2 || exit 1; done; touch {done}"
    started = time.monotonic()
    result = ended(f"subprocess.Popen(['sh', '-c', {script!r}], stdout=subprocess.DEVNULL)")
    assert result.stderr == "message\n"
    assert not done.exists(), f"waited {time.monotonic() - started:.1f} s"
    while not done.exists() and time.monotonic() - started < 60:
        time.sleep(0.1)
    assert done.exists()


def test_standard_error_may_be_a_file_or_closed(tmp_path):
    file = tmp_path / "errors.txt"
    with file.open("w") as stream:
        ended(stderr=stream)
    assert file.read_text() == "message\n"
    begin = f"{IMPORTS}with held_back():\n    print('answer')\n"
    result = ended(begin=begin, preexec_fn=lambda: os.close(2))
    assert (result.returncode, result.stdout) == (0, "answer\n")


def test_on_a_terminal_python_still_writes_to_a_terminal():
    ours, theirs = pty.openpty()
    result = ended("print(sys.stderr.isatty())", stderr=theirs)
    os.close(theirs)
    assert result.stdout == "answer\nTrue\n"
    assert os.read(ours, 1000) == b"message\r\n"
    os.close(ours)


def test_ctrl_c_on_the_terminal_shows_nothing():
    # As from a terminal, to the whole process group.
    lines = (
        "os.setpgid(0, 0)\n"
        "try:\n    os.killpg(0, signal.SIGINT); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    sys.exit(1)"
    )
    result = ended(lines)
    assert (result.returncode, result.stderr) == (1, "message\n")
