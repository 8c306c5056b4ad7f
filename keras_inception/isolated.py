"""Child processes with limits, for what C libraries make of bytes of unknown origin.

A crash or an endless loop there ends the child, not its parent. Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from keras_inception.bounded import shown

# The status of a child that refuses its input, with the reason on standard output.
REFUSED = 2
# Of processor time; 100 MB of compressed weights take about one.
_SECONDS = 5.0
_BYTES_PER_SECOND = 50_000_000
# A machine that is busy with other things may take this much longer.
_PATIENCE = 10


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line of a child that runs a module of this package."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """This process's, with its import path, and no threads whose stacks count as memory."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **single, "PYTHONPATH": path}


def limit(seconds: float, memory: int) -> None:
    """Limit this process, for good. Nothing is limited on Windows, which has no such limits.

    Args:
        seconds: of processor time from now on; then SIGPROF ends the process.
        memory: bytes that it may add to those that it has.
    """
    if not hasattr(signal, "setitimer"):
        return
    import resource

    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ignored where a profiler of C++ is loaded
    signal.setitimer(signal.ITIMER_PROF, seconds)
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # pipes are no files
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def check(
    module: str, content: bytes, memory: int, *arguments: str, seconds: float = _SECONDS
) -> None:
    """Have a module of this package check bytes in a child process.

    Args:
        module: run with the bytes as standard input, and the limits and arguments as arguments; it
            calls `limit` first, and exits with `REFUSED` and the reason on standard output.
        content: the bytes.
        memory: bytes that the child may add to those that it starts with.
        *arguments: of the module.
        seconds: of processor time, beside those that the bytes take.

    Raises:
        ValueError: the child refused them, died, or passed a limit.
    """
    seconds += len(content) / _BYTES_PER_SECOND
    try:
        result = subprocess.run(
            command(module, str(seconds), str(memory), *arguments),
            input=content,
            capture_output=True,
            env=environment(),
            timeout=_PATIENCE * seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"it takes more than {_PATIENCE * seconds:.0f} s to read") from error
    if result.returncode == REFUSED:
        raise ValueError(result.stdout.decode(errors="replace"))
    if result.returncode == -getattr(signal, "SIGPROF", 0):
        raise ValueError(f"it takes more than {seconds:.0f} s to read")
    if result.returncode:
        raise ValueError(f"its reader ended with status {result.returncode}{_last_line(result)}")


def _last_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last line of errors; a signal's is the end of a stack trace, if there is one."""
    lines = result.stderr.decode(errors="replace").strip().splitlines()
    return f": {shown(lines[-1])}" if lines and result.returncode > 0 else ""
