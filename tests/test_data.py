"""The bundled sample, and streams: order, augmentation, pixel convention, size, data format."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_spec
from PIL import Image
from processes import ENVIRONMENT

from keras_inception.data.augment import Draws, Purpose
from keras_inception.data.sample import SAMPLE_PATH, load_sample
from keras_inception.data.sources import open_data
from keras_inception.data.splits import ImageData, Split
from keras_inception.data.stream import (
    Batch,
    evaluation_batches,
    sample_pixels,
    training_batches,
)
from keras_inception.images.resize import resize
from keras_inception.spec.recipe import Recipe
from keras_inception.spec.variants import variant_spec

PLAIN = Recipe(name="plain", epochs=1, batch_size=4, flip=False, shift=0)


def numbered(count: int, *, size: int = 8, channels: int = 3) -> Split:
    """A split in which image i has the constant value i and the label i."""
    labels = np.arange(count)
    images = np.broadcast_to(labels[:, None, None, None], (count, size, size, channels))
    return Split(images.astype(np.uint8), labels)


def taken(batches: Iterator[Batch], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the first `count` batches, concatenated."""
    pairs = list(itertools.islice(batches, count))
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


# The sample


@pytest.fixture(scope="module")
def sample() -> ImageData:
    return load_sample()


def test_the_sample_is_small_and_includes_its_licence():
    assert SAMPLE_PATH.stat().st_size < 4_000_000
    licence = (SAMPLE_PATH.parent / "LICENSE-fashion-mnist.txt").read_text(encoding="utf-8")
    for part in (SAMPLE_PATH.name, "The MIT License", "Zalando SE", "arXiv 1708.07747"):
        assert part in licence


def test_the_sample_has_thousands_of_images_of_ten_balanced_classes(sample):
    assert sample.train.images.shape == (6_000, 28, 28, 1)
    assert sample.test.images.shape == (1_500, 28, 28, 1)
    assert len(sample.class_names) == 10
    assert sample.class_names[5] == "Sandal"
    for split in (sample.train, sample.test):
        shares = np.bincount(split.labels, minlength=10) / len(split)
        assert shares.min() > 0.08  # a tenth each, sampled randomly
        assert shares.max() < 0.12


def test_the_sample_has_the_published_mean(sample):
    """Fashion-MNIST's mean pixel is 72.94 of 255 (.2860, the constant of many recipes)."""
    assert sample.train.images.mean() == pytest.approx(72.94, abs=1)
    assert sample.train.images.max() == 255
    assert sample.train.images.min() == 0


def test_no_image_of_the_sample_occurs_twice(sample):
    images = [image.tobytes() for split in (sample.train, sample.test) for image in split.images]
    assert len(set(images)) == 7_500


# Refused data


def test_a_split_needs_bytes_and_one_label_per_image():
    images = np.zeros((3, 8, 8, 1), np.uint8)
    labels = np.arange(3)
    with pytest.raises(ValueError, match="dtype=float64"):
        Split(images / 1.0, labels)
    with pytest.raises(ValueError, match=r"shape=\(3, 8, 8\)"):
        Split(images[..., 0], labels)
    with pytest.raises(ValueError, match=r"each of 3 images. Received: shape=\(2,\)"):
        Split(images, labels[:2])
    with pytest.raises(ValueError, match="dtype=float64"):
        Split(images, labels / 1.0)
    with pytest.raises(ValueError, match="at least one image"):
        Split(images[:0], labels[:0])


def test_labels_and_channels_must_fit():
    split, names = numbered(3), ("a", "b", "c")
    with pytest.raises(ValueError, match=r"from 0 to 1, .* labels from 0 to 2"):
        ImageData("d", split, split, names[:2])
    negative = Split(split.images, split.labels - 1)
    with pytest.raises(ValueError, match="labels from -1 to 2"):
        ImageData("d", split, negative, names)
    with pytest.raises(ValueError, match="Received: 3 and 1"):
        ImageData("d", split, numbered(3, channels=1), names)
    with pytest.raises(ValueError, match=r"more than once: \['a'\]"):
        ImageData("d", split, split, ("a", "b", "a"))


# The training stream


def test_each_epoch_is_a_different_permutation():
    split = numbered(10)
    _, labels = taken(training_batches(split, tiny_spec(size=8), PLAIN), 5)
    first, second = labels[:10].tolist(), labels[10:].tolist()
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert list(range(10)) not in (first, second)


def test_the_stream_depends_only_on_the_seed():
    split, spec = numbered(40), tiny_spec(size=8)
    recipe = Recipe(name="r", epochs=1, batch_size=8, seed=3)
    first = taken(training_batches(split, spec, recipe), 10)
    np.random.seed(99)
    again = taken(training_batches(split, spec, recipe), 10)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    other = Recipe(name="r", epochs=1, batch_size=8, seed=4)
    assert taken(training_batches(split, spec, other), 10)[1].tolist() != first[1].tolist()


