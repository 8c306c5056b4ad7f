"""A folder of image files as a data set: one folder for each class.

Every file of the folder is in a split or in `ImageData.unreadable`, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_inception.data.folder_layout import TEST, TRAIN, VALIDATION, Layout, find_layout
from keras_inception.data.scan import Place, Scanned, scan
from keras_inception.data.splits import FileSplit, ImageData, ImageFile
from keras_inception.files import printable
from keras_inception.images.listing import LeftOut, Listing, list_folder
from keras_inception.wording import counted

_HELD_OUT_SHARE = 0.2
_NO_CLASS = "lies in no class folder"


def open_folder(
    root: Path,
    progress: Callable[[int, int], None] | None = None,
    known: Scanned | None = None,
) -> ImageData:
    """The images of a folder.

    Args:
        root: holds a folder for each class, with images at any depth; or a folder "train" (or
            "training") of class folders, and others of "val", "valid", "validation" or "dev" and
            of "test", "testing" or "eval", in upper or lower case. Of both, the validation images
            are held out and the test images are `final_test`. Without either a fifth of each class
            is held out, by a fixed seed; `ImageData.note` says so.
        progress: called with the number of files scanned, and of all.
        known: of an earlier scan.

    Raises:
        ValueError: no folder, fewer than two classes with a readable training image, class folders
            of held-out images that the training images do not have, or two folders of one part.
    """
    if not root.is_dir():
        raise ValueError(f"Expected a folder of images. Received: {str(root)!r}, which is none")
    listing = list_folder(root)
    if not listing.folders:
        raise ValueError(
            f"Expected a folder of images. Received: {str(root)!r}, which "
            f"{listing.folders_left_out[0].reason}"
        )
    layout = find_layout(root, listing)
    candidates = _candidates(root, layout, listing)
    results, scanned = _scanned(candidates, progress, known)
    return _sorted_out(root, layout, listing, candidates, results, scanned)


def held_out_rows(labels: np.ndarray, share: float = _HELD_OUT_SHARE, seed: int = 0) -> np.ndarray:
    """Choose a share of each class, at least one image of two or more.

    Args:
        labels: N integers.
        share: below 1; default a fifth.
        seed: of the choice.

    Returns:
        N booleans.
    """
    chosen = np.zeros(len(labels), bool)
    random = np.random.default_rng(seed)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(round(share * len(rows)), 1), len(rows) - 1) if len(rows) > 1 else 0
        chosen[random.permutation(rows)[:count]] = True
    return chosen


def held_out_note(held_out: str, final: str | None = None) -> str:
    """The `ImageData.note` of held-out images, and of test images beside them, by their names."""
    left = "" if final is None else f", {final!r} is left to `evaluate`"
    return f"{held_out!r} is held out{left}"


# --- which file is what -------------------------------------------------------------------------


def _candidates(root: Path, layout: Layout, listing: Listing) -> dict[Path, tuple[str, str] | None]:
    """The part and the class folder of each file; None where it lies in no class folder."""
    depth = 1 if layout.parts else 0
    found: dict[Path, tuple[str, str] | None] = {}
    for path in listing.files:
        folders = path.relative_to(root).parts[:-1]
        part = layout.parts.get(folders[0]) if depth and folders else TRAIN
        in_class = part is not None and len(folders) > depth
        found[path] = (part or "", folders[depth]) if in_class else None
    return found


def _scanned(
    candidates: Mapping[Path, tuple[str, str] | None],
    progress: Callable[[int, int], None] | None,
    known: Scanned | None,
) -> tuple[dict[Path, ImageFile | str], Scanned]:
    """What is known of each candidate, or why it is left out; and the scan of those in classes."""
    results: dict[Path, ImageFile | str] = {}
    places = {}
    for path, place in candidates.items():
        if place is None:
            results[path] = _NO_CLASS
            continue
        try:
            places[path] = Place.of_file(path)
        except OSError as error:  # gone since it was listed, or in a folder that denies it
            results[path] = error.strerror or str(error)
    scanned = scan(list(places.values()), progress, known)
    return results | {path: scanned[place] for path, place in places.items()}, scanned


# --- from scanned files to splits ---------------------------------------------------------------


@dataclass
class _Part:
    """The readable images of a part."""

    files: list[ImageFile] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def split(self, channels: int, rows: Sequence[int] | np.ndarray | None = None) -> FileSplit:
        """All of them, or those of some rows."""
        chosen = range(len(self.files)) if rows is None else rows
        labels = np.array([self.labels[row] for row in chosen], np.int64)
        return FileSplit(tuple(self.files[row] for row in chosen), labels, channels)


def _sorted_out(
    root: Path,
    layout: Layout,
    listing: Listing,
    candidates: Mapping[Path, tuple[str, str] | None],
    results: Mapping[Path, ImageFile | str],
    scanned: Scanned,
) -> ImageData:
    seen = {
        place[1]
        for path, place in candidates.items()
        if place is not None and place[0] == TRAIN and not isinstance(results[path], str)
    }
    names = _names_with_images(root, layout.names, seen)
    index = {name: label for label, name in enumerate(names)}
    parts = {part: _Part() for part in (TRAIN, VALIDATION, TEST)}
    left_out = [*listing.left_out]
    for path, place in candidates.items():
        result = results[path]
        if not isinstance(result, str) and place is not None and place[1] not in index:
            result = f"no training image of its class {printable(place[1])!r} can be read"
        if isinstance(result, str) or place is None:
            left_out.append(LeftOut(str(path), str(result)))
        else:
            parts[place[0]].files.append(result)
            parts[place[0]].labels.append(index[place[1]])
    empty = sorted(set(layout.names) - seen)
    folders = [
        *listing.folders_left_out,
        *(LeftOut(name, "no readable training image: not a class") for name in empty),
    ]
    return ImageData(
        f"dir:{root}",
        class_names=tuple(_as_text(name) for name in names),
        unreadable=tuple(sorted(left_out)),
        folders_left_out=tuple(folders),
        source=f"dir:{root.absolute()}",
        scanned=scanned,
        **_splits(parts, layout),
    )


def _splits(parts: Mapping[str, _Part], layout: Layout) -> dict:
    """The arguments of `ImageData` that say which images are held out."""
    channels = max(file.channels for part in parts.values() for file in part.files)
    train = parts[TRAIN]
    folders = {part: name for name, part in layout.parts.items()}
    held_out = [part for part in (VALIDATION, TEST) if parts[part].files]
    if not held_out:
        chosen = held_out_rows(np.array(train.labels))
        if not chosen.any():
            raise ValueError(
                "Expected at least two readable images of a class, of which one is held out. "
                f"Received: {counted(len(train.files), 'image')}, one of each class"
            )
        rows = np.arange(len(chosen))
        return {
            "train": train.split(channels, rows[~chosen]),
            "test": train.split(channels, rows[chosen]),
            "note": "a fifth of each class is held out by a fixed seed: "
            f"{counted(int(chosen.sum()), 'image')}",
        }
    final = parts[TEST].split(channels) if len(held_out) == 2 else None
    note = held_out_note(*(folders[part] for part in held_out))
    test = parts[held_out[0]].split(channels)
    return {"train": train.split(channels), "test": test, "final_test": final, "note": note}


def _names_with_images(root: Path, names: Sequence[str], seen: set[str]) -> tuple[str, ...]:
    if not seen:
        raise ValueError(
            f"Expected training images. Received: {str(root)!r} without a readable one"
        )
    if len(seen) == 1:
        raise ValueError(
            f"Expected at least two classes with readable images. Received: {str(root)!r}, where "
            f"{sorted(seen)} alone has some of {list(names)}"
        )
    return tuple(name for name in names if name in seen)


def _as_text(name: str) -> str:
    """The name of a class folder, its bytes that are not UTF-8 escaped."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return printable(name)
    return name
