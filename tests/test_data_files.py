"""Image folders: readable and unreadable files, and streams of files."""

import io
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_spec
from PIL import Image, ImageOps
from rich.console import Console

from keras_inception.cli import waits
from keras_inception.cli.data import chosen_data
from keras_inception.data.sources import open_data
from keras_inception.data.splits import FileSplit, Split
from keras_inception.data.stream import (
    Batch,
    evaluation_batches,
    sample_pixels,
    training_batches,
)
from keras_inception.data.stream_decode import cropped_images
from keras_inception.spec.recipe import Recipe

PLAIN = Recipe(name="plain", epochs=1, batch_size=4, flip=False, shift=0)


def picture(height: int = 48, width: int = 64, seed: int = 0) -> Image.Image:
    """Smooth random colours, which survive JPEG."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def pixels_of(images: np.ndarray) -> np.ndarray:
    """Back from the convention "tf" to [0, 255]."""
    return (images + 1) * 127.5


def taken(batches: Iterator[Batch], count: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = list(itertools.islice(batches, count))
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


# Names


def test_scanning_shows_a_progress_bar_on_a_terminal(tmp_path, monkeypatch):
    for name in ("a", "b"):
        for number in range(6):
            save(picture(seed=number), tmp_path / name / f"{number}.png")
    for terminal in (True, False):
        output = io.StringIO()
        monkeypatch.setattr(waits, "errors", Console(file=output, force_terminal=terminal))
        assert len(chosen_data(f"dir:{tmp_path}").train) == 10
        assert ("scanning the images" in output.getvalue()) == terminal


@pytest.mark.parametrize("name", ["", "sampel", "dir:", "tfds:", "folder:x", "sample:x"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match=r'Expected data "sample", "dir:PATH"'):
        open_data(name)


def test_the_sample_by_name():
    data = open_data("sample", strict=True)
    assert len(data.train) == 6_000
    assert data.image_shape == (28, 28, 1)


# Folders


def test_a_folder_per_class_holds_out_a_fifth_of_each_class(tmp_path):
    for name, count in (("cat", 10), ("dog", 5)):
        for number in range(count):
            save(picture(seed=number), tmp_path / name / "deep" / f"{number}.png")
    data = open_data(f"dir:{tmp_path}")
    assert data.class_names == ("cat", "dog")
    assert np.bincount(data.train.labels).tolist() == [8, 4]
    assert np.bincount(data.test.labels).tolist() == [2, 1]
    assert "a fifth of each class is held out" in data.note
    assert data.image_shape == (48, 64, 3)
    assert data.unreadable == ()
    paths = [{file.path for file in split.files} for split in (data.train, data.test)]
    assert not paths[0] & paths[1]
    again = open_data(f"dir:{tmp_path}")
    assert again.test.files == data.test.files


@pytest.mark.parametrize("held_out", ["test", "validation", "val", "valid"])
def test_train_and_held_out_folders(tmp_path, held_out):
    for part, names in (("train", "abc"), (held_out, "bc")):
        for name in names:
            save(picture(), tmp_path / part / name / "1.png")
    data = open_data(f"dir:{tmp_path}")
    assert data.class_names == ("a", "b", "c")
    assert data.train.labels.tolist() == [0, 1, 2]
    assert data.test.labels.tolist() == [1, 2]
    assert data.note == f"'{held_out}' is held out"


def test_folders_that_are_not_data_sets_are_refused(tmp_path):
    with pytest.raises(ValueError, match="which is none"):
        open_data(f"dir:{tmp_path / 'absent'}")
    with pytest.raises(ValueError, match="a folder for each class"):
        open_data(f"dir:{tmp_path}")
    for name in "ab":
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="training images"):
        open_data(f"dir:{tmp_path}")
    for path in ("train/a/1.png", "train/b/1.png", "val/z/1.png"):
        save(picture(), tmp_path / "other" / path)
    with pytest.raises(ValueError, match=r"\['z'\]"):
        open_data(f"dir:{tmp_path / 'other'}")


BROKEN = ("empty.jpg", "half.jpg", "half.png", "text.jpg", "notes.txt", "float.tif", "gone.png")


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Two classes: "good" has every readable kind, "bad" one readable file and the damaged ones."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    rgb = picture()
    exif = Image.Exif()
    exif[274] = 6
    save(rgb, good / "rgb.jpg", quality=95)
    save(rgb.convert("L"), good / "grey.jpg", quality=95)
    save(rgb.convert("CMYK"), good / "cmyk.jpg", quality=95)
    save(rgb, good / "turned.jpg", quality=95, exif=exif)
    save(rgb, good / "progressive.jpg", quality=95, progressive=True)
    save(rgb.convert("RGBA"), good / "alpha.png")
    save(rgb.quantize(64), good / "palette.png")
    save(Image.fromarray(np.asarray(rgb.convert("L"), np.uint16) * 257), good / "sixteen.png")
    save(rgb.convert("1"), good / "bits.png")
    save(rgb, good / "lossless.webp", lossless=True)
    save(rgb, good / "moving.gif", save_all=True, append_images=[ImageOps.invert(rgb)])
    save(rgb, good / "bitmap.bmp")
    save(rgb, good / "UPPER.JPEG", quality=95)
    save(rgb, bad / "fine.png")
    for suffix in ("jpg", "png"):
        encoded = io.BytesIO()
        rgb.save(encoded, {"jpg": "JPEG", "png": "PNG"}[suffix])
        (bad / f"half.{suffix}").write_bytes(encoded.getvalue()[: encoded.tell() // 2])
    (bad / "empty.jpg").touch()
    (bad / "text.jpg").write_text("not a picture")
    (bad / "notes.txt").write_text("notes")
    (bad / "gone.png").symlink_to(tmp_path / "nowhere.png")
    save(Image.fromarray(np.zeros((4, 4), np.float32)), bad / "float.tif")
    (tmp_path / "README").write_text("beside the class folders")
    return tmp_path


def test_unreadable_files_are_listed_by_path_with_the_reason(mixed):
    data = open_data(f"dir:{mixed}")
    reasons = dict(data.unreadable)
    expected = {str(mixed / "bad" / name) for name in BROKEN} | {str(mixed / "README")}
    assert set(reasons) == expected
    assert len(data.train) + len(data.test) == 13 + 1
    assert reasons[str(mixed / "bad" / "empty.jpg")] == "zero bytes"
    assert "truncated" in reasons[str(mixed / "bad" / "half.png")].lower()
    assert "truncated" in reasons[str(mixed / "bad" / "half.jpg")].lower()
    assert "no class folder" in reasons[str(mixed / "README")]
    assert "floating-point" in reasons[str(mixed / "bad" / "float.tif")]
    assert all(reason and "\n" not in reason for reason in reasons.values())


def test_strict_refuses_them_with_paths(mixed):
    with pytest.raises(ValueError, match=r"Received: 8 other files: .*empty.jpg: zero bytes"):
        open_data(f"dir:{mixed}", strict=True)


def test_progress_counts_every_file_that_is_scanned(mixed):
    """All but the README, which is in no class, and the link to nothing."""
    seen = []
    open_data(f"dir:{mixed}", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 20) for done in range(1, 21)]


def test_every_readable_kind_is_converted_as_pillow_does(mixed):
    """Upright, in RGB, the largest centred square, resized: compared with Pillow."""
    data = open_data(f"dir:{mixed}")
    spec = tiny_spec(size=32)
    for split in (data.train, data.test):
        (images, _) = taken(evaluation_batches(split, spec, 64), 1)
        for image, file in zip(pixels_of(images), split.files, strict=True):
            with Image.open(file.path) as opened:
                rgb = ImageOps.exif_transpose(opened)
                if rgb.mode.startswith("I"):
                    rgb = Image.fromarray((np.asarray(rgb, np.int64) // 256).astype(np.uint8))
                rgb = rgb.convert("RGB")
            left, top = (rgb.width - 48) // 2, (rgb.height - 48) // 2
            square = rgb.crop((left, top, left + 48, top + 48))
            square = square.resize((32, 32), Image.Resampling.BILINEAR)
            difference = np.abs(image - np.asarray(square, np.float32))
            # Where a JPEG is cut in its middle, the last chroma lacks its neighbour.
            assert difference[:-1, :-1].max() < 4, file.path
            assert difference.mean() < 1.5, file.path


def test_a_grey_folder_has_one_channel(tmp_path):
    for name in "ab":
        for number in range(2):
            save(picture(seed=number).convert("L"), tmp_path / name / f"{number}.jpg")
    data = open_data(f"dir:{tmp_path}")
    assert data.image_shape == (48, 64, 1)
    images, _ = taken(training_batches(data.train, tiny_spec(channels=1), PLAIN), 1)
    assert images.shape == (4, 32, 32, 1)


def test_files_and_images_in_memory_give_the_same_stream(tmp_path):
    """With order, mirroring and shifts. The files are PNGs of the network's size, so lossless."""
    for number in range(8):
        save(picture(32, 32, seed=number), tmp_path / "train" / "ab"[number % 2] / f"{number}.png")
        save(picture(32, 32, seed=number), tmp_path / "test" / "ab"[number % 2] / f"{number}.png")
    files = open_data(f"dir:{tmp_path}").train
    pixels = np.stack([np.asarray(Image.open(file.path)) for file in files.files])
    memory = Split(pixels, files.labels)
    recipe = replace(PLAIN, flip=True, shift=2)
    (images, labels), (expected, right) = (
        taken(training_batches(split, tiny_spec(), recipe), 6) for split in (files, memory)
    )
    np.testing.assert_array_equal(labels, right)
    np.testing.assert_array_equal(images, expected)
    plain, _ = taken(training_batches(files, tiny_spec(), PLAIN), 6)
    unmoved, _ = taken(training_batches(files, tiny_spec(), replace(PLAIN, flip=True)), 6)
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(unmoved, plain, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(unmoved, plain, strict=True)]
    assert np.logical_xor(mirrored, same).all()
    assert 6 <= sum(mirrored) <= 18  # of 24


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_random_crops_too(tmp_path, orientation):
    """The upright image is a ramp: every crop increases to the right and decreases downwards."""
    rows, columns = np.mgrid[0:96, 0:96]
    ramp = np.stack([columns, 95 - rows, np.full_like(rows, 50)], axis=-1).astype(np.uint8) * 2
    undo = {6: 8, 8: 6}.get(orientation, orientation)  # quarter turns undo each other
    tag = Image.Exif()
    tag[274] = undo
    holder = io.BytesIO()
    Image.fromarray(ramp).save(holder, "PNG", exif=tag)
    stored = ImageOps.exif_transpose(Image.open(holder)).copy()
    tag[274] = orientation
    for name in "ab":
        for number in range(2):
            save(stored, tmp_path / name / f"{number}.jpg", quality=98, subsampling=0, exif=tag)
    data = open_data(f"dir:{tmp_path}")
    recipe = replace(PLAIN, crop="paper")
    images, _ = taken(training_batches(data.train, tiny_spec(), recipe), 4)
    images = pixels_of(images)
    across, down = np.diff(images[..., 0], axis=2), np.diff(images[..., 1], axis=1)
    assert (across.mean(axis=(1, 2)) > 0.3).all()
    assert (down.mean(axis=(1, 2)) < -0.3).all()


