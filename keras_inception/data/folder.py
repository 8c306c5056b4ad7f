"""A folder of image files as a data set: one subfolder per class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_inception.data.scan import Place, scan
from keras_inception.data.splits import FileSplit, ImageData, ImageFile

_TRAIN = "train"
# The first of these folders that exists is held out.
_HELD_OUT = ("test", "validation", "val", "valid")
_HELD_OUT_SHARE = 0.2


def open_folder(root: Path, progress: Callable[[int, int], None] | None = None) -> ImageData:
    """Open the images of a folder.

    Args:
        root: contains one folder per class, with images at any depth; or a folder `train` and one
            of `test`, `validation`, `val`, `valid`, which contain them. Without a held-out folder a
            fifth of each class is held out with a fixed seed; `ImageData.note` says so.
        progress: called with the number of scanned files and the number of all files.

    Raises:
        ValueError: if there is no folder, no class folder, or no readable image.
    """
    if not root.is_dir():
        raise ValueError(f"Expected a folder of images. Received: {str(root)!r}, which is none")
    inside = set(_folders(root))
    held_out = next((name for name in _HELD_OUT if name in inside), None)
    train_root = root / _TRAIN if _TRAIN in inside else root
    test_root = root / held_out if _TRAIN in inside and held_out else None
    names = _class_names(train_root)
    listing = _files(train_root, names)
    first_of_test = len(listing)
    if test_root is not None:
        listing += _files(test_root, _known_class_names(test_root, names))
    files, labels, is_test, unreadable = _readable(listing, names, first_of_test, progress)
    note = f"{held_out!r} is held out" if test_root is not None else ""
    if test_root is None:
        is_test = held_out_rows(labels)
        note = f"a fifth of each class is held out by a fixed seed: {int(is_test.sum())} images"
    train, test = (
        _split(files, labels, chosen, root, part)
        for chosen, part in ((~is_test, "training"), (is_test, "held-out"))
    )
    return ImageData(f"dir:{root}", train, test, names, note, unreadable)


def held_out_rows(labels: np.ndarray) -> np.ndarray:
    """Select a fifth of each class, at least one image of two or more, with a fixed seed.

    Returns:
        N booleans.
    """
    chosen = np.zeros(len(labels), bool)
    random = np.random.default_rng(0)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = max(round(_HELD_OUT_SHARE * len(rows)), 1) if len(rows) > 1 else 0
        chosen[random.permutation(rows)[:count]] = True
    return chosen


def _folders(root: Path) -> tuple[str, ...]:
    """Return the names of its folders, without hidden ones such as .git."""
    return tuple(
        sorted(
            path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
    )


def _class_names(root: Path) -> tuple[str, ...]:
    names = _folders(root)
    if len(names) < 2:
        raise ValueError(
            f"Expected a folder for each class, at least two. Received: {str(root)!r} with "
            f"{list(names)}"
        )
    return names


def _known_class_names(root: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    own = _folders(root)
    unknown = sorted(set(own) - set(names))
    if unknown:
        raise ValueError(
            f"Expected only class folders that the training images have too. Received: "
            f"{str(root)!r} with {unknown[:10]}"
        )
    return own


def _files(root: Path, names: tuple[str, ...]) -> list[tuple[Path, str | None]]:
    """Return (path, class) of every file under `root`, sorted; None outside of class folders."""
    listing: list[tuple[Path, str | None]] = [
        (path, None) for path in sorted(root.iterdir()) if path.is_file()
    ]
    for name in names:
        # A broken link is listed too, and reported as unreadable.
        paths = (path for path in (root / name).rglob("*") if not path.is_dir())
        listing += [(path, name) for path in sorted(paths)]
    return listing


def _readable(
    listing: list[tuple[Path, str | None]],
    names: tuple[str, ...],
    first_of_test: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[ImageFile], np.ndarray, np.ndarray, tuple[tuple[str, str], ...]]:
    """Return readable files, their labels, whether they are test images, and unreadable files."""
    index = {name: label for label, name in enumerate(names)}
    total = len(listing)
    found = scan(
        [Place(str(path), 0, path.stat().st_size if path.exists() else 0) for path, _ in listing],
        None if progress is None else lambda done: progress(done, total),
    )
    files, labels, is_test, unreadable = [], [], [], []
    for position, ((path, name), result) in enumerate(zip(listing, found, strict=True)):
        if name is None:
            unreadable.append((str(path), "lies in no class folder"))
        elif isinstance(result, str):
            unreadable.append((str(path), result))
        else:
            files.append(result)
            labels.append(index[name])
            is_test.append(position >= first_of_test)
    return files, np.array(labels, np.int64), np.array(is_test, bool), tuple(unreadable)


def _split(
    files: list[ImageFile], labels: np.ndarray, chosen: np.ndarray, root: Path, part: str
) -> FileSplit:
    if not chosen.any():
        raise ValueError(f"Expected {part} images. Received: {str(root)!r} without a readable one")
    channels = max(file.channels for file in files)
    own = tuple(file for file, take in zip(files, chosen, strict=True) if take)
    return FileSplit(own, labels[chosen], channels)
