"""Folders of images: which files are used, which are listed, and the role of each folder.

find(1) counts the files of a folder independently of this package.
"""

import csv
import hashlib
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_inception.data.folder import held_out_rows
from keras_inception.data.record import write_record
from keras_inception.data.scan import load_scan, save_scan
from keras_inception.data.sources import open_data
from keras_inception.data.splits import PIXELS, ImageFile
from keras_inception.exporters.calibration import folder_images
from keras_inception.files import printable, read_labels, write_labels
from keras_inception.images import listing
from keras_inception.images.listing import HARMLESS, LeftOut, image_files, list_folder


def put(folder: Path, count: int = 2, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def files_in(folder: Path) -> int:
    """Return files of every kind, following links to folders, and loops once."""
    found = subprocess.run(
        ["find", "-L", folder, "!", "-type", "d", "-print0"], capture_output=True, check=False
    )
    return found.stdout.count(b"\0")


def accounted(data) -> int:
    return sum(len(split) for split in data.splits) + len(data.unreadable)


# --- files = used + listed ----------------------------------------------------------------------


def random_layout(root: Path, seed: int) -> None:
    """Create class folders, possibly in split folders, with unusual files of all kinds."""
    random = np.random.default_rng(seed)
    splits = [[""], ["train"], ["Train", "VAL"], ["training", "dev", "Test"], ["train", "eval"]]
    parts = splits[random.integers(len(splits))]
    for part in parts:
        for name in ("a", "b", "größe"):
            folder = root / part / name
            put(folder, int(random.integers(2, 5)))
            odd(random, folder, root)
        odd(random, root / part, root)
    if random.random() < 0.5:
        (root / parts[0] / "unused").mkdir()
    if len(parts) > 1 and random.random() < 0.5:
        put(root / "beside", 1)


def odd(random: np.random.Generator, folder: Path, root: Path) -> None:
    """Create some of: text, a broken image, hidden and system files and folders, links, a pipe."""

    def text(name: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("no image")

    kinds = [
        lambda: text("notes.txt"),
        lambda: text("broken.jpg"),
        lambda: text(".DS_Store"),
        lambda: text("Thumbs.db"),
        lambda: text(".ipynb_checkpoints/0.png"),
        lambda: text("__MACOSX/._0.png"),
        lambda: (folder / "empty.png").touch(),
        lambda: (folder / "gone.png").symlink_to(root / "nowhere"),
        lambda: (folder / "back").symlink_to(root),
        lambda: os.mkfifo(folder / "pipe.png"),
        lambda: (folder / "link.png").symlink_to(folder / "notes.txt"),
    ]
    for make in kinds:
        if random.random() < 0.3:
            make()


@pytest.mark.parametrize("seed", range(40))
def test_every_file_of_a_random_layout_is_used_or_listed(tmp_path, seed):
    root = tmp_path / "data"
    random_layout(root, seed)
    data = open_data(f"dir:{root}")
    assert accounted(data) == files_in(root)
    listed = [path for path, _ in data.unreadable]
    used = [file.path for split in data.splits for file in split.files]
    assert len(set(listed) | set(used)) == len(listed) + len(used)
    assert all(os.path.lexists(path) for path in listed)
    assert data.class_names == ("a", "b", "größe")


def test_links_to_folders_are_followed_and_loops_detected(tmp_path):
    root = tmp_path / "data"
    for name in "ab":
        put(root / name, 10)
    put(tmp_path / "elsewhere", 7, first=10)
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "again").symlink_to(root)
    data = open_data(f"dir:{root}")
    assert np.bincount(np.concatenate([s.labels for s in data.splits])).tolist() == [17, 10]
    ((path, reason),) = data.folders_left_out
    assert path == str(root / "b" / "again")
    assert "a link back to" in reason


def test_folders_that_link_to_each_other_end_at_four_links(tmp_path):
    names = "abcdef"
    for name in names:
        put(tmp_path / name, 1)
        for other in set(names) - {name}:
            (tmp_path / name / other).symlink_to(tmp_path / other)
    listing = list_folder(tmp_path)
    assert len(listing.files) == 6 * (1 + 5 + 5 * 4 + 5 * 4 * 3 + 5 * 4 * 3 * 2)
    reasons = [left.reason for left in listing.folders_left_out]
    assert reasons.count("a link inside 4 others") == 6 * 5 * 4 * 3 * 2 * 1


def test_links_in_a_circle_are_listed(tmp_path):
    for name in "ab":
        put(tmp_path / name, 3)
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    (tmp_path / "a" / "there").symlink_to("back")
    (tmp_path / "a" / "back").symlink_to("there")
    data = open_data(f"dir:{tmp_path}")
    assert len(data.train) + len(data.test) == 6
    assert [(Path(path).name, reason) for path, reason in data.unreadable] == [
        (name, "a link that leads nowhere") for name in ("back", "self.png", "there")
    ]


def test_folders_deeper_than_python_recurses(tmp_path):
    deepest = tmp_path
    for _ in range(1500):
        deepest /= "d"
        deepest.mkdir()
    try:
        (deepest / "0.png").touch()
        found = list_folder(tmp_path)
        assert found.files == [deepest / "0.png"]
        assert len(found.folders) == 1501
    finally:  # which pytest itself removes by recursion
        (deepest / "0.png").unlink()
        while deepest != tmp_path:
            deepest.rmdir()
            deepest = deepest.parent


def test_a_file_that_vanishes_after_it_was_listed_is_listed(tmp_path, monkeypatch):
    for name in "ab":
        put(tmp_path / name, 3)
    list_all = listing.list_folder

    def then_removed(root):
        found = list_all(root)
        (tmp_path / "a" / "1.png").unlink()
        return found

    monkeypatch.setattr("keras_inception.data.folder.list_folder", then_removed)
    data = open_data(f"dir:{tmp_path}")
    assert len(data.train) + len(data.test) == 5
    assert data.unreadable == ((str(tmp_path / "a" / "1.png"), "No such file or directory"),)


def test_hidden_and_system_files_are_listed_but_allowed_by_strict(tmp_path):
    for name in "ab":
        put(tmp_path / name, 4)
        odd_files = (".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r", "._0.png", ".ipynb/x.png")
        for odd_file in odd_files:
            (tmp_path / name / odd_file).parent.mkdir(exist_ok=True)
            (tmp_path / name / odd_file).write_text("x")
        put(tmp_path / name / "__MACOSX" / "deep", 1)
    put(tmp_path / "@eaDir" / "0.png", 1)
    data = open_data(f"dir:{tmp_path}", strict=True)
    assert data.class_names == ("a", "b")
    assert len(data.unreadable) == 15
    assert {reason for _, reason in data.unreadable} == HARMLESS
    (tmp_path / "a" / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"Received: 1 other file: .*notes\.txt"):
        open_data(f"dir:{tmp_path}", strict=True)


def test_classes_without_a_readable_image_are_skipped_and_listed(tmp_path):
    put(tmp_path / "a", 3)
    put(tmp_path / "c", 3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.png").write_text("no image")
    data = open_data(f"dir:{tmp_path}")
    assert data.class_names == ("a", "c")
    assert sorted(np.concatenate([s.labels for s in data.splits])) == [0] * 3 + [1] * 3
    assert sorted(name for name, _ in data.folders_left_out) == ["b", "empty"]
    assert [path for path, _ in data.unreadable] == [str(tmp_path / "b" / "x.png")]


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch):
    for name in "abc":
        put(tmp_path / name, 2)
    scandir = os.scandir

    def denied(path):
        if Path(path).name in ("c", "closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", denied)
    data = open_data(f"dir:{tmp_path}")
    assert data.class_names == ("a", "b")
    assert (str(tmp_path / "c"), "cannot be listed: Permission denied") in data.folders_left_out
    (tmp_path / "closed").mkdir()
    with pytest.raises(ValueError, match=r"closed', which cannot be listed: Permission denied"):
        open_data(f"dir:{tmp_path / 'closed'}")


# --- roles of folders ---------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("other", ["val", "Valid", "validation", "DEV", "test", "Testing", "eval"])
def test_split_folders_in_any_case(tmp_path, train, other):
    for name in "ab":
        put(tmp_path / train / name, 3)
        put(tmp_path / other / name, 2)
    data = open_data(f"dir:{tmp_path}")
    assert (len(data.train), len(data.test), data.final_test) == (6, 4, None)
    assert data.note == f"{other!r} is held out"


def test_validation_images_are_held_out_and_test_images_reserved_for_evaluate(tmp_path):
    for part, count in (("train", 4), ("val", 3), ("test", 2)):
        for name in "ab":
            put(tmp_path / part / name, count)
    data = open_data(f"dir:{tmp_path}")
    assert [len(split) for split in data.splits] == [8, 6, 4]
    assert all("/val/" in file.path for file in data.test.files)
    assert all("/test/" in file.path for file in data.final_test.files)
    assert data.note == "'val' is held out, 'test' is left to `evaluate`"


@pytest.mark.parametrize("name", ["train", "test", "dev", "Validation"])
def test_a_class_named_like_a_split_among_others_is_a_class(tmp_path, name):
    for folder in ("bus", "car", name):
        put(tmp_path / folder, 5)
    data = open_data(f"dir:{tmp_path}")
    assert set(data.class_names) == {"bus", "car", name}
    assert len(data.train) == 12


def test_two_classes_named_like_splits_are_classes(tmp_path):
    for name in ("test", "train"):
        put(tmp_path / name, 5)
    assert open_data(f"dir:{tmp_path}").class_names == ("test", "train")


def test_a_fifth_of_a_single_train_folder_is_held_out(tmp_path):
    for name in "ab":
        put(tmp_path / "train" / name, 5)
    data = open_data(f"dir:{tmp_path}")
    assert data.class_names == ("a", "b")
    assert (len(data.train), len(data.test)) == (8, 2)


def test_folders_without_images_beside_a_train_folder_or_in_a_part_are_no_classes(tmp_path):
    for name in "ab":
        put(tmp_path / "train" / name, 5)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "0.xml").write_text("<annotation/>")
    data = open_data(f"dir:{tmp_path}")
    assert data.class_names == ("a", "b")
    assert data.unreadable == ((f"{tmp_path}/annotations/0.xml", "lies in no class folder"),)
    put(tmp_path / "val" / "a", 2)
    (tmp_path / "val" / "masks").mkdir()
    (tmp_path / "val" / "masks" / "0.json").write_text("{}")
    data = open_data(f"dir:{tmp_path}")
    assert [len(split) for split in data.splits] == [10, 2]
    assert Path(data.unreadable[1].path).name == "0.json"
    put(tmp_path / "val" / "masks", 1)
    with pytest.raises(ValueError, match=r"class folders that the training images have.*'masks'"):
        open_data(f"dir:{tmp_path}")