def test_large_jpegs_decoded_at_reduced_scale_are_the_same_image(tmp_path):
    big = picture(600, 800)
    for name in "ab":
        save(big, tmp_path / name / "1.jpg", quality=98, subsampling=0)
        save(big, tmp_path / name / "2.jpg", quality=98, subsampling=0)
    data = open_data(f"dir:{tmp_path}")
    images, _ = taken(evaluation_batches(data.test, tiny_spec(), 1), 1)
    expected = ImageOps.fit(big, (32, 32), method=Image.Resampling.BILINEAR)
    assert np.abs(pixels_of(images)[0] - np.asarray(expected, np.float32)).max() < 3


def test_images_of_many_sizes_need_a_size_from_the_spec(tmp_path):
    for name, width in (("a", 40), ("b", 50)):
        for number in range(2):
            save(picture(width=width), tmp_path / name / f"{number}.png")
    data = open_data(f"dir:{tmp_path}")
    assert data.image_shape == (48, None, 3)
    with pytest.raises(ValueError, match="fixed input size"):
        evaluation_batches(data.test, tiny_spec(size=None), 1)
    assert sample_pixels(data.test, tiny_spec(), 9).shape == (2, 32, 32, 3)


# The streams of files


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory) -> FileSplit:
    """Eleven JPEGs of different sizes and five classes."""
    root = tmp_path_factory.mktemp("jpegs")
    for number in range(11):
        image = picture(40 + number, 60 - number, seed=number)
        save(image, root / "train" / f"c{number % 5}" / f"{number}.jpg")
    save(picture(), root / "test" / "c0" / "1.jpg")
    return open_data(f"dir:{root}").train


