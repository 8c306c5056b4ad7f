"""Evaluation with many crops: pixels against Pillow, means against NumPy; the command."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from keras_inception.cli import app
from keras_inception.cli.evaluate import _check_classes
from keras_inception.data.sources import open_data
from keras_inception.data.splits import FileSplit, ImageData, Split
from keras_inception.data.stream import evaluation_batches
from keras_inception.evaluation.scores import Evaluation, crop_scores, table_3
from keras_inception.evaluation.testing_crops import crop_views
from keras_inception.network.build import build_network
from keras_inception.network.imagenet import imagenet_classes
from keras_inception.spec.variants import variant_spec


def lying(channels: int = 3) -> Split:
    """Three images of 30 x 42 pixels."""
    random = np.random.default_rng(0)
    return Split(random.integers(0, 256, (3, 30, 42, channels), np.uint8), np.array([0, 1, 0]))


def by_pillow(plane: np.ndarray, size: int) -> list[np.ndarray]:
    """Section 7's 72 crops of one channel of 30 x 42 for an input of 28, made with Pillow.

    The whole image is resized, then cropped.

    The sizes of 28 / 224 = 1/8 of the paper's: 32, 36, 40, 44; 42 / 30 = 1.4 of them: 44, 50, 56,
    61. Squares start at 0, at half of the remainder, and at the remainder.
    """
    image = Image.fromarray(plane)
    crops = []
    for side, width in ((32, 44), (36, 50), (40, 56), (44, 61)):
        resized = image.resize((width, side), Image.Resampling.BILINEAR)
        for left in (0, (width - side) // 2, width - side):
            square = resized.crop((left, 0, left + side, side))
            rest = side - size
            half = rest // 2
            for top, start in ((0, 0), (0, rest), (rest, 0), (rest, rest), (half, half)):
                crops.append(square.crop((start, top, start + size, top + size)))
            crops.append(square.resize((size, size), Image.Resampling.BILINEAR))
    return [np.asarray(crop) for crop in crops]


def assert_same_levels(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for ties at half a level: Pillow takes a box in single precision."""
    difference = np.abs(actual.astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.03


def test_the_144_crops_equal_those_made_with_pillow():
    split = lying()
    views = [views for _, views in crop_views(split, 28, 3, "144", views_at_once=36 * 3)]
    assert [view.shape for view in views] == [(3, 36, 28, 28, 3)] * 4
    for image, pixels in enumerate(split.images):
        planes = [by_pillow(pixels[..., channel], 28) for channel in range(3)]
        expected = np.stack(planes, axis=-1)  # 72 x 28 x 28 x 3
        plain = np.concatenate([view[image, :18] for view in views])
        mirrored = np.concatenate([view[image, 18:] for view in views])
        assert_same_levels(plain, expected)
        assert_same_levels(mirrored, expected[:, :, ::-1])


def test_ten_crops_and_one_crop():
    split = lying()
    ((_, ten),) = crop_views(split, 28, 3, "10", views_at_once=30)
    ((_, one),) = crop_views(split, 28, 3, "1")
    assert ten.shape == (3, 10, 28, 28, 3)
    # The centred square of the first scale has crops 6 to 10 of the 144; its centre is the tenth.
    expected = by_pillow(split.images[1, ..., 2], 28)
    assert_same_levels(ten[1, :5, ..., 2], np.stack(expected[6:11]))
    assert_same_levels(one[1, 0, ..., 2], expected[10])
    np.testing.assert_array_equal(ten[:, 5:], ten[:, :5, :, ::-1])


def test_whole_equals_the_evaluation_stream():
    spec = variant_spec("nano")
    split = lying(channels=1)
    images, _ = next(iter(evaluation_batches(split, spec, 3)))
    ((_, whole),) = crop_views(split, 28, 1, "whole")
    np.testing.assert_allclose((images + 1) * 127.5, whole[:, 0], atol=1e-3)


def test_files_are_read_one_scale_of_one_image_at_a_time(tmp_path):
    for name in "ab":
        for number, size in enumerate(((300, 200), (200, 300))):
            path = tmp_path / name / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)
    data = open_data(f"dir:{tmp_path}")
    assert isinstance(data.train, FileSplit)
    shapes = [views.shape for _, views in crop_views(data.train, 32, 3, "144")]
    assert shapes == [(1, 36, 32, 32, 3)] * 4 * len(data.train)


