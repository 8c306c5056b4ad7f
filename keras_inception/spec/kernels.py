"""Sets of kernel sizes as text, such as "3,5": the one grammar of options, spaces and reports."""

from __future__ import annotations

from collections.abc import Iterable


def kernel_sizes(text: str) -> tuple[int, ...]:
    """Read a set of kernel sizes, odd numbers separated by commas; "" is the empty set.

    Raises:
        ValueError: anything else.
    """
    try:
        sizes = tuple(int(size) for size in text.split(",")) if text else ()
    except ValueError:
        sizes = (0,)
    if any(size < 1 or size % 2 == 0 for size in sizes):
        raise ValueError(
            "Expected odd kernel sizes separated by commas, such as 1,3,5. "
            f"Received: kernels={text!r}"
        )
    return sizes


def kernel_text(sizes: Iterable[int]) -> str:
    """The inverse of `kernel_sizes`."""
    return ",".join(map(str, sizes))
