"""The description of the machine, for the tables."""

import os
import platform
from pathlib import Path

# Processor flags for low-precision arithmetic.
_FLAGS = ("avx512_bf16", "amx_bf16", "amx_int8")


def device() -> str:
    """Return the processor's name, its low-precision flags (on Linux) and its number of cores."""
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    name = names[0] if names else platform.processor() or platform.machine()
    return " ".join([name, *(flag for flag in _FLAGS if flag in text)])