def test_without_augmentation_the_pixels_are_unchanged():
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (6, 8, 8, 3), np.uint8), np.arange(6))
    images, labels = taken(training_batches(split, tiny_spec(size=8), PLAIN), 1)
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    assert images.shape == (4, 8, 8, 3)
    np.testing.assert_allclose(images, split.images[labels] / 127.5 - 1, atol=1e-6)


def test_the_convention_of_the_spec_is_applied():
    """BVLC: BGR minus (104, 117, 123)."""
    spec = variant_spec("paper")
    split = Split(np.full((4, 224, 224, 3), (10, 20, 30), np.uint8), np.arange(4))
    images, _ = taken(training_batches(split, spec, PLAIN), 1)
    np.testing.assert_array_equal(images[2, 100, 7], (30 - 104, 20 - 117, 10 - 123))


def test_shift_moves_by_whole_pixels_with_edges_mirrored_and_flip_mirrors():
    """Every image is one of the 2 x 25 windows of the padded image, cut with NumPy."""
    picture = np.arange(8 * 8, dtype=np.uint8).reshape(8, 8, 1)
    windows = {}
    for flipped in (False, True):
        source = picture[:, ::-1] if flipped else picture
        padded = np.pad(source, ((2, 2), (2, 2), (0, 0)), mode="symmetric")
        for top, left in itertools.product(range(5), range(5)):
            window = padded[top : top + 8, left : left + 8]
            windows[window.tobytes()] = (flipped, top, left)
    assert len(windows) == 50
    split = Split(np.repeat(picture[None], 2_000, axis=0), np.zeros(2_000, int))
    recipe = Recipe(name="r", epochs=1, batch_size=2_000, flip=True, shift=2)
    images, _ = taken(training_batches(split, tiny_spec(size=8, channels=1), recipe), 1)
    pixels = np.rint((images + 1) * 127.5).astype(np.uint8)
    counts = dict.fromkeys(windows.values(), 0)
    for image in pixels:
        counts[windows[image.tobytes()]] += 1
    # 40 expected of each; six standard deviations of a binomial are 38.
    assert min(counts.values()) > 2
    assert max(counts.values()) < 78


def test_shift_alone_and_flip_alone():
    picture = np.arange(8 * 8, dtype=np.uint8).reshape(8, 8, 1)
    split = Split(np.repeat(picture[None], 64, axis=0), np.zeros(64, int))
    spec = tiny_spec(size=8, channels=1)
    flip = Recipe(name="r", epochs=1, batch_size=64, flip=True, shift=0)
    images, _ = taken(training_batches(split, spec, flip), 1)
    rows = {tuple(np.rint((image[0, :, 0] + 1) * 127.5).astype(int)) for image in images}
    assert rows == {tuple(range(8)), tuple(range(7, -1, -1))}
    shift = Recipe(name="r", epochs=1, batch_size=64, flip=False, shift=1)
    images, _ = taken(training_batches(split, spec, shift), 1)
    rows = {tuple(np.rint((image[0, :, 0] + 1) * 127.5).astype(int) % 8) for image in images}
    assert rows == {(0, 0, 1, 2, 3, 4, 5, 6), tuple(range(8)), (1, 2, 3, 4, 5, 6, 7, 7)}


# The evaluation stream


def test_evaluation_is_in_order_and_ends_with_a_short_batch():
    batches = list(evaluation_batches(numbered(10), tiny_spec(size=8), 4))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    assert labels.tolist() == list(range(10))
    np.testing.assert_allclose(images[:, 3, 5, 1], np.arange(10) / 127.5 - 1, atol=1e-6)


# Size and data format


@pytest.mark.parametrize("size", [16, 40])
def test_other_sizes_are_resized_as_pillow_does(size):
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (4, 28, 28, 1), np.uint8), np.arange(4))
    spec = tiny_spec(size=size, channels=1)

    planes = (Image.fromarray(image[..., 0]) for image in split.images)
    expected = [plane.resize((size, size), Image.Resampling.BILINEAR) for plane in planes]
    for batches in (training_batches(split, spec, PLAIN), evaluation_batches(split, spec, 4)):
        images, labels = taken(batches, 1)
        assert images.shape == (4, size, size, 1)
        pixels = (images[..., 0] + 1) * 127.5
        np.testing.assert_allclose(pixels, np.stack(expected)[labels], atol=1e-3)


def test_a_spec_of_any_size_does_not_resize():
    images, _ = taken(evaluation_batches(numbered(4), tiny_spec(size=None), 4), 1)
    assert images.shape == (4, 8, 8, 3)