def brightness_model(slope: float) -> keras.Model:
    """Two classes; the logit of class 1 is `slope` times the crop's mean top left pixel."""
    inputs = keras.Input((28, 28, 1), name="pixels_inception5h")
    corner = keras.layers.Cropping2D(((0, 27), (0, 27)))(inputs)
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(corner))
    model = keras.Model(inputs, outputs)
    model.set_weights([np.array([[0.0, slope]]), np.zeros(2)])
    return model


def test_scores_are_the_mean_softmax_over_crops():
    split = lying(channels=1)
    expected = []
    for pixels in split.images[..., 0]:
        crops = by_pillow(pixels, 28)
        corners = [int(crop[0, column]) - 117 for crop in crops for column in (0, -1)]
        ones = 1 / (1 + np.exp(-0.02 * np.array(corners, np.float64)))
        expected.append([1 - ones.mean(), ones.mean()])
    done: list[int] = []
    scores = crop_scores(brightness_model(0.02), split, "144", batch_size=50, progress=done.append)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert sum(done) == 3


def test_an_input_that_is_not_square_has_whole_crops_alone():
    """The network's scores are two of its pixels: those of Pillow's crop and resize."""
    inputs = keras.Input((12, 32, 1), name="pixels_inception5h")  # minus 117
    corners = keras.layers.Flatten()(keras.layers.Cropping2D(((0, 11), (0, 30)))(inputs))
    model = keras.Model(inputs, corners)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5, 40, 64, 1), np.uint8)
    split = Split(images, np.arange(5) % 2)
    expected = []
    for pixels in images[..., 0]:  # 40 x 64: the centre of 24 x 64, resized
        part = Image.fromarray(pixels).crop((0, 8, 64, 32))
        whole = np.asarray(part.resize((32, 12), Image.Resampling.BILINEAR), np.float32)
        expected.append(whole[0, :2] - 117)
    done: list[int] = []
    scores = crop_scores(model, split, "whole", batch_size=2, progress=done.append)
    np.testing.assert_allclose(scores, expected)
    assert sum(done) == 5
    with pytest.raises(ValueError, match=r"fixed square input.*evaluate the crops .whole"):
        crop_scores(model, split, "10")


def result(top_5: float) -> Evaluation:
    return Evaluation(100, 0.5, top_5, 1.0, np.zeros((2, 2)))


def test_table_3_with_the_papers_numbers():
    rows = table_3(
        [
            (1, "1", result(1 - 0.1007)),
            (1, "144", result(1 - 0.0789)),
            (7, "10", result(1 - 0.0762)),
            (7, "144", result(1 - 0.0667)),
        ]
    )
    assert [(row.models, row.crops, row.cost) for row in rows] == [
        (1, 1, 1),
        (1, 144, 144),
        (7, 10, 70),
        (7, 144, 1008),
    ]
    assert [row.top_5_error for row in rows] == pytest.approx([0.1007, 0.0789, 0.0762, 0.0667])
    assert rows[0].compared_to_base is None
    differences = [row.compared_to_base for row in rows[1:]]
    assert differences == pytest.approx([-0.0218, -0.0245, -0.0340])  # as printed


