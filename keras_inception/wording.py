"""Counts in messages. Standard library only."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 image", "1,200 images", "2 classes".

    Args:
        count: of the things.
        noun: in the singular, with a regular plural.
    """
    ending = "es" if noun.endswith(("s", "nch")) else "s"
    return f"{count:,} {noun if count == 1 else noun + ending}"


def has_top_5(classes: int) -> bool:
    """Whether the top-5 accuracy of so many classes is worth showing: of five it is always 1."""
    return classes > 5
