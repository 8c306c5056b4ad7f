"""Data sets by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from keras_inception.data.sample import load_sample
from keras_inception.data.splits import ImageData
from keras_inception.images.listing import HARMLESS
from keras_inception.packages import explained_imports
from keras_inception.wording import counted

SAMPLE = "sample"
_MOST_LISTED = 10


def open_data(
    name: str,
    *,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
    scan_file: str | os.PathLike[str] | None = None,
) -> ImageData:
    """Open a data set by name and scan its files once; see `ImageData.unreadable`.

    Args:
        name: one of
            - "sample": the bundled images;
            - "dir:PATH": image files, one folder for each class, or such folders in `train`,
              `val` and `test` (`open_folder` has the other names);
            - `tfds:NAME[/CONFIG][:VERSION][?train=SPLIT&test=SPLIT]`: a TensorFlow data set of
              images and class labels, such as "tfds:fashion_mnist" or
              "tfds:cifar10:3.0.2?train=train[:80%]&test=train[80%:]". Prepared files are read
              from TFDS_DATA_DIR (default ~/tensorflow_datasets), others downloaded. The splits
              are "train" and "validation" unless given; "test" where there is no validation,
              else it is `final_test`.
        strict: refuse a data set with files that cannot be read, except hidden files and those of
            an operating system.
        progress: called with the number of files scanned, and of all files.
        scan_file: of an earlier scan, as a run leaves it: files that it lists and that have not
            changed are not decoded again.

    Raises:
        ValueError: an unknown name, no images, or with `strict` an unreadable file.
    """
    kind, _, rest = str(name).partition(":")
    if name == SAMPLE:
        data = load_sample()
    elif kind == "dir" and rest:
        with explained_imports():
            from keras_inception.data.folder import open_folder
            from keras_inception.data.scan import load_scan

        data = open_folder(Path(rest).expanduser(), progress, load_scan(scan_file))
    elif kind == "tfds" and rest:
        with explained_imports():
            from keras_inception.data.scan import load_scan
            from keras_inception.data.tfds import open_tfds

        data = open_tfds(rest, progress, load_scan(scan_file))
    else:
        raise ValueError(f'Expected data "sample", "dir:PATH" or "tfds:NAME". Received: {name!r}')
    refused = [row for row in data.unreadable if row[1] not in HARMLESS]
    if strict and refused:
        listed = "; ".join(f"{path}: {why}" for path, why in refused[:_MOST_LISTED])
        more = len(refused) - _MOST_LISTED
        raise ValueError(
            "Expected readable images only. Received: "
            f"{counted(len(refused), 'other file')}: {listed}"
            + (f"; and {more} more" if more > 0 else "")
        )
    return data
