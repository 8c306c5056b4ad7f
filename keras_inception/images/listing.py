"""Which files are images, by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as they are; of folders the images in them and below, by suffix, sorted."""
    for path in paths:
        if path.is_dir():
            yield from (
                file
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
            )
        else:
            yield path