FULL = Recipe(
    name="full", epochs=1, batch_size=8, shift=2, crop="paper", photometric=True, mixup=0.4, seed=5
)


@pytest.mark.parametrize("recipe", [PLAIN, FULL])
def test_a_resumed_stream_continues_bit_for_bit(jpegs, recipe):
    spec = tiny_spec()
    images, labels = taken(training_batches(jpegs, spec, recipe), 6)
    later = taken(training_batches(jpegs, spec, recipe, start_step=4), 2)
    np.testing.assert_array_equal(later[0], images[4 * recipe.batch_size :])
    np.testing.assert_array_equal(later[1], labels[4 * recipe.batch_size :])


@pytest.mark.parametrize(("recipe", "workers"), [(replace(PLAIN, batch_size=8), 4), (FULL, 2)])
def test_workers_together_see_the_batches_of_one_worker(jpegs, recipe, workers):
    spec = tiny_spec()
    whole = list(itertools.islice(training_batches(jpegs, spec, recipe), 3))
    shards = [
        itertools.islice(
            training_batches(jpegs, spec, recipe, shard_index=index, shard_count=workers), 3
        )
        for index in range(workers)
    ]
    for (images, labels), parts in zip(whole, zip(*shards, strict=True), strict=True):
        assert all(len(part[1]) == 8 // workers for part in parts)
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), labels)


