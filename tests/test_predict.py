"""From image files to labels: loading, the order of the labels, refused input."""

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from PIL import Image
from typer.testing import CliRunner

from keras_inception.cli import app
from keras_inception.images.listing import image_files
from keras_inception.inference.predictor import load
from keras_inception.network.build import build_network
from keras_inception.training.fine_tune import initialize

NAMES = ("Hemd", "Kleid", "Stiefel", "größer", "x y")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Save a network with its labels, as in a run's folder."""
    keras.utils.set_random_seed(0)
    path = tmp_path / "läufe" / "model.keras"
    path.parent.mkdir()
    build_network(tiny_spec(norm="bn")).save(path)
    path.with_name("labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A square of the network's size, so that nothing is resized."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    path = tmp_path / "bild ä.png"
    Image.fromarray(pixels).save(path)
    return path


def scores_of(model_path: Path, picture: Path) -> np.ndarray:
    """Scores of the model itself on pixels scaled to [-1, 1]."""
    pixels = np.asarray(Image.open(picture), np.float32)
    model = keras.models.load_model(model_path)
    return np.asarray(model(pixels[None] / 127.5 - 1, training=False))[0]


def test_the_best_labels_come_first_with_their_scores(saved, picture):
    expected = scores_of(saved, picture)
    order = np.argsort(expected)[::-1]
    answers = load(saved)(picture, top=3).labels
    assert [label for label, _ in answers] == [NAMES[index] for index in order[:3]]
    np.testing.assert_allclose([score for _, score in answers], expected[order[:3]], atol=1e-6)


def test_more_labels_than_classes_are_all_classes(saved, picture):
    answers = load(saved)(picture, top=99).labels
    assert sorted(label for label, _ in answers) == sorted(NAMES)
    assert sum(score for _, score in answers) == pytest.approx(1, abs=1e-5)


def test_without_labels_classes_are_numbered(saved, picture):
    saved.with_name("labels.txt").unlink()
    best = int(scores_of(saved, picture).argmax())
    assert load(saved)(picture, top=1).labels[0][0] == str(best)


def test_a_wrong_number_of_labels_is_refused(saved):
    saved.with_name("labels.txt").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"Expected 5 lines in .*labels.txt.*Received: 2"):
        load(saved)


def test_a_file_that_is_not_an_image_is_refused(saved, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"Expected an image. Received: .*text.png"):
        load(saved)(tmp_path / "text.png", top=1)


def test_an_image_of_another_shape_is_cropped_and_resized(saved, tmp_path):
    """Of 128 x 64 the network sees the central 64 columns (and 2 more that blur in), halved."""
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 30:98] = (200, 100, 50)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(np.full((32, 32, 3), (200, 100, 50), np.uint8)).save(tmp_path / "even.png")
    expected = scores_of(saved, tmp_path / "even.png")
    answers = dict(load(saved)(tmp_path / "wide.png", top=5).labels)
    np.testing.assert_allclose([answers[name] for name in NAMES], expected, atol=1e-5)


def test_a_grey_network_accepts_colour_images(tmp_path, picture):
    build_network(tiny_spec(channels=1)).save(tmp_path / "grey.keras")
    predictor = load(tmp_path / "grey.keras")
    grey = np.asarray(Image.open(picture).convert("L"), np.float32)[None, ..., None]
    model = keras.models.load_model(tmp_path / "grey.keras")
    expected = np.asarray(model(grey / 127.5 - 1, training=False))[0]
    answers = dict(predictor(picture, top=5).labels)
    np.testing.assert_allclose([answers[str(n)] for n in range(5)], expected, atol=1e-6)


def test_auxiliary_classifiers_are_left_out(tmp_path, picture):
    model = build_network(tiny_spec(aux=True), auxiliary=True)
    model.save(tmp_path / "aux.keras")
    pixels = np.asarray(Image.open(picture), np.float32)[None]
    expected = np.asarray(model(pixels / 127.5 - 1, training=False)["main"])[0]
    answers = dict(load(tmp_path / "aux.keras")(picture, top=5).labels)
    np.testing.assert_allclose([answers[str(n)] for n in range(5)], expected, atol=1e-6)


@pytest.mark.usefixtures("channels_first")
def test_channels_first(tmp_path, picture):
    model = build_network(tiny_spec())
    model.save(tmp_path / "first.keras")
    pixels = np.asarray(Image.open(picture), np.float32).transpose(2, 0, 1)[None]
    expected = np.asarray(model(pixels / 127.5 - 1, training=False))[0]
    answers = dict(load(tmp_path / "first.keras")(picture, top=5).labels)
    np.testing.assert_allclose([answers[str(n)] for n in range(5)], expected, atol=1e-5)


# Files that are not a model of this package


def damaged(saved: Path, how: str) -> Path:
    path = saved.with_name("damaged.keras")
    whole = saved.read_bytes()
    if how == "text":
        path.write_text("not a model")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "overwritten":
        path.write_bytes(whole[:2000] + bytes(4000) + whole[6000:])
    elif how == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif how == "no weights":
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as archive:
            for name in ("config.json", "metadata.json"):
                archive.writestr(name, source.read(name))
    return path


@pytest.mark.parametrize(
    "how", ["text", "empty", "cut", "overwritten", "other zip", "no weights", "absent"]
)
def test_a_damaged_file_is_one_error_that_names_it(saved, how):
    with pytest.raises(ValueError, match=r"Expected a .*damaged\.keras") as caught:
        load(damaged(saved, how))
    assert len(str(caught.value)) < 600


