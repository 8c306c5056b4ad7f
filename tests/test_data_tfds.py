"""TFDS: names, prepared data sets with encoded and decoded images, and missing data sets."""

import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_spec
from PIL import Image

from keras_inception.data.sources import open_data
from keras_inception.data.splits import FileSplit, Split
from keras_inception.data.stream import evaluation_batches


def encoded(number: int, kind: str = "JPEG", size: tuple[int, int] = (20, 30)) -> bytes:
    """An encoded image with the constant grey value 10 * number."""
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), 10 * number, np.uint8)).save(file, kind, quality=95)
    return file.getvalue()


def write_tfds(
    root: Path,
    splits: dict[str, list[bytes]],
    shape: tuple[int | None, ...],
    *,
    version: str = "1.0.0",
    config: str | None = None,
) -> None:
    """Prepare the data set "mine" with TFDS's own writer: image 10 * i has the label i % 2."""
    import tensorflow_datasets as tfds

    tfds.dataset_builders.store_as_tfds_dataset(
        name="mine",
        version=version,
        config=config,
        data_dir=root,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(names=["even", "odd"]),
                "id": tfds.features.Scalar(np.int64),
            }
        ),
        split_datasets={
            name: [
                (number, {"image": io.BytesIO(content), "label": number % 2, "id": number})
                for number, content in enumerate(contents)
            ]
            for name, contents in splits.items()
        },
        disable_shuffling=True,
    )


def values(split: Split | FileSplit) -> list[int]:
    """Return the number of each image of the split, read from its pixels."""
    images, labels = next(iter(evaluation_batches(split, tiny_spec(size=8), 99)))
    numbers = np.rint((images.mean(axis=(1, 2, 3)) + 1) * 12.75).astype(int).tolist()
    assert labels.tolist() == [number % 2 for number in numbers]
    return numbers


@pytest.fixture
def data_dir(tmp_path, monkeypatch) -> Path:
    """An empty TFDS_DATA_DIR, and no network."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    return tmp_path


def test_encoded_images_of_many_sizes_stay_in_their_records(data_dir):
    pictures = [encoded(i, size=(20 + i, 30)) for i in range(10)]
    write_tfds(data_dir, {"train": pictures, "validation": pictures[:3]}, (None, None, 3))
    data = open_data("tfds:mine", strict=True)
    assert isinstance(data.train, FileSplit)
    assert data.image_shape == (None, 30, 3)
    assert data.class_names == ("even", "odd")
    assert data.note == "'validation' is held out"
    assert values(data.train) == list(range(10))
    assert values(data.test) == [0, 1, 2]
    file = data.train.files[7]
    assert file.read() == pictures[7]
    assert file.path.endswith("-of-00001")


def test_validation_images_are_held_out_and_test_images_reserved_for_evaluate(data_dir):
    pictures = [encoded(i) for i in range(10)]
    splits = {"train": pictures, "test": pictures[:4], "validation": pictures[:3]}
    write_tfds(data_dir, splits, (None, None, 3))
    data = open_data("tfds:mine")
    assert values(data.test) == [0, 1, 2]
    assert data.final_test is not None
    assert values(data.final_test) == [0, 1, 2, 3]
    assert data.note == "'validation' is held out, 'test' is left to `evaluate`"
    chosen = open_data("tfds:mine?test=test")
    assert values(chosen.test) == [0, 1, 2, 3]
    assert chosen.final_test is None


def test_sub_splits_of_records(data_dir):
    write_tfds(data_dir, {"train": [encoded(i) for i in range(10)]}, (None, None, 3))
    data = open_data("tfds:mine:1.0.0?train=train[2:6]&test=train[80%:]")
    assert values(data.train) == [2, 3, 4, 5]
    assert values(data.test) == [8, 9]


def test_without_a_held_out_split_a_fifth_of_each_class_is(data_dir):
    write_tfds(data_dir, {"train": [encoded(i) for i in range(20)]}, (None, None, 3))
    data = open_data("tfds:mine")
    train, test = values(data.train), values(data.test)
    assert sorted(train + test) == list(range(20))
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert "a fifth of each class" in data.note


def test_a_broken_record_is_listed(data_dir):
    pictures = [encoded(i) for i in range(10)]
    pictures[3] = pictures[3][:100]
    write_tfds(data_dir, {"train": pictures, "test": pictures[:2]}, (None, None, 3))
    data = open_data("tfds:mine")
    assert values(data.train) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    ((place, reason),) = data.unreadable
    assert "mine-train.tfrecord" in place
    assert reason
    with pytest.raises(ValueError, match="Received: 1 other file"):
        open_data("tfds:mine", strict=True)


def test_images_of_one_size_are_decoded_into_memory(data_dir):
    pictures = [encoded(i, "PNG") for i in range(6)]
    write_tfds(data_dir, {"train": pictures, "test": pictures[4:]}, (20, 30, 3))
    data = open_data("tfds:mine")
    assert isinstance(data.train, Split)
    assert data.train.images[:, 3, 7, 1].tolist() == [0, 10, 20, 30, 40, 50]
    assert data.image_shape == (20, 30, 3)


def test_the_newest_version_unless_one_is_given(data_dir):
    for version, first in (("1.2.0", 0), ("1.10.0", 4)):
        pictures = [encoded(first + i) for i in range(4)]
        write_tfds(
            data_dir, {"train": pictures, "test": pictures}, (None, None, 3), version=version
        )
    assert values(open_data("tfds:mine").train) == [4, 5, 6, 7]
    assert values(open_data("tfds:mine:1.2.0").train) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"'mine:1.3.0' in .* Received: neither"):
        open_data("tfds:mine:1.3.0")


def test_unknown_splits_are_refused(data_dir):
    write_tfds(data_dir, {"train": [encoded(i) for i in range(4)]}, (None, None, 3))
    with pytest.raises(ValueError, match="nope"):
        open_data("tfds:mine?test=nope")


@pytest.mark.usefixtures("data_dir")
def test_missing_files_without_network_fail_immediately():
    with pytest.raises(ValueError, match=r"Received: neither .*tfds build mnist .*TFDS_DATA_DIR"):
        open_data("tfds:mnist")


@pytest.mark.parametrize("name", ["a b", "mnist:3", "mnist?validation=x", "mnist?train"])
@pytest.mark.usefixtures("data_dir")
def test_forms_of_tfds_names(name):
    with pytest.raises(ValueError, match=r"tfds:NAME\[/CONFIG\]"):
        open_data(f"tfds:{name}")


def prepared_fashion_mnist() -> bool:
    root = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    return any(root.glob("fashion_mnist/*/dataset_info.json"))


@pytest.mark.skipif(
    not prepared_fashion_mnist(), reason="fashion_mnist is not prepared in TFDS_DATA_DIR"
)
def test_fashion_mnist():
    data = open_data("tfds:fashion_mnist:3.0.1?train=train[:10%]&test=test[-100:]")
    assert (len(data.train), len(data.test)) == (6_000, 100)
    assert data.image_shape == (28, 28, 1)
    assert data.class_names[9] == "Ankle boot"
    assert data.note == "'test[-100:]' is held out"


def test_decoded_images_are_read_without_a_word_of_tfds(data_dir):
    """TFDS's partial decoding logs that its own `dtype` is deprecated."""
    write_tfds(data_dir, {"train": [encoded(i) for i in range(10)]}, (20, 30, 3))
    code = "from keras_inception import open_data; print(len(open_data('tfds:mine').train))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "8\n", result.stderr
    assert "deprecated" not in result.stderr
