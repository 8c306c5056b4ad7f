"""Which folders of a folder of images are its parts, and which are its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_inception.images.listing import IMAGE_SUFFIXES, Listing

# The parts of a data set, and the names of their folders in lower case.
TRAIN, VALIDATION, TEST = "train", "validation", "test"
_PARTS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
}


@dataclass(frozen=True)
class Layout:
    """Where the class folders lie.

    Attributes:
        parts: the name of a folder in the root -> its part; empty: the class folders lie in the
            root itself.
        names: the class folders of the training images.
    """

    parts: Mapping[str, str]
    names: tuple[str, ...]


def find_layout(root: Path, listing: Listing) -> Layout:
    """Where the class folders of a folder lie.

    Raises:
        ValueError: fewer than two class folders, two folders of one part, or class folders of
            held-out images that the training images do not have.
    """
    inside = _children(root, listing)
    parts = {name: _PARTS[name.lower()] for name in inside if name.lower() in _PARTS}
    training = [name for name, part in parts.items() if part == TRAIN]
    alone = _with_images(root, listing) <= set(training)
    holds_classes = bool(training) and all(
        _holds_classes(root / name, listing) for name in training
    )
    if not (holds_classes and (alone or len(parts) > len(training))):
        return Layout({}, _class_names(root, inside, listing))
    for part in set(parts.values()):
        same = [name for name, own in parts.items() if own == part]
        if len(same) > 1:
            raise ValueError(
                f"Expected one folder of {part} images. Received: {str(root)!r} with {same}. "
                "Rename or move all but one."
            )
    names = _class_names(root / training[0], _children(root / training[0], listing), listing)
    for name in parts:
        unknown = sorted(_with_images(root / name, listing) - set(names))
        if unknown:
            raise ValueError(
                "Expected only class folders that the training images have too. Received: "
                f"{str(root / name)!r} with {unknown[:10]}. Rename or move them."
            )
    return Layout(parts, names)


def _children(folder: Path, listing: Listing) -> tuple[str, ...]:
    """Names of the visible folders in a folder."""
    return tuple(sorted(path.name for path in listing.folders if path.parent == folder != path))


def _with_images(folder: Path, listing: Listing) -> set[str]:
    """Names of the folders in a folder in which, or below, files have the names of images."""
    return {parts[0] for parts in _images(folder, listing) if len(parts) > 1}


def _holds_classes(folder: Path, listing: Listing) -> bool:
    """Whether most files of a folder lie in folders inside it, so that it is not a class itself."""
    depths = [len(parts) for parts in _images(folder, listing)]
    return 2 * depths.count(1) < len(depths)


def _images(folder: Path, listing: Listing) -> list[tuple[str, ...]]:
    """The parts of the paths in a folder of files that have the names of images."""
    return [
        path.relative_to(folder).parts
        for path in listing.files
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_relative_to(folder)
    ]


def _class_names(root: Path, names: tuple[str, ...], listing: Listing) -> tuple[str, ...]:
    if len(names) > 1:
        return names
    inner = _children(root / names[0], listing) if names else ()
    hint = (
        f"Its own folders are {list(inner[:10])}: give {str(root / names[0])!r}."
        if inner
        else "Put the images of each class into a folder of its own."
    )
    raise ValueError(
        f"Expected a folder for each class, at least two. Received: {str(root)!r} with "
        f"{list(names)}. {hint}"
    )