def test_test_images_without_classes_are_listed(tmp_path):
    for name in "ab":
        put(tmp_path / "train" / name, 5)
    put(tmp_path / "test", 3)
    data = open_data(f"dir:{tmp_path}")
    assert data.class_names == ("a", "b")
    assert [reason for _, reason in data.unreadable] == ["lies in no class folder"] * 3


def test_a_stray_image_does_not_turn_split_folders_into_classes(tmp_path):
    for part in ("train", "val"):
        put(tmp_path / part, 1, first=9)
        for name in "ab":
            put(tmp_path / part / name, 2)
    data = open_data(f"dir:{tmp_path}")
    assert data.class_names == ("a", "b")
    assert [Path(path).name for path, _ in data.unreadable] == ["9.png", "9.png"]


def test_two_folders_of_one_split_are_refused(tmp_path):
    for part in ("train", "val", "dev"):
        for name in "ab":
            put(tmp_path / part / name)
    with pytest.raises(ValueError, match=r"one folder of validation images.*\['dev', 'val'\]"):
        open_data(f"dir:{tmp_path}")


def test_a_folder_around_the_data_is_named(tmp_path):
    for name in "ab":
        put(tmp_path / "unpacked" / name)
    with pytest.raises(ValueError, match=r"give '.*/unpacked'"):
        open_data(f"dir:{tmp_path}")


