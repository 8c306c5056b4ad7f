"""Pixel conventions against keras.applications and sums on paper; image files of every kind."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from keras_inception import model_preprocessing, preprocess_input
from keras_inception.images.conventions import CONVENTIONS
from keras_inception.images.decode import read_image
from keras_inception.network.build import build_network

PIXEL = np.array([[[10, 20, 200]]], "uint8")  # red, green, blue
# Worked out by hand: x / 127.5 - 1; BGR minus (104, 117, 123);
# (x / 255 - mean) / deviation with ImageNet's (.485, .456, .406) and (.229, .224, .225); x - 117.
BY_HAND = {
    "tf": [-0.921569, -0.843137, 0.568627],
    "caffe": [96.0, -97.0, -113.0],
    "torch": [-1.946656, -1.685574, 1.681394],
    "inception5h": [-107.0, -97.0, 83.0],
    "raw": [10.0, 20.0, 200.0],
}


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")


# --- conventions --------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", BY_HAND)
def test_one_pixel_by_hand(convention):
    actual = preprocess_input(PIXEL, convention=convention)
    assert_allclose(actual, [[BY_HAND[convention]]], rtol=1e-5)


def test_every_convention_is_tested():
    assert set(CONVENTIONS) == set(BY_HAND)


def test_there_is_no_default_that_would_be_wrong_for_another_network():
    with pytest.raises(ValueError, match=r"Expected `model`.*'caffe'.*Received: neither"):
        preprocess_input(PIXEL)
    network = build_network(tiny_spec())
    with pytest.raises(ValueError, match="Received: both"):
        preprocess_input(PIXEL, model=network, convention="tf")


@pytest.mark.parametrize("convention", sorted(BY_HAND.keys() - {"raw"}))
def test_a_models_own_convention(convention):
    network = build_network(replace(tiny_spec(), pixels=convention))
    actual = preprocess_input(PIXEL, model=network)
    assert_allclose(actual, [[BY_HAND[convention]]], rtol=1e-5)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("convention", ["tf", "torch"])
def test_the_conventions_keras_has_too(convention, data_format):
    x = pixels(2, 3, 4, 3) if data_format == "channels_last" else pixels(2, 3, 4, 5)
    expected = keras.applications.imagenet_utils.preprocess_input(
        x.astype("float32"), data_format, mode=convention
    )
    actual = preprocess_input(x, data_format, convention=convention)
    assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("convention", BY_HAND)
def test_channels_first_is_channels_last_transposed(convention):
    x = pixels(2, 5, 6, 3)
    last = preprocess_input(x, "channels_last", convention=convention)
    first = preprocess_input(np.moveaxis(x, -1, 1), "channels_first", convention=convention)
    assert_array_equal(np.moveaxis(first, 1, -1), last)


def test_the_global_data_format_is_the_default(channels_first):
    x = np.broadcast_to(PIXEL.reshape(3, 1, 1), (3, 2, 2))
    assert_array_equal(preprocess_input(x, convention="caffe")[:, 0, 0], BY_HAND["caffe"])


@pytest.mark.parametrize("convention", BY_HAND)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
def test_numpy_in_numpy_out_and_the_input_stays(convention, dtype):
    x = pixels(2, 5, 6, 3).astype(dtype)
    before = x.copy()
    actual = preprocess_input(x, convention=convention)
    assert type(actual) is np.ndarray
    assert actual.dtype == "float32"
    assert not np.shares_memory(actual, x)
    assert_array_equal(x, before)


@pytest.mark.parametrize("convention", BY_HAND)
def test_tensors_and_symbolic_tensors(convention):
    x = pixels(2, 5, 6, 3)
    tensor = preprocess_input(keras.ops.convert_to_tensor(x), convention=convention)
    assert keras.ops.is_tensor(tensor)
    assert_array_equal(tensor, preprocess_input(x, convention=convention))
    inputs = keras.Input((5, 6, 3), dtype="uint8")
    model = keras.Model(inputs, preprocess_input(inputs, convention=convention))
    assert_allclose(model(x), tensor, rtol=1e-6, atol=1e-6)


def test_grey_where_all_channels_are_alike():
    grey = np.array([[[0], [51], [255]]], "uint8")
    assert_allclose(preprocess_input(grey, convention="tf"), [[[-1], [-0.6], [1]]], rtol=1e-6)
    assert_array_equal(preprocess_input(grey, convention="inception5h"), [[[-117], [-66], [138]]])


@pytest.mark.parametrize("convention", ["caffe", "torch"])
def test_grey_where_the_channels_differ(convention):
    with pytest.raises(ValueError, match=rf"3 channels.*{convention}.*shape=\(2, 2, 1\)"):
        preprocess_input(np.zeros((2, 2, 1)), "channels_last", convention=convention)


def test_wrong_names():
    with pytest.raises(ValueError, match=r"'caffe', .*'tf'.*Received: .*'imagenet'"):
        preprocess_input(PIXEL, convention="imagenet")
    with pytest.raises(ValueError, match=r"\"channels_last\".*Received: data_format='NHWC'"):
        preprocess_input(PIXEL, "NHWC", convention="tf")


# --- the convention of a model ------------------------------------------------------------------


@pytest.mark.parametrize("convention", sorted(BY_HAND.keys() - {"raw"}))
def test_a_saved_model_knows_its_convention(convention, tmp_path):
    model = build_network(replace(tiny_spec(), pixels=convention))
    assert model_preprocessing(model) == convention
    model.save(tmp_path / "model.keras")
    assert model_preprocessing(keras.models.load_model(tmp_path / "model.keras")) == convention


def test_a_model_that_does_not_name_its_convention():
    inputs = keras.Input((4, 4, 3), name="image")
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    with pytest.raises(ValueError, match=r"Expected an input named pixels_.*\['image'\]"):
        model_preprocessing(model)


# --- image files --------------------------------------------------------------------------------


def saved(tmp_path, array, mode=None, suffix=".png", **options):
    path = tmp_path / f"image{suffix}"
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_an_image_of_the_wanted_size_comes_unchanged(tmp_path):
    x = pixels(5, 7, 3)
    read = read_image(saved(tmp_path, x), height=5, width=7, channels=3)
    assert read.dtype == "uint8"
    assert_array_equal(read, x)


@pytest.mark.parametrize(
    ("shape", "height", "width", "rows", "columns"),
    [
        ((4, 8), 4, 4, (0, 4), (2, 6)),  # landscape
        ((8, 4), 4, 4, (2, 6), (0, 4)),  # portrait
        ((8, 8), 8, 4, (0, 8), (2, 6)),  # square image, narrow network
        ((8, 8), 2, 8, (3, 5), (0, 8)),  # square image, flat network
    ],
)
def test_the_centre_is_cropped(tmp_path, shape, height, width, rows, columns):
    x = pixels(*shape, 3)
    read = read_image(saved(tmp_path, x), height=height, width=width, channels=3)
    assert_array_equal(read, x[slice(*rows), slice(*columns)])


def test_the_crop_is_resized(tmp_path):
    # Columns 0 0 | 40 40 120 120 | 0 0, the middle shrunk to half. The triangle filter over two
    # pixels and their neighbours weighs 1 3 3 1, and nothing outside of the crop counts:
    # (3 * 40 + 3 * 40 + 120) / 7 = 51.4, (40 + 3 * 120 + 3 * 120) / 7 = 108.6.
    x = np.zeros((4, 8, 3), "uint8")
    x[:, 2:4], x[:, 4:6] = 40, 120
    read = read_image(saved(tmp_path, x), height=2, width=2, channels=3)
    assert read[..., 0].tolist() == [[51, 109], [51, 109]]


# How to turn the stored pixels upright, by the EXIF specification's table of orientations.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),  # clockwise
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path, orientation):
    x = pixels(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, x, exif=exif)
    expected = UPRIGHT[orientation](x)
    read = read_image(path, height=expected.shape[0], width=expected.shape[1], channels=3)
    assert_array_equal(read, expected)


def test_transparency_is_dropped(tmp_path):
    x = pixels(4, 4, 4)
    assert_array_equal(read_image(saved(tmp_path, x), height=4, width=4, channels=3), x[..., :3])


@pytest.mark.parametrize("options", [{}, {"transparency": 0}, {"transparency": b"\x00\x80"}])
def test_a_palette_becomes_its_colours(tmp_path, options):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.putdata([0, 1])
    image.save(tmp_path / "image.png", **options)
    read = read_image(tmp_path / "image.png", height=1, width=2, channels=3)
    assert read.tolist() == [[[200, 100, 50], [1, 2, 3]]]


def test_grey_is_repeated_for_a_colour_network(tmp_path):
    x = pixels(4, 5)
    read = read_image(saved(tmp_path, x), height=4, width=5, channels=3)
    assert_array_equal(read, np.stack([x, x, x], axis=-1))


def test_colour_becomes_luma_for_a_grey_network(tmp_path):
    # ITU-R 601: .299 red + .587 green + .114 blue of 255.
    x = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], "uint8")
    read = read_image(saved(tmp_path, x), height=1, width=4, channels=1)
    assert read[..., 0].tolist() == [[76, 150, 29, 9]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_upper_byte(tmp_path, suffix, channels):
    x = np.array([[0x0000, 0x00FF, 0x1234, 0x8000, 0xFFFF]], "uint16")
    read = read_image(saved(tmp_path, x, suffix=suffix), height=1, width=5, channels=channels)
    assert read[..., 0].tolist() == read[..., -1].tolist() == [[0x00, 0x00, 0x12, 0x80, 0xFF]]


def test_black_and_white(tmp_path):
    x = np.array([[True, False]])
    assert read_image(saved(tmp_path, x), height=1, width=2, channels=1).tolist() == [[[255], [0]]]


def test_cmyk(tmp_path):
    path = tmp_path / "image.tif"
    image = Image.new("CMYK", (2, 1))
    image.putdata([(255, 0, 0, 0), (0, 0, 0, 255)])  # cyan, black
    image.save(path)
    read = read_image(path, height=1, width=2, channels=3)
    assert read.tolist() == [[[0, 255, 255], [0, 0, 0]]]


def test_the_first_frame_of_an_animation(tmp_path):
    red, blue = (Image.new("RGB", (3, 2), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "image.gif", save_all=True, append_images=[blue])
    read = read_image(tmp_path / "image.gif", height=2, width=3, channels=3)
    assert_array_equal(read, np.broadcast_to([255, 0, 0], (2, 3, 3)))


def test_what_is_no_image(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    cut = saved(tmp_path, pixels(40, 40, 3))
    cut.write_bytes(cut.read_bytes()[:-2000])
    for path in (text, cut, tmp_path / "missing.png", tmp_path):
        with pytest.raises(ValueError, match=rf"Expected an image\. Received: '{path}'"):
            read_image(path, height=4, width=4, channels=3)


def test_a_decompression_bomb(tmp_path, monkeypatch):
    path = saved(tmp_path, pixels(10, 10, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # Pillow refuses twice as many
    with pytest.raises(ValueError, match=r"Expected an image\. Received: .*image\.png"):
        read_image(path, height=4, width=4, channels=3)


def test_a_network_of_two_channels(tmp_path):
    with pytest.raises(ValueError, match=r"1 or 3 channels\. Received: channels=2"):
        read_image(saved(tmp_path, pixels(4, 4, 3)), height=4, width=4, channels=2)
