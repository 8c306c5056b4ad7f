"""The data of a command: by --data or as recorded, what is left out, and the next command's."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from keras_inception.cli import common
from keras_inception.cli.waits import scanning
from keras_inception.files import DATA_FILE, SCAN_FILE, printable
from keras_inception.wording import counted

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData
    from keras_inception.spec.network import NetworkSpec
    from keras_inception.spec.recipe import Recipe

_DEFAULT = "sample"
# Files that are left out are printed up to so many.
_MOST_LISTED = 20


def chosen_data(
    name: str | None,
    *,
    beside: Path | None = None,
    folder: Path | None = None,
    strict: bool = False,
    option: str = "--data",
) -> ImageData:
    """Open the data that --data names, and show how far the scan of a folder is.

    Args:
        name: what --data gives; None: the data recorded in `beside`, or else the sample.
        beside: the folder of a spec or a run that the command takes; where it decides about the
            data, a line says so.
        folder: of a run or search that may be resumed: what its scan found is used again.
        strict: refuse data with files that cannot be read.
        option: of the command, which names other data.
    """
    from keras_inception.data.sources import open_data

    recorded_name = None if name else _recorded(beside, option)
    with scanning() as progress:
        data = open_data(
            name or recorded_name or _DEFAULT,
            strict=strict,
            progress=progress,
            scan_file=folder and folder / SCAN_FILE,
        )
    if recorded_name and beside:
        _warn_of_changes(data, beside)
    return data


def with_channels(data: ImageData, channels: int | None, weights: Path | None) -> ImageData:
    """The data in the channels of --channels, or else of weights that the network begins with."""
    if channels is None and weights is not None:
        from keras_inception.training.fine_tune import initial_channels

        channels = initial_channels(weights)
    return data if channels is None else data.with_channels(channels)


def fitted_spec(spec: NetworkSpec, data: ImageData, input_size: int | None) -> NetworkSpec:
    """The network on the data, with the size of --input-size if it was given."""
    from keras_inception.training.run import fitted_to_data

    spec = fitted_to_data(spec, data)
    return spec if input_size is None else spec.with_size(input_size)


def _warn_of_changes(data: ImageData, recorded: Path) -> None:
    from keras_inception.data.record import change_since

    change = change_since(recorded, data)
    if change is not None:
        common.print_warning(
            f"the data have changed since {recorded / DATA_FILE} was written: {change}."
        )


def _recorded(beside: Path | None, option: str) -> str | None:
    """The data that are recorded in a folder, if any are; a line says so."""
    from keras_inception.data.record import recorded_source

    if beside is None:
        return None
    source = recorded_source(beside)
    if source is None:
        common.console.print(
            f"Data: {_DEFAULT}, since {escape(printable(str(beside)))} has no {DATA_FILE}. "
            f"{option} chooses other data."
        )
        return None
    common.console.print(
        f"Data: {escape(printable(source))}, as recorded in "
        f"{escape(printable(str(beside / DATA_FILE)))}. {option} chooses other data."
    )
    return source


def next_data(source: str) -> str:
    """The --data of a next command, for the console; nothing where the data have no name."""
    from keras_inception.data.record import data_option

    return f" {escape(data_option(source))}" if source else ""


def lowered_batch_size(
    recipe: Recipe, images: int, asked: int | None, changes: list[str] | None, devices: int = 1
) -> Recipe:
    """The recipe with a batch that the images allow, unless a batch was asked for; a line says so.

    Args:
        images: for training.
        asked: the --batch-size, if one was given.
        changes: those of --set.
        devices: that share a batch.
    """
    from keras_inception.training.preparation import lowered_batch

    if asked is not None or any(change.startswith("batch_size=") for change in changes or ()):
        return recipe
    lowered = lowered_batch(recipe, images, devices)
    if lowered != recipe:
        common.console.print(
            f"The batch size is lowered from {recipe.batch_size} to {lowered.batch_size}, for "
            f"{counted(images, 'training image')}. --batch-size sets another."
        )
    return lowered


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(printable(str(path)))


def print_data(data: ImageData) -> None:
    """What the data set is made of, and everything of it that is left out."""
    parts = [counted(len(data.train), "training image"), counted(len(data.test), "held-out image")]
    if data.final_test is not None:
        parts.append(counted(len(data.final_test), "test image"))
    note = f" ({data.note})" if data.note else ""
    common.console.print(
        f"{' and '.join(parts)} in {counted(len(data.class_names), 'class')} of "
        f"{escape(printable(data.name + note))}."
    )
    print_left_out(data.unreadable, data.folders_left_out)
    if data.transparent:
        common.errors.print(
            f"Images with transparent pixels, which are white to the network: {data.transparent:,}."
        )


def print_left_out(
    files: Iterable[tuple[str, str]], folders: Iterable[tuple[str, str]] = ()
) -> None:
    """Files and folders that are left out, and why; of many the first, harmless ones as a count."""
    from keras_inception.images.listing import HARMLESS

    files = list(files)
    rows = [row for row in files if row[1] not in HARMLESS]
    harmless = len(files) - len(rows)
    if rows:
        common.errors.print(f"[bold]{counted(len(rows), 'file')} left out:[/]")
    for path, reason in rows[:_MOST_LISTED]:
        common.errors.print(f"  {escape(printable(path))}: {escape(printable(reason))}")
    if len(rows) > _MOST_LISTED:
        common.errors.print(f"  and {len(rows) - _MOST_LISTED} more")
    for path, reason in folders:
        common.errors.print(f"Folder left out: {escape(printable(path))}: {escape(reason)}")
    if harmless:
        common.errors.print(
            f"{counted(harmless, 'file')} left out: hidden, or the operating system's."
        )