def test_one_image_per_class_leaves_nothing_to_hold_out(tmp_path):
    for name in "ab":
        put(tmp_path / name, 1)
    with pytest.raises(ValueError, match="at least two readable images of a class"):
        open_data(f"dir:{tmp_path}")


def test_a_share_of_each_class_is_held_out():
    labels = np.repeat([0, 1, 2, 3], [60, 12, 2, 1])
    rows = held_out_rows(labels, 1 / 6, seed=1)
    assert np.bincount(labels[rows], minlength=4).tolist() == [10, 2, 1, 0]
    assert not np.array_equal(rows, held_out_rows(labels, 1 / 6, seed=2))


# --- names --------------------------------------------------------------------------------------


def test_names_that_are_not_utf_8_are_escaped(tmp_path):
    strange = os.fsdecode(b"caf\xe9")
    for name in ("a", strange):
        put(tmp_path / name, 3)
    (tmp_path / strange / os.fsdecode(b"no\xffte")).write_text("no image")
    data = open_data(f"dir:{tmp_path}")
    assert data.class_names == ("a", r"caf\xe9")
    write_record(tmp_path, data)
    write_labels(tmp_path / "labels.txt", data.class_names)
    rows = list(csv.reader((tmp_path / "left_out.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["kind", "path", "reason"]
    assert rows[1][1].endswith(r"/caf\xe9/no\xffte")


def test_printable_escapes_what_a_terminal_cannot_show():
    text = os.fsdecode(b"a\xff") + "\n\x1b[31m\u2028ä b\ud800"
    assert printable(text) == r"a\xff\n\x1b[31m\u2028ä b\ud800"


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028"])
def test_no_separator_of_unicode_splits_a_label_file(tmp_path, separator):
    names = ("a", f"b{separator}c", "")
    write_labels(tmp_path / "labels.txt", names)
    assert read_labels(tmp_path / "labels.txt") == names
    assert len(f"b{separator}c".splitlines()) == 2  # which would otherwise have split it


@pytest.mark.parametrize("name", ["a\nb", "a\rb"])
def test_classes_with_line_breaks_are_refused(tmp_path, name):
    for folder in ("x", name):
        put(tmp_path / folder)
    with pytest.raises(ValueError, match="without line breaks"):
        open_data(f"dir:{tmp_path}")


# --- the same files for every command -----------------------------------------------------------


def test_lists_and_exports_use_the_same_files_as_training(tmp_path):
    random_layout(tmp_path / "data", seed=2)
    data = open_data(f"dir:{tmp_path / 'data'}")
    used = {file.path for split in data.splits for file in split.files}
    listed = [file for file in image_files([tmp_path / "data"]) if isinstance(file, Path)]
    assert used <= {str(file) for file in listed}
    images = folder_images(tmp_path / "data", (4, 4, 3), data.class_names)
    out = {left.path for left in images.left_out}
    assert {str(file) for file in listed} - out >= used
    assert len(images.check) == len(used) + sum(
        reason == "lies in no class folder" and path.endswith(("0.png", "1.png"))
        for path, reason in data.unreadable
    )


def test_a_bad_file_does_not_end_an_export_and_the_truth_is_the_class_folder(tmp_path):
    put(tmp_path / "val" / "a" / "deep", 3)
    put(tmp_path / "val" / "b", 3, first=3)
    (tmp_path / "val" / "b" / "bad.png").write_text("no image")
    images = folder_images(tmp_path, (4, 4, 3), ("b", "a"))
    assert np.bincount(images.truth).tolist() == [3, 3]
    assert [Path(left.path).name for left in images.left_out] == ["bad.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="without any that can be read"):
        folder_images(tmp_path / "none", (4, 4, 3), None)


def test_missing_paths_and_special_files_are_listed(tmp_path):
    put(tmp_path, 1)
    os.mkfifo(tmp_path / "pipe")
    names = ("0.png", "gone", "0.png/inside", "x" * 300, "nul\0", "pipe")
    found = list(image_files([tmp_path / name for name in names]))
    assert found == [
        tmp_path / "0.png",
        LeftOut(str(tmp_path / "gone"), "not found"),
        LeftOut(str(tmp_path / "0.png/inside"), "not found"),
        LeftOut(str(tmp_path / ("x" * 300)), "File name too long"),
        LeftOut(str(tmp_path / "nul\0"), "embedded null byte"),
        LeftOut(str(tmp_path / "pipe"), "not a regular file"),
    ]
    assert list_folder(tmp_path).left_out == [LeftOut(str(tmp_path / "pipe"), "not a regular file")]


# --- memory -------------------------------------------------------------------------------------


def test_a_scan_reads_no_file_as_a_whole(tmp_path, monkeypatch):
    """A film of 8 GiB, and images with as many bytes behind them, need no memory."""
    for name in "ab":
        put(tmp_path / name, 3)
    with (tmp_path / "a" / "clip.mp4").open("wb") as film:
        film.truncate(2**33)
    picture = tmp_path / "a" / "long.jpg"
    Image.new("RGB", (28, 28)).save(picture)
    with picture.open("r+b") as file:
        file.truncate(2**26)
    whole = hashlib.sha256(picture.read_bytes()).hexdigest()
    monkeypatch.setattr(ImageFile, "read", lambda file: pytest.fail(f"{file.path} is read whole"))
    data = open_data(f"dir:{tmp_path}")
    assert [path for path, _ in data.unreadable] == [str(tmp_path / "a" / "clip.mp4")]
    files = {file.path: file for split in data.splits for file in split.files}
    assert whole.startswith(files[str(picture)].digest)
    assert files[str(picture)].orientation == PIXELS  # Pillow decodes it, which reads on demand
    assert data.train.fitted(np.arange(3), (8, 8), 3).shape == (3, 8, 8, 3)


# --- cached scans -------------------------------------------------------------------------------


@pytest.fixture
def probed(monkeypatch) -> list[str]:
    """The files that a scan decodes."""
    seen: list[str] = []
    from keras_inception.data import scan

    probe = scan._probe

    def noted(place):
        seen.append(place.path)
        return probe(place)

    monkeypatch.setattr(scan, "_probe", noted)
    return seen


def test_a_second_scan_decodes_only_changed_files(tmp_path, probed):
    root, kept = tmp_path / "data", tmp_path / "scan.gz"
    for name in "ab":
        put(root / name, 5)
    (root / "a" / "bad.png").write_text("no image")
    first = open_data(f"dir:{root}")
    assert len(probed) == 11
    save_scan(kept, dict(first.scanned))
    probed.clear()
    again = open_data(f"dir:{root}", scan_file=kept)
    assert probed == []
    assert again.unreadable == first.unreadable
    assert [split.files for split in again.splits] == [split.files for split in first.splits]
    put(root / "b", 1, first=9)
    changed = root / "a" / "0.png"
    os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 1))
    open_data(f"dir:{root}", scan_file=kept)
    assert sorted(probed) == [str(changed), str(root / "b" / "9.png")]


def test_a_damaged_scan_is_ignored(tmp_path, monkeypatch):
    put(tmp_path / "a", 2)
    put(tmp_path / "b", 2)
    kept = tmp_path / "scan.gz"
    assert load_scan(kept) == {}
    save_scan(kept, dict(open_data(f"dir:{tmp_path}").scanned))
    assert len(load_scan(kept)) == 4
    monkeypatch.setenv("KERAS_INCEPTION_MAX_MEGAPIXELS", "1")  # other files may be readable then
    assert load_scan(kept) == {}
    monkeypatch.undo()
    kept.write_bytes(kept.read_bytes()[:-20])
    assert load_scan(kept) == {}
