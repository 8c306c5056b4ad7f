"""TensorFlow Datasets: prepared files are read in place, others are downloaded first."""

from __future__ import annotations

import logging
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_inception.data.folder import held_out_note, held_out_rows
from keras_inception.data.scan import Place, Scanned, scan
from keras_inception.data.splits import AnySplit, FileSplit, ImageData, ImageFile, Split
from keras_inception.wording import counted

_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.+-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
# Images of one size are kept decoded in memory up to this many bytes.
_MOST_BYTES_IN_MEMORY = 2**30
_HOST = ("storage.googleapis.com", 443)


def open_tfds(
    name: str,
    progress: Callable[[int, int], None] | None = None,
    known: Scanned | None = None,
) -> ImageData:
    """A TensorFlow data set; `open_data` tells the form of `name`.

    Images of one size are decoded into memory if they fit in 1 GiB. Others stay in their record
    files and are decoded when they are cropped.

    Raises:
        ValueError: if the form is wrong, the data set is neither prepared nor downloadable, the
            split does not exist, or it is not a data set of images with class labels.
    """
    identity, _, query = name.partition("?")
    match = _NAME.fullmatch(identity)
    splits = dict(part.partition("=")[::2] for part in query.split("&") if query)
    if not match or not all(splits.values()) or set(splits) - {"train", "test"}:
        raise ValueError(
            'Expected "tfds:NAME[/CONFIG][:VERSION][?train=SPLIT&test=SPLIT]". '
            f'Received: "tfds:{name}"'
        )
    builder = _builder(identity, **match.groupdict())
    image, label = _keys(builder, identity)
    train_name = splits.get("train", "train")
    held_out = [name for name in ("validation", "test") if name in builder.info.splits]
    if "test" in splits:
        held_out = [splits["test"]]
    read = _decoded if _fits_in_memory(builder, image) else _encoded
    unreadable: list[tuple[str, str]] = []
    scanned: Scanned = {}

    def look(places: list[Place]) -> Scanned:
        found = scan(places, progress, known)
        scanned.update(found)
        return found

    train = read(builder, train_name, image, label, unreadable, look)
    final = None
    if not held_out:
        chosen = held_out_rows(train.labels)
        count = counted(int(chosen.sum()), "image")
        note = f"a fifth of each class is held out by a fixed seed: {count}"
        train, test = _rows(train, ~chosen), _rows(train, chosen)
    else:
        test, *rest = (read(builder, s, image, label, unreadable, look) for s in held_out)
        final = rest[0] if rest else None
        note = held_out_note(*held_out)
    return ImageData(
        f"tfds:{name}",
        train,
        test,
        tuple(builder.info.features[label].names),
        note,
        tuple(unreadable),
        final_test=final,
        source=f"tfds:{name}",
        scanned=scanned,
    )


def _builder(identity: str, name: str, config: str | None, version: str | None) -> Any:
    """Return the builder of prepared files; download and prepare them if necessary."""
    import tensorflow_datasets as tfds

    root = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    folder = _prepared(root / name, config, version)
    if folder is None:
        _require_network(identity, root)
        builder = tfds.builder(identity, data_dir=root)
        builder.download_and_prepare()
        folder = Path(builder.data_dir)
    return tfds.builder_from_directory(folder)


def _prepared(root: Path, config: str | None, version: str | None) -> Path | None:
    """Return the folder of the newest prepared version that matches."""
    found = [
        path.parent
        for pattern in ("*/dataset_info.json", "*/*/dataset_info.json")
        for path in root.glob(pattern)
        if _VERSION.fullmatch(path.parent.name) and version in (None, path.parent.name)
    ]
    if config is not None:
        found = [folder for folder in found if folder.parent.name == config]
    configs = sorted({folder.parent.name for folder in found if folder.parent != root})
    if config is None and len(configs) > 1:
        raise ValueError(
            f"Expected one of the prepared configs {configs}, as in tfds:{root.name}/{configs[0]}. "
            f"Received: tfds:{root.name}"
        )
    return max(found, key=lambda folder: tuple(map(int, folder.name.split("."))), default=None)


def _require_network(identity: str, root: Path) -> None:
    # Without this check, TFDS retries for minutes before it fails.
    try:
        socket.create_connection(_HOST, timeout=5).close()
    except OSError as error:
        raise ValueError(
            f"Expected the data set {identity!r} in {str(root)!r}, or a network to download it. "
            f"Received: neither ({error}). On a machine with a network, run `tfds build "
            f"{identity} --data_dir DIR`, copy DIR here, and set TFDS_DATA_DIR to it."
        ) from error


