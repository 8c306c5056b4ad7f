"""Image files of all kinds to pixels, against Pillow, arrays in memory and hand computation."""

import io
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from keras_inception.images.decode import (
    FORMATS,
    ImageError,
    ImageInfo,
    converted,
    opened,
    probe,
    read_image,
)
from keras_inception.images.limits import PixelBudget, max_pixels


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def saved(tmp_path, array, mode=None, suffix=".png", **options):
    path = tmp_path / f"image{suffix}"
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_an_image_of_the_requested_size_is_unchanged(tmp_path):
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


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Blend each channel with 255, weighted by alpha, to the nearest level."""
    colour, alpha = rgba[..., :3].astype(int), rgba[..., 3:].astype(int)
    return np.floor((colour * alpha + 255 * (255 - alpha)) / 255 + 0.5).astype("uint8")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_transparency_is_composited_on_white(tmp_path, suffix):
    x = pixels(32, 32, 4)
    x[:, :4, 3], x[:, 4:8, 3] = 0, 255
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    read = read_image(saved(tmp_path, x, suffix=suffix, **options), height=32, width=32, channels=3)
    assert_array_equal(read, on_white(x))
    assert (read[:, :4] == 255).all()


def test_grey_with_alpha_in_either_number_of_channels():
    x = pixels(16, 16, 2)
    contents = encoded(Image.fromarray(x, "LA"))
    expected = on_white(x[..., [0, 0, 0, 1]])
    assert_array_equal(read_image(contents, height=16, width=16, channels=3), expected)
    assert_array_equal(read_image(contents, height=16, width=16, channels=1), expected[..., :1])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[200, 100, 50], [1, 2, 3]]),
        ({"transparency": 0}, [[255, 255, 255], [1, 2, 3]]),
        # 1 * 128 / 255 + 127 = 127.5; 2 and 3 give slightly more.
        ({"transparency": b"\x00\x80"}, [[255, 255, 255], [128, 128, 129]]),
    ],
)
def test_a_palette_becomes_its_colours(options, expected):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.putdata([0, 1])
    assert read_image(encoded(image, **options), height=1, width=2, channels=3).tolist() == [
        expected
    ]


def png(colour_type: int, depth: int, row: bytes, transparent: bytes, width: int) -> bytes:
    """A PNG of one row with a tRNS chunk, built by the specification; Pillow writes few of them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in (*chunks, (b"IEND", b"")))


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (png(0, 1, b"\x40", b"\0\0", 2), [255, 255]),  # 0 is transparent, 1 is white
        (png(0, 1, b"\x40", b"\0\1", 2), [0, 255]),
        (png(0, 2, b"\x1b", b"\0\1", 4), [0, 255, 170, 255]),  # levels 0 1 2 3 are 85 apart
        (png(0, 4, b"\x3c", b"\0\3", 2), [255, 12 * 17]),
        (png(0, 8, b"\x03\x0c", b"\0\x0c", 2), [3, 255]),
        (png(0, 16, b"\x12\x34\x12\x35", b"\x12\x34", 2), [255, 0x12]),
        (png(2, 8, b"\1\2\3\7\7\7", b"\0\1\0\2\0\3", 2), [255, 7]),
        (png(2, 16, b"\1\0\2\0\3\0\7\0\7\0\7\0", b"\1\0\2\0\3\0", 2), [255, 7]),
    ],
)
def test_one_level_or_colour_of_a_png_may_be_transparent(contents, expected):
    read = read_image(contents, height=1, width=len(expected), channels=1)
    assert read[0, :, 0].tolist() == expected


def test_a_transparent_gif():
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.putdata([0, 1, 0])
    read = read_image(encoded(image, "GIF", transparency=0), height=1, width=3, channels=3)
    assert read.tolist() == [[[255] * 3, [200, 30, 30], [255] * 3]]


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
def test_16_bit_images_keep_their_high_byte(tmp_path, suffix, channels):
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


def test_files_that_are_not_images(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    cut = saved(tmp_path, pixels(40, 40, 3))
    cut.write_bytes(cut.read_bytes()[:-2000])
    for path in (text, cut, tmp_path / "missing.png", tmp_path):
        with pytest.raises(ValueError, match=rf"Expected an image\. Received: '{path}'"):
            read_image(path, height=4, width=4, channels=3)


def test_a_network_of_two_channels(tmp_path):
    with pytest.raises(ValueError, match=r"1 or 3 channels\. Received: channels=2"):
        read_image(saved(tmp_path, pixels(4, 4, 3)), height=4, width=4, channels=2)


# --- sources, formats and messages --------------------------------------------------------------


def test_paths_bytes_and_files_are_the_same_image(tmp_path):
    path = saved(tmp_path, pixels(8, 8, 3))
    sources = (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()))
    for source in sources:
        assert_array_equal(read_image(source, height=8, width=8, channels=3), pixels(8, 8, 3))


@pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA", "PCX", "PDF", "ICNS", "DDS"])
def test_unsupported_formats_are_not_opened(kind):
    assert kind not in FORMATS
    with pytest.raises(ValueError, match="cannot identify image file"):
        read_image(encoded(Image.new("RGB", (16, 16)), kind), height=4, width=4, channels=3)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind):
    # Smooth, because some of the formats are lossy.
    image = Image.fromarray(pixels(3, 4, 3)).resize((40, 30), Image.Resampling.BICUBIC)
    expected = np.asarray(Image.open(io.BytesIO(encoded(image, kind))).convert("RGB"))
    read = read_image(encoded(image, kind), height=30, width=40, channels=3)
    assert_array_equal(read, expected)
    assert np.abs(read.astype(int) - np.asarray(image)).mean() < 8


class Failing:
    """A file whose reads fail as in Pillow's plugins on damaged files."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def seek(self, position: int, whence: int = 0) -> int:
        return 0

    def tell(self) -> int:
        return 0

    def read(self, size: int = -1) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("decoding failed"),
        NotImplementedError("an unknown kind"),
        TypeError("a tag"),
        ZeroDivisionError("a size"),
        MemoryError(),
        RecursionError(),
        KeyError("x"),
        struct.error("unpack"),
        OSError(5, "Input/output error", "/secret/path"),
        SyntaxError("broken PNG file (chunk b'\\x00\\x01')"),
        ValueError("one\nand two <_io.BytesIO object at 0x7f>"),
    ],
)
def test_every_exception_of_pillow_becomes_a_one_line_error(error):
    with pytest.raises(ImageError) as caught:
        read_image(Failing(error), height=4, width=4, channels=3)
    message = str(caught.value)
    assert message.startswith("Expected an image. Received: a file in memory (")
    for never in ("\n", "b'", "BytesIO", "/secret", "()"):
        assert never not in message


@pytest.mark.parametrize("place", [6, 30, 60, 120])
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_images_or_errors(kind, place):
    contents = bytearray(encoded(Image.fromarray(pixels(32, 32, 3)), kind))
    for value in (0, 255, contents[place] ^ 0x55):
        contents[place] = value
        for source in (bytes(contents), bytes(contents[: len(contents) // 2])):
            try:
                message = f"shape {read_image(source, height=4, width=4, channels=3).shape}"
            except ImageError as error:
                message = str(error)
            assert "shape (4, 4, 3)" in message or f"Received: {len(source):,} bytes (" in message
            assert "BytesIO" not in message


def test_a_damaged_exif_block_leaves_the_image_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = encoded(Image.fromarray(pixels(8, 16, 3)), "JPEG", exif=exif)
    start = contents.index(b"Exif\0\0") + 6
    damaged = contents[:start] + b"XXXX" + contents[start + 4 :]
    with opened(contents, 3) as turned, opened(damaged, 3) as unturned:
        assert (turned.size, unturned.size) == ((8, 16), (16, 8))


# --- probing ------------------------------------------------------------------------------------


def test_probe_returns_what_a_scan_needs():
    exif = Image.Exif()
    exif[0x0112] = 6
    colour, grey = Image.fromarray(pixels(20, 30, 3)), Image.fromarray(pixels(20, 30))
    faint = Image.fromarray(pixels(20, 30, 4))
    solid = colour.convert("RGBA")
    for contents, expected in (
        (encoded(colour, "JPEG"), ImageInfo(20, 30, 3, 1, True, False)),
        (encoded(colour, "JPEG", exif=exif), ImageInfo(30, 20, 3, 6, True, False)),
        (encoded(grey, "JPEG"), ImageInfo(20, 30, 1, 1, True, False)),
        (encoded(colour.convert("CMYK"), "JPEG"), ImageInfo(20, 30, 3, 1, False, False)),
        (encoded(colour, exif=exif), ImageInfo(30, 20, 3, 1, False, False)),
        (encoded(faint), ImageInfo(20, 30, 3, 1, False, True)),
        (encoded(solid), ImageInfo(20, 30, 3, 1, False, False)),
    ):
        assert probe(contents) == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (7, 5), (1, 1000), (8, 1)])
@pytest.mark.parametrize("kind", FORMATS)
def test_probe_accepts_the_smallest_images(kind, size):
    found = probe(encoded(Image.fromarray(pixels(*size)), kind))
    assert (found.height, found.width) == size


@pytest.mark.parametrize("channels", [1, 3])
def test_cie_lab(channels):
    for lightness in (0, 255):  # black and white
        contents = encoded(Image.new("LAB", (5, 5), (lightness, 128, 128)), "TIFF")
        found = read_image(contents, height=2, width=2, channels=channels)
        np.testing.assert_allclose(found, lightness, atol=1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_probe_reads_to_the_end(kind):
    contents = encoded(Image.fromarray(pixels(200, 300, 3)), kind)
    with pytest.raises(ImageError, match="truncated"):
        probe(contents[:-2000])


def test_a_pillow_image_and_its_file_give_the_same_pixels():
    exif = Image.Exif()
    exif[0x0112] = 8
    contents = encoded(Image.fromarray(pixels(10, 20, 4)), exif=exif)
    with opened(contents, 3) as file, Image.open(io.BytesIO(contents)) as image:
        assert_array_equal(np.asarray(converted(image, 3)), np.asarray(file))


# --- bounds -------------------------------------------------------------------------------------


def test_the_size_is_read_from_the_header_before_anything_is_decoded(monkeypatch):
    contents = encoded(Image.new("L", (10_000, 8_001)))
    assert len(contents) < 100_000
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    reason = "10000 x 8001 pixels, more than the limit of 80 megapixels; KERAS_INCEPTION_MAX"
    # Warnings are errors, so Pillow's bomb warning must not be raised.
    for read in (probe, lambda file: read_image(file, height=4, width=4, channels=1)):
        with pytest.raises(ImageError, match=reason):
            read(contents)


def test_an_image_that_pillow_refuses_for_its_size_names_the_limit_too():
    contents = bytearray(encoded(Image.new("L", (10, 10))))
    contents[16:24] = struct.pack(">II", 20_000, 10_000)  # above twice Pillow's own limit
    contents[29:33] = struct.pack(">I", zlib.crc32(contents[12:29]))
    reason = "more pixels than the limit of 80 megapixels; KERAS_INCEPTION_MAX_MEGAPIXELS sets it"
    with pytest.raises(ImageError, match=reason):
        read_image(bytes(contents), height=4, width=4, channels=1)


def test_the_limit_can_be_set(monkeypatch):
    contents = encoded(Image.fromarray(pixels(10, 20)))
    with pytest.raises(ImageError, match=r"20 x 10 pixels, more than the limit of 0\.000199 mega"):
        read_image(contents, height=4, width=4, channels=1, limit=199)
    assert read_image(contents, height=4, width=4, channels=1, limit=200).shape == (4, 4, 1)
    monkeypatch.setenv("KERAS_INCEPTION_MAX_MEGAPIXELS", "0.0001")
    assert max_pixels() == 100
    with pytest.raises(ImageError, match=r"limit of 0\.0001 megapixels"):
        probe(contents)


def test_jpeg_2000_has_half_the_limit():
    contents = encoded(Image.fromarray(pixels(10, 20)), "JPEG2000")
    assert read_image(contents, height=4, width=4, channels=1, limit=400).shape == (4, 4, 1)
    with pytest.raises(ImageError, match=r"limit of a JPEG 2000 file of 0\.000199 megapixels"):
        read_image(contents, height=4, width=4, channels=1, limit=399)


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
def test_invalid_limits_are_refused(monkeypatch, text):
    monkeypatch.setenv("KERAS_INCEPTION_MAX_MEGAPIXELS", text)
    with pytest.raises(ValueError, match=f"positive number of megapixels. Received: '{text}'"):
        max_pixels()


def test_a_limit_above_pillows_own(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # Pillow itself refuses twice as many
    contents = encoded(Image.fromarray(pixels(10, 10)))
    assert read_image(contents, height=10, width=10, channels=1).shape == (10, 10, 1)


def test_threads_share_the_pixels_in_flight():
    budget, inside, most = PixelBudget(100), [], []
    started = threading.Barrier(6)

    def decode(size: int) -> None:
        started.wait()
        for _ in range(50):
            with budget.spend(size):
                inside.append(size)
                most.append(sum(inside))
                inside.remove(size)

    sizes = (10, 30, 40, 60, 99, 250)
    threads = [threading.Thread(target=decode, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 300
    assert {total for total in most if total > 100} == {
        250
    }  # an image above the limit is decoded alone


_RESIDENT_AFTER_DECODING = """
import sys
from concurrent.futures import ThreadPoolExecutor
from keras_inception.images.decode import read_image

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def read(path):
    return read_image(path, height=8, width=8, channels=3)

read(sys.argv[1])
before = resident()
with ThreadPoolExecutor(4) as pool:
    list(pool.map(read, sys.argv[2:] * 2))
    print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the resident memory is read from /proc")
def test_memory_of_decoded_images_returns_to_the_system(tmp_path):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGBA", (8, 8)).save(small)
    Image.new("RGBA", (5000, 5000), (200, 30, 30, 100)).save(large, compress_level=1)
    command = [sys.executable, "-c", _RESIDENT_AFTER_DECODING, small, *[large] * 3]
    kept = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(kept) < 50_000_000  # one image has 100 MB


def test_an_image_waits_for_the_pixels_of_another():
    budget, done = PixelBudget(100), threading.Event()

    def decode() -> None:
        with budget.spend(60):
            done.set()

    thread = threading.Thread(target=decode)
    with budget.spend(50):
        thread.start()
        assert not done.wait(0.2)
    thread.join()
    assert done.is_set()