def test_a_model_of_another_kind_is_refused(tmp_path):
    inputs = keras.Input((32, 32, 3), name="image")
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    model.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="Expected an input named pixels_CONVENTION"):
        load(tmp_path / "other.keras")


def test_a_network_without_classifier_or_size_is_refused(tmp_path):
    build_network(tiny_spec(), include_top=False).save(tmp_path / "grid.keras")
    with pytest.raises(ValueError, match=r"Expected a classifier .*grid.*output_shape=\(4, 4,"):
        load(tmp_path / "grid.keras")
    build_network(tiny_spec(size=None)).save(tmp_path / "any.keras")
    with pytest.raises(ValueError, match=r"fixed input size .*any.*input_shape=\(None, None, 3\)"):
        load(tmp_path / "any.keras")


# Many files


def test_thousands_of_files_are_read_one_batch_at_a_time(saved, picture, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    taken = []

    def paths() -> Iterator[Path]:
        for number in range(2000):
            taken.append(number)
            yield broken if number == 1234 else picture

    answers = load(saved).stream(paths(), top=1, batch_size=16)
    (label, score), *_ = next(answers).labels
    assert len(taken) == 16
    expected = scores_of(saved, picture)
    assert label == NAMES[expected.argmax()]
    assert score == pytest.approx(expected.max(), abs=1e-6)
    rest = list(answers)
    assert len(rest) == 1999
    assert [number for number, answer in enumerate(rest, start=1) if answer.error] == [1234]
    assert {answer.labels[0][0] for answer in rest if not answer.error} == {label}


# The command line, on names and folders of every kind


def command(*arguments: object, stdin: bytes | None = None):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)], input=stdin)


def json_lines(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_lists_with_windows_line_ends_and_folders_on_standard_input(saved, picture, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(picture, tmp_path / "in" / "1.png")
    shutil.copy(picture, tmp_path / "in" / "2.png")
    listed = os.fsencode(picture) + b"\r\n\r\n" + os.fsencode(tmp_path / "in") + b"\r\n"
    result = command(saved, "-", "--json", stdin=listed)
    assert result.exit_code == 0, result.output
    names = [line["image"] for line in json_lines(result)]
    assert names == [str(picture), str(tmp_path / "in" / "1.png"), str(tmp_path / "in" / "2.png")]


def test_a_missing_path_among_others_is_reported_and_the_rest_answered(saved, picture, tmp_path):
    result = command(saved, tmp_path / "gone.png", picture, "--json")
    assert result.exit_code == 2
    gone, found = json_lines(result)
    assert "gone.png' (not found)" in gone["error"]
    assert len(found["labels"]) == 5
    assert result.stderr.count("Error:") == 1


def test_hidden_files_are_counted_and_do_not_fail_a_folder(saved, picture, tmp_path):
    root = tmp_path / "in"
    for name in (".DS_Store", ".ipynb_checkpoints/1.png", "__MACOSX/._1.png", "Thumbs.db"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    shutil.copy(picture, root / "1.png")
    result = command(saved, root)
    assert result.exit_code == 0, result.output
    assert "4 files left out: hidden, or the operating system's." in result.stderr
    (root / "notes.txt").write_text("x")
    result = command(saved, root)
    assert result.exit_code == 2
    assert "notes.txt" in result.stderr


def test_names_that_are_not_utf_8_are_printed_escaped(saved, picture, tmp_path):
    strange = tmp_path / os.fsdecode(b"bild\xe9\n.png")
    shutil.copy(picture, strange)
    result = command(saved, strange)
    assert result.exit_code == 0, result.output
    assert r"bild\xe9\n.png" in "".join(result.stdout.split())
    broken = tmp_path / os.fsdecode(b"kaputt\xff.png")
    broken.write_text("no image")
    result = command(saved, broken, strange)
    assert result.exit_code == 2
    assert "kaputt" in result.stderr


def test_labels_with_separators_of_unicode_stay_whole(saved, picture):
    names = ["a\u2028b", "c\x85d", "e\x1cf", "g", "h"]
    saved.with_name("labels.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    assert sorted(load(saved).labels) == sorted(names)
    result = command(saved, picture, "--top", 5)
    assert result.exit_code == 0, result.output
    assert r"a\u2028b" in result.stdout


def test_folders_are_searched_in_order_and_files_are_used_unfiltered(tmp_path):
    for name in ("b/2.JPG", "b/deep/1.png", "a.webp", "notes.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = image_files([tmp_path / "in", tmp_path / "in" / "notes.txt"])
    names = [path.relative_to(tmp_path / "in").as_posix() for path in found]
    # Whether a file is an image its contents say, not its name.
    assert names == ["a.webp", "b/2.JPG", "b/deep/1.png", "notes.txt", "notes.txt"]


def test_damaged_initial_weights_are_one_error(saved):
    path = damaged(saved, "other zip")
    with pytest.raises(ValueError, match=r"Expected a model that Keras can load.*damaged\.keras"):
        initialize(build_network(tiny_spec()), path, tiny_spec())


def test_initial_weights_that_do_not_fit_change_nothing(tmp_path):
    other = tiny_spec()
    last = other.modules[-1]
    wider = other.map_modules({last.name: replace(last, filters_1x1=last.filters_1x1 + 1)})
    build_network(wider).save(tmp_path / "other.keras")
    model = build_network(tiny_spec())
    before = model.get_weights()
    with pytest.raises(ValueError, match="Expected initial weights of these layers"):
        initialize(model, tmp_path / "other.keras", tiny_spec())
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