def test_a_worker_reads_only_its_own_rows(tmp_path):
    """The second worker is unaffected when all files of the first half of a batch are missing."""
    for name in "ab":
        for number in range(4):
            save(picture(seed=number), tmp_path / "train" / name / f"{number}.jpg")
    save(picture(), tmp_path / "test" / "a" / "1.jpg")
    split = open_data(f"dir:{tmp_path}").train
    recipe = replace(PLAIN, batch_size=8)

    def second() -> Iterator[Batch]:
        return training_batches(split, tiny_spec(), recipe, shard_index=1, shard_count=2)

    labels = taken(second(), 1)[1]
    for position, row in enumerate(_rows_of(split, recipe)):
        if row < 4:
            os.remove(split.files[position].path)
    np.testing.assert_array_equal(taken(second(), 1)[1], labels)


def _rows_of(split: FileSplit, recipe: Recipe) -> list[int]:
    """The row of each image in the first batch, read from labels that count from 0."""
    numbered = FileSplit(split.files, np.arange(len(split)), split.channels)
    labels = taken(training_batches(numbered, tiny_spec(), recipe), 1)[1]
    return [labels.tolist().index(position) for position in range(len(split))]


def test_batches_that_workers_cannot_share_are_refused(jpegs):
    spec = tiny_spec()
    with pytest.raises(ValueError, match="3 workers share evenly"):
        training_batches(jpegs, spec, FULL, shard_count=3)
    with pytest.raises(ValueError, match="an even number"):
        training_batches(jpegs, spec, FULL, shard_count=8)
    with pytest.raises(ValueError, match="shard_index=2"):
        training_batches(jpegs, spec, FULL, shard_index=2, shard_count=2)


def test_evaluation_shards_cover_every_image_once(jpegs):
    spec = tiny_spec()
    images, labels = taken(evaluation_batches(jpegs, spec, 4), 3)
    assert labels.tolist() == jpegs.labels.tolist()
    parts = [
        taken(evaluation_batches(jpegs, spec, 4, shard_index=index, shard_count=3), 9)
        for index in range(3)
    ]
    assert [len(part[1]) for part in parts] == [3, 4, 4]  # 11 / 3 and 22 / 3 rounded down
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), labels)


def test_no_stream_leaves_a_thread_that_blocks_the_end_of_an_iterator(jpegs):
    """TensorFlow 2.21's autotune; see `stream_decode.cropped_images`."""
    images = cropped_images(jpegs, (8, 8), 3, lambda: iter(()), 4)
    assert images.options().autotune.enabled is False


def test_a_missing_file_fails_at_its_own_batch(tmp_path):
    """Batches are prefetched; those before the missing file are complete."""
    for number in range(8):
        save(picture(seed=number), tmp_path / "test" / "ab"[number % 2] / f"{number}.png")
        save(picture(seed=number), tmp_path / "train" / "ab"[number % 2] / f"{number}.png")
    split = open_data(f"dir:{tmp_path}").test
    os.remove(split.files[5].path)
    batches = evaluation_batches(split, tiny_spec(), 2)
    assert taken(batches, 2)[1].tolist() == split.labels[:4].tolist()
    with pytest.raises(Exception, match="No such file"):
        next(batches)