# The command


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A folder of twelve images in two classes, and two models trained on it."""
    root = tmp_path_factory.mktemp("command")
    random = np.random.default_rng(1)
    for name in "ab":
        for number in range(6):
            path = root / "pictures" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (30, 42), np.uint8)).save(path)
    (root / "pictures" / "a" / "broken.png").write_bytes(b"")
    for run, slope in (("one", 0.02), ("two", -0.01)):
        (root / run).mkdir()
        brightness_model(slope).save(root / run / "model.keras")
        (root / run / "labels.txt").write_text("a\nb\n")
    return root / "pictures", root / "one", root / "two"


def test_an_ensemble_with_two_numbers_of_crops(trained, tmp_path):
    pictures, one, two = trained
    arguments = ["evaluate", str(one), str(two), "--data", f"dir:{pictures}", "--crops", "1"]
    answer = CliRunner().invoke(app, [*arguments, "--crops", "10", "--out", str(tmp_path / "out")])
    assert answer.exit_code == 0, answer.output
    assert "1 file left out" in answer.stderr
    assert "broken.png: zero bytes" in answer.stderr
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [(row["models"], row["crop"], row["cost"]) for row in document["rows"]] == [
        (1, "1", 1),
        (1, "10", 10),
        (2, "1", 2),
        (2, "10", 20),
    ]
    test = open_data(f"dir:{pictures}").test
    models = [brightness_model(slope) for slope in (0.02, -0.01)]
    mean = np.mean([crop_scores(model, test, "10") for model in models], axis=0)
    loss = -np.log(mean[np.arange(len(test)), test.labels]).mean()
    assert document["rows"][3]["loss"] == pytest.approx(loss)
    assert document["rows"][3]["images"] == len(test) == 2
    assert (tmp_path / "out" / "confusion_matrix.png").stat().st_size > 1_000


def test_wordnet_ids_are_mapped_to_imagenets_classes():
    """TFDS names the classes of imagenet2012 with WordNet ids, `weights convert` with words."""
    ids, names = zip(*imagenet_classes(), strict=True)
    predictor = SimpleNamespace(network=SimpleNamespace(labels=names))
    images = Split(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1, np.int64))
    data = ImageData("imagenet2012", images, images, ids)
    _check_classes(predictor, Path("public.keras"), data)
    other = replace(data, class_names=(ids[1], ids[0], *ids[2:]))
    with pytest.raises(ValueError, match="in their order"):
        _check_classes(predictor, Path("public.keras"), other)


def test_usage_errors_are_one_line(trained):
    pictures, one, _ = trained
    for arguments, message in (
        (["--crops", "12"], "Expected --crops whole, 1, 10 or 144"),
        (["--data", "sample"], "Expected a model of the 10 classes"),
        (["--data", f"dir:{pictures}", "--strict"], "zero bytes"),
        (["--out", str(pictures / "a" / "broken.png")], "Expected a folder that can be written"),
    ):
        answer = CliRunner().invoke(app, ["evaluate", str(one), *arguments])
        assert answer.exit_code == 2
        assert message in answer.stderr


def test_evaluation_in_training_equals_whole_images():
    """With a real network on the sample, both give the same accuracy."""
    spec = variant_spec("nano")
    keras.utils.set_random_seed(0)
    model = build_network(spec)
    sample = open_data("sample").test
    split = Split(sample.images[:20], sample.labels[:20])
    images, _ = next(iter(evaluation_batches(split, spec, 20)))
    np.testing.assert_allclose(
        crop_scores(model, split, "whole"), model.predict_on_batch(images), atol=1e-6
    )


def test_the_metrics_of_a_run_are_not_overwritten(trained):
    pictures, one, _ = trained
    (one / "metrics.json").write_text("the run's")
    answer = CliRunner().invoke(
        app, ["evaluate", str(one), "--data", f"dir:{pictures}", "--out", str(one)]
    )
    assert answer.exit_code == 2
    assert "Expected a folder without metrics.json" in answer.stderr
    assert (one / "metrics.json").read_text() == "the run's"


@pytest.mark.parametrize("crops", ["whole", "10"])
def test_images_with_other_channels_than_the_model_are_refused(crops):
    with pytest.raises(ValueError, match=r"images of 1 channel, .* images of 3"):
        crop_scores(brightness_model(1.0), lying(channels=3), crops)


def test_a_page_in_the_folder_of_a_run(trained, tmp_path):
    """Of a run alone; where it cannot be written, the numbers are printed all the same."""
    pictures, one, two = trained
    folder = tmp_path / "run"
    shutil.copytree(one, folder)

    def evaluate(*models: Path) -> None:
        words = ["evaluate", *map(str, models), "--data", f"dir:{pictures}"]
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 0, answer.output
        assert "2 held-out images" in answer.stdout

    page = folder / "evaluation.html"
    evaluate(folder)
    assert not page.exists()  # no run: a model alone
    (folder / "spec.json").write_text("{}")
    evaluate(folder, two)
    assert not page.exists()
    evaluate(folder)
    text = page.read_text()
    assert 'id="mistakes"' in text or "None: every image got its label." in text
    assert "Confusion matrix" in text
    page.unlink()
    (page / "mine").mkdir(parents=True)
    before = sorted(folder.iterdir())
    evaluate(folder)
    assert sorted(folder.iterdir()) == before
