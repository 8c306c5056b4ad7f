"""Which instructions for int8 products the processor has. Standard library only."""

from __future__ import annotations

from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
# x86's VNNI (two encodings) and AMX, and ARM's dot product and matrix instructions.
_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def int8_instructions() -> tuple[str, ...] | None:
    """Names of the processor's flags; () where it has none, None where it cannot be known."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return None
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    if not lines:
        return None
    flags = lines[0].partition(":")[2].split()
    return tuple(name for name in _INT8 if name in flags)