def _keys(builder: Any, identity: str) -> tuple[str, str]:
    """Return the names of the image and the label in an example."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    kinds: tuple[tuple[str, type], ...] = (
        ("image", tfds.features.Image),
        ("class label", tfds.features.ClassLabel),
    )
    keys = []
    for position, (what, kind) in enumerate(kinds):
        found = [key for key, feature in features.items() if isinstance(feature, kind)]
        supervised = builder.info.supervised_keys
        if supervised and len(supervised) == 2 and supervised[position] in found:
            found = [supervised[position]]
        if len(found) != 1:
            raise ValueError(
                f"Expected a data set with one {what}. Received: {identity!r} with the features "
                f"{ {key: type(feature).__name__ for key, feature in features.items()} }"
            )
        keys += found
    return keys[0], keys[1]


def _fits_in_memory(builder: Any, image: str) -> bool:
    feature = builder.info.features[image]
    if None in feature.shape or feature.shape[-1] not in (1, 3) or feature.np_dtype != np.uint8:
        return False
    count = sum(split.num_examples for split in builder.info.splits.values())
    return bool(count * np.prod(feature.shape) <= _MOST_BYTES_IN_MEMORY)


def _decoded(
    builder: Any, split: str, image: str, label: str, unreadable: list, look: Any
) -> AnySplit:
    import tensorflow_datasets as tfds

    logger = logging.getLogger("absl")
    logger.addFilter(_is_no_deprecation)
    try:
        examples = builder.as_dataset(
            split=split,
            batch_size=-1,
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding({image: True, label: True}),
        )
    finally:
        logger.removeFilter(_is_no_deprecation)
    return Split(np.asarray(examples[image]), np.asarray(examples[label]))


def _is_no_deprecation(record: logging.LogRecord) -> bool:
    """TFDS 4.9.10 warns of its own `PartialDecoding`, which asks for a deprecated `dtype`."""
    return "is deprecated" not in record.getMessage()


def _encoded(
    builder: Any, split: str, image: str, label: str, unreadable: list, look: Any
) -> AnySplit:
    places, labels = [], []
    for instruction in builder.info.splits[split].file_instructions:
        for place, number in _records(instruction, image, label):
            places.append(place)
            labels.append(number)
    found = look(places)
    files: list[ImageFile] = []
    own = []
    for place, number in zip(places, labels, strict=True):
        result = found[place]
        if isinstance(result, str):
            unreadable.append((f"{place.path}, byte {place.offset}", result))
        else:
            files.append(result)
            own.append(number)
    channels = 1 if builder.info.features[image].shape[-1] == 1 else 3
    return FileSplit(tuple(files), np.array(own, np.int64), channels)


def _records(instruction: Any, image: str, label: str) -> Iterator[tuple[Place, int]]:
    """Return the locations of the encoded images in a TFRecord file, and their labels.

    A record is its length (8 bytes), a checksum (4), the serialized example, a checksum (4).
    """
    path = str(instruction.filename)
    if ".tfrecord" not in Path(path).name:
        raise ValueError(
            "Expected a data set prepared as TFRecord files, the default of TFDS. "
            f"Received: {path!r}"
        )
    modified = os.stat(path).st_mtime_ns
    last = instruction.take + instruction.skip if instruction.take >= 0 else None
    with open(path, "rb") as file:
        number = 0
        while (last is None or number < last) and (header := file.read(12)):
            (length,) = struct.unpack("<Q", header[:8])
            if number >= instruction.skip:
                start = file.tell()
                record = file.read(length)
                example = tf.train.Example.FromString(record).features.feature
                content = example[image].bytes_list.value[0]
                place = Place(path, start + record.index(content), len(content), modified)
                yield place, example[label].int64_list.value[0]
                file.seek(4, os.SEEK_CUR)
            else:
                file.seek(length + 4, os.SEEK_CUR)
            number += 1


def _rows(split: AnySplit, chosen: np.ndarray) -> AnySplit:
    if isinstance(split, Split):
        return Split(split.images[chosen], split.labels[chosen])
    files = tuple(file for file, take in zip(split.files, chosen, strict=True) if take)
    return FileSplit(files, split.labels[chosen], split.channels)
