"""The pages of evaluations and trainings: numbers by hand, escaped names, pictures inside."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import tiny_spec
from PIL import Image

from keras_inception.data.splits import ImageData, Split
from keras_inception.evaluation.scores import evaluate_scores
from keras_inception.images.conventions import preprocess_input, restored_pixels
from keras_inception.reports.evaluation import class_rows, worst_mistakes, write_evaluation_page
from keras_inception.reports.training import training_samples
from keras_inception.spec.pixels import CONVENTIONS
from keras_inception.spec.recipe import Recipe

NAMES = ("cat", "dog", "<b>\u202eowl</b>")


class Tags(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def pictures(page: Tags) -> list[Image.Image]:
    found = [str(values["src"]) for tag, values in page.tags if tag == "img"]
    assert all(source.startswith("data:image/png;base64,") for source in found)
    return [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in found]


def test_classes_are_sorted_by_recall():
    #                     predicted: cat dog owl
    confusion = np.array([[6, 2, 0], [5, 3, 2], [0, 0, 0]])
    rows = class_rows(confusion, NAMES)
    assert [row.name for row in rows] == ["dog", "cat", NAMES[2]]
    dog, cat, owl = rows
    assert (dog.images, dog.recall, dog.precision) == (10, 0.3, 0.6)
    assert (dog.mistaken_for, dog.times) == ("cat", 5)
    assert (cat.images, cat.recall, cat.precision) == (8, 0.75, pytest.approx(6 / 11))
    assert np.isnan(owl.recall)
    assert owl.precision == 0
    assert (owl.mistaken_for, owl.times) == ("", 0)


def test_the_worst_mistakes_have_the_surest_wrong_labels_first():
    images = np.zeros((4, 2, 2, 1), np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None, None]
    split = Split(images, np.array([0, 0, 1, 2]))
    scores = np.array([[0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.9, 0.1, 0.0], [0.2, 0.2, 0.6]])
    found = worst_mistakes(scores, split, NAMES, shape=(2, 2, 1))
    assert [(item.label, item.predicted, item.score, item.own_score) for item in found] == [
        ("dog", "cat", 0.9, 0.1),
        ("cat", "dog", 0.5, 0.3),
    ]
    shown = Image.open(io.BytesIO(base64.b64decode(found[0].picture.split(",")[1])))
    assert np.asarray(shown).tolist() == [[2, 2], [2, 2]]
    right = Split(images[:1], np.array([0]))
    assert worst_mistakes(scores[:1], right, NAMES, shape=(2, 2, 1)) == []


def test_names_are_text_and_pictures_are_inside(tmp_path):
    split = Split(np.full((2, 4, 4, 3), 200, np.uint8), np.array([2, 1]))
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    write_evaluation_page(
        tmp_path / "report.html",
        evaluate_scores(scores, split.labels),
        worst_mistakes(scores, split, NAMES, shape=(4, 4, 3)),
        NAMES,
        title="<script>alert(1)</script> on pets",
        confusion=None,
    )
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Tags(text)
    assert "\u202e" not in text
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert "<b>\\u202eowl</b>" in page.text
    assert "50.0% top-1 accuracy" in re.sub(r"\s+", " ", page.text)
    assert "top-5" not in page.text
    assert [picture.size for picture in pictures(page)] == [(4, 4)]
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_restored_pixels_are_those_that_went_in(convention):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), np.uint8)
    images = preprocess_input(pixels, "channels_last", convention=convention)
    np.testing.assert_array_equal(restored_pixels(images, convention), pixels)


def test_samples_are_the_images_of_the_first_batch():
    """Without augmentation the pictures are the training images, each with its own class."""
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    split = Split(images, np.arange(12) % 3)
    spec = replace(tiny_spec(classes=3), pixels="caffe")
    recipe = Recipe(name="r", epochs=1, batch_size=8, flip=False, shift=0)
    found = training_samples(spec, ImageData("d", split, split, NAMES), recipe)
    assert len(found) == 8
    seen = []
    for picture, label in found:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))))
        assert len(np.unique(pixels)) == 1
        seen.append(int(pixels[0, 0, 0]))
        assert label == NAMES[seen[-1] % 3]
    assert len(set(seen)) == 8


def test_mixed_samples_name_their_shares():
    images = np.zeros((8, 32, 32, 3), np.uint8)
    data = Split(images, np.arange(8) % 2)
    recipe = Recipe(name="r", epochs=1, batch_size=8, mixup=1.0)
    found = training_samples(tiny_spec(classes=2), ImageData("d", data, data, NAMES[:2]), recipe)
    assert any(re.fullmatch(r"(cat|dog) \d+%, (cat|dog) \d+%", label) for _, label in found)