@pytest.mark.usefixtures("channels_first")
def test_channels_first():
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (4, 8, 6, 3), np.uint8), np.arange(4))
    spec = tiny_spec(size=None)
    expected = split.images.transpose(0, 3, 1, 2) / 127.5 - 1  # 4 x 3 x 8 x 6
    for batches in (training_batches(split, spec, PLAIN), evaluation_batches(split, spec, 4)):
        images, labels = taken(batches, 1)
        np.testing.assert_allclose(images, expected[labels], atol=1e-6)


@pytest.mark.usefixtures("channels_first")
def test_channels_first_with_reversed_channels():
    spec = variant_spec("paper")
    split = Split(np.full((2, 28, 28, 3), (10, 20, 30), np.uint8), np.arange(2))
    images, _ = taken(evaluation_batches(split, spec, 2), 1)
    assert images.shape == (2, 3, 224, 224)
    np.testing.assert_allclose(images[1, :, 9, 200], (30 - 104, 20 - 117, 10 - 123), atol=1e-4)


def test_sample_pixels_are_raw_in_the_size_of_the_network():
    pixels = sample_pixels(numbered(3), tiny_spec(size=16), 3)
    assert pixels.shape == (3, 16, 16, 3)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[2], 2)


METHODS = {
    "bilinear": {},
    "nearest": {"method": "nearest"},
    "area": {"method": "area"},
    "cubic": {"method": "bicubic"},
}


@pytest.mark.parametrize("size", [(5, 31), (28, 11), (40, 40), (20, 24)])
@pytest.mark.parametrize("method", METHODS)
def test_resizing_equals_tensorflows(method, size):
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), np.uint8)
    expected = tf.image.resize(images, size, **METHODS[method])
    # TensorFlow takes the weights of "bicubic" from a table of 1,024 positions.
    tolerance = 0.25 if method == "cubic" else 1e-3
    np.testing.assert_allclose(resize(images, size, method), expected, atol=tolerance)


@pytest.mark.parametrize("mirrored", [False, True])
def test_crops_in_memory_equal_those_of_files(tmp_path, mirrored):
    """The same windows, interpolations and mirrors as TensorFlow's, from the same PNGs."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 20, 24, 3), np.uint8)
    for number, image in enumerate(pixels):
        for part in ("train", "test"):
            path = tmp_path / part / "ab"[number // 4] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    files = open_data(f"dir:{tmp_path}").train
    memory = Split(pixels, files.labels)
    recipe = Recipe(name="r", epochs=1, batch_size=8, flip=mirrored, shift=0, crop="paper")
    spec = tiny_spec(size=16)
    images, labels = taken(training_batches(memory, spec, recipe), 4)
    expected, right = taken(training_batches(files, spec, recipe), 4)
    np.testing.assert_array_equal(labels, right)
    np.testing.assert_allclose(images, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["memory", "png", "jpg"])
def test_a_random_crop_is_that_part_of_the_image(tmp_path, monkeypatch, kind):
    """Rows 6 to 54 and columns 16 to 64 of 60 x 80, as worked out in test_crops.py."""
    rows, columns = np.mgrid[:60, :80]
    image = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    for part in ("train", "test"):
        for label in "ab":
            (tmp_path / part / label).mkdir(parents=True)
            suffix = "png" if kind == "memory" else kind
            path = tmp_path / part / label / f"image.{suffix}"
            Image.fromarray(image).save(path, quality=100, subsampling=0)
    # The first size that is drawn, the top and left, "nearest", and no mirror.
    numbers = [0.42 / 0.92, *[0] * 9, 0.5, *[0] * 9, 0.5, 0.5, 0.3]
    drawn = {Purpose.CROP: numbers, Purpose.FLIP: [0.9]}
    monkeypatch.setattr(
        Draws, "uniform", lambda self, purpose, columns: np.array([drawn[purpose]] * 2, np.float32)
    )
    split = open_data(f"dir:{tmp_path}").train
    if kind == "memory":
        split = Split(np.stack([image] * 2), np.arange(2))
    spec = replace(tiny_spec(), input_shape=(49, 49, 3))
    recipe = Recipe(name="r", epochs=1, batch_size=2, shift=0, crop="paper")
    images, _ = taken(training_batches(split, spec, recipe), 1)
    pixels = (images[0] + 1) * 127.5
    tolerance = 4 if kind == "jpg" else 1e-3
    np.testing.assert_allclose(pixels, image[6:55, 16:65], atol=tolerance)


def test_nothing_of_tensorflow_is_imported_for_images_in_memory():
    script = """
import sys
import numpy as np
from conftest import tiny_spec
from keras_inception.data.sample import load_sample
from keras_inception.data.stream import evaluation_batches, training_batches
from keras_inception.spec.recipe import Recipe
recipe = Recipe(name="r", epochs=1, crop="paper", photometric=True, mixup=0.2)
next(training_batches(load_sample().train, tiny_spec(channels=1, classes=10), recipe))
next(evaluation_batches(load_sample().test, tiny_spec(channels=1, classes=10), 8))
assert "tensorflow" not in sys.modules
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=ENVIRONMENT | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
