"""Decoding inside the graph against Pillow, an independent decoder."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_inception.images.graph_decode import decode_images

ORIENTATION = 0x0112


def picture(width: int = 90, height: int = 61) -> Image.Image:
    """Smooth colours without symmetry."""
    seeds = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(seeds).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "a maker, so that the orientation is not the first entry"
    exif[ORIENTATION] = value
    return encoded(picture(), "JPEG", exif=exif)


def by_pillow(contents: bytes, height: int, width: int, channels: int) -> np.ndarray:
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
    image = upright.convert("RGB" if channels == 3 else "L")
    fitted = ImageOps.fit(image, (width, height), method=Image.Resampling.BILINEAR)
    return np.asarray(fitted, np.float32).reshape(height, width, channels)


FILES = {
    "jpeg": encoded(picture(), "JPEG"),
    "progressive jpeg": encoded(picture(), "JPEG", progressive=True),
    "grey jpeg": encoded(picture().convert("L"), "JPEG"),
    "cmyk jpeg": encoded(picture().convert("CMYK"), "JPEG"),
    "png": encoded(picture(), "PNG"),
    "png with alpha": encoded(picture().convert("RGBA"), "PNG"),
    "palette png": encoded(picture().quantize(16), "PNG"),
    "gif": encoded(picture(), "GIF"),
    "animated gif": encoded(
        picture(), "GIF", save_all=True, append_images=[ImageOps.invert(picture())]
    ),
    "bmp": encoded(picture(), "BMP"),
    **{f"orientation {value}": with_orientation(value) for value in range(1, 9)},
}


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (24, 40, 3), (100, 30, 1)])
def test_pixels_are_those_of_pillow(height: int, width: int, channels: int) -> None:
    pixels, valid = decode_images(
        tf.constant([*FILES.values()]), height=height, width=width, channels=channels
    )

    assert valid.numpy().all()
    for name, received, contents in zip(FILES, pixels.numpy(), FILES.values(), strict=True):
        expected = by_pillow(contents, height, width, channels)
        # One level: Pillow rounds between its horizontal and vertical passes.
        np.testing.assert_allclose(received, expected, atol=1, err_msg=name)


def test_images_of_the_network_s_size_are_exact() -> None:
    contents = encoded(picture(32, 32), "PNG")

    pixels, _ = decode_images(tf.constant([contents]), height=32, width=32, channels=3)

    np.testing.assert_array_equal(pixels[0], np.asarray(picture(32, 32)))


def test_an_undecodable_image_is_marked_and_does_not_fail_the_batch() -> None:
    whole = encoded(picture(32, 32), "PNG")
    files = [b"", whole, b"no image", FILES["jpeg"][:700], whole[:-40], whole]

    pixels, valid = decode_images(tf.constant(files), height=32, width=32, channels=3)

    assert valid.numpy().tolist() == [False, True, False, False, False, True]
    np.testing.assert_array_equal(pixels[1], pixels[5])
    assert pixels[1].numpy().any()
    assert not pixels.numpy()[[0, 2, 3, 4]].any()


@pytest.mark.parametrize("files", [[], [b"no image"]])
def test_batches_without_any_image(files: list[bytes]) -> None:
    encoded_files = tf.constant(files, tf.string)

    pixels, valid = decode_images(encoded_files, height=8, width=8, channels=3)

    assert pixels.shape == (len(files), 8, 8, 3)
    assert valid.numpy().tolist() == [False] * len(files)


def test_a_damaged_exif_block_leaves_the_image_as_it_is() -> None:
    contents = with_orientation(6)
    start = contents.index(b"Exif\0\0") + 6
    # The offset of the directory is far beyond the end of the file.
    damaged = contents[: start + 4] + b"\xff\xff\xff\x7f" + contents[start + 8 :]

    pixels, valid = decode_images(tf.constant([damaged]), height=32, width=32, channels=3)

    assert valid.numpy().all()
    np.testing.assert_allclose(pixels[0], by_pillow(FILES["jpeg"], 32, 32, 3), atol=1)
