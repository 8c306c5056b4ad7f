"""The two decoders, Pillow and TensorFlow's graph, on the same files: one level apart, or marked.

The files are noise, where each misplaced or wrongly filtered pixel shows, and real photographs.
"""

import functools
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import sklearn
import tensorflow as tf
from PIL import Image, ImageOps, PngImagePlugin

from keras_inception.images import graph_decode
from keras_inception.images.decode import read_image
from keras_inception.images.graph_decode import decode_images

ORIENTATION = 0x0112
# Height and width: even and odd, tall and wide, smaller and larger than the results.
SIZES = ((100, 150), (127, 64), (225, 300), (61, 30), (32, 32), (33, 200), (501, 77), (1, 40))
RESULTS = ((28, 28, 3), (224, 224, 3), (32, 56, 1))


def noise(height: int, width: int, channels: int = 3) -> Image.Image:
    random = np.random.default_rng(height * 1000 + width)
    pixels = random.integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tagged(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "a maker, so that the orientation is not the first entry"
    exif[ORIENTATION] = value
    return exif


def by_pillow(contents: bytes, height: int, width: int, channels: int) -> np.ndarray:
    """Pillow alone: upright, on white, the centre of the same shape, resized."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
    if upright.mode.startswith("I"):
        upright = Image.fromarray((np.asarray(upright, np.int64) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright.convert("RGBA"))
    image = upright.convert("RGB" if channels == 3 else "L")
    rows, columns = image.height, image.width
    if rows * width > columns * height:
        rows = max(1, int(columns * height / width + 0.5))
    else:
        columns = max(1, int(rows * width / height + 0.5))
    top, left = (image.height - rows) // 2, (image.width - columns) // 2
    part = image.crop((left, top, left + columns, top + rows))
    fitted = part.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(fitted, np.float32).reshape(height, width, channels)


@functools.cache
def graph(height: int, width: int, channels: int) -> Any:
    return tf.function(
        lambda files: decode_images(files, height=height, width=width, channels=channels),
        input_signature=[tf.TensorSpec((None,), tf.string)],
    )


def by_graph(files: list[bytes], height: int, width: int, channels: int) -> tuple:
    pixels, valid = graph(height, width, channels)(tf.constant(files, tf.string))
    return pixels.numpy(), valid.numpy().tolist()


def kinds(height: int, width: int) -> dict[str, bytes]:
    """A picture of noise in every kind of file that both decoders take."""
    rgb, rgba, grey = (noise(height, width, channels) for channels in (3, 4, 1))
    inverse = ImageOps.invert(rgb)
    palette = rgb.quantize(200)
    sixteen = Image.fromarray(np.asarray(grey, np.uint16) * 256 + np.asarray(grey)[::-1])
    files = {
        **{
            f"jpeg, chroma {factors}": encoded(rgb, "JPEG", quality=90, subsampling=factors)
            for factors in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")
        },
        "progressive jpeg": encoded(rgb, "JPEG", progressive=True, quality=97),
        "extended jpeg": encoded(rgb, "JPEG").replace(b"\xff\xc0", b"\xff\xc1", 1),
        "grey jpeg": encoded(grey, "JPEG"),
        "png": encoded(rgb, "PNG"),
        "grey png": encoded(grey, "PNG"),
        "black and white png": encoded(grey.convert("1"), "PNG"),
        "16-bit png": encoded(sixteen, "PNG"),
        "png with alpha": encoded(rgba, "PNG"),
        "grey png with alpha": encoded(rgba.convert("LA"), "PNG"),
        "png with a transparent colour": encoded(rgb, "PNG", transparency=rgb.getpixel((0, 0))),
        "png with a transparent level": encoded(grey, "PNG", transparency=grey.getpixel((0, 0))),
        "palette png": encoded(palette, "PNG"),
        "palette png, one transparent": encoded(palette, "PNG", transparency=3),
        "palette png with alphas": encoded(palette, "PNG", transparency=bytes(range(200))),
        **{
            f"palette png, {bits} bits": encoded(rgb.quantize(2**bits), "PNG", bits=bits)
            for bits in (1, 2, 4)
        },
        "apng": encoded(rgb, "PNG", save_all=True, append_images=[inverse]),
        "gif": encoded(rgb, "GIF"),
        "grey gif": encoded(grey, "GIF"),
        "gif of rows in order": encoded(rgb, "GIF", interlace=0),
        "transparent gif": encoded(rgb.quantize(100), "GIF", transparency=7),
        "animated gif": encoded(rgb, "GIF", save_all=True, append_images=[inverse]),
        "bmp": encoded(rgb, "BMP"),
        "bmp of 32 bits": encoded(rgba, "BMP"),
        "webp": encoded(rgb, "WEBP", quality=80),
        "lossless webp": encoded(rgb, "WEBP", lossless=True),
        "webp with alpha": encoded(rgba, "WEBP", quality=80),
        "lossless webp with alpha": encoded(rgba, "WEBP", lossless=True, exact=True),
        "webp with a profile": encoded(rgba, "WEBP", lossless=True, icc_profile=b"profile"),
    }
    for value in range(1, 10):
        exif = tagged(value)
        files[f"jpeg turned {value}"] = encoded(rgb, "JPEG", exif=exif)
        files[f"png turned {value}"] = encoded(rgba, "PNG", exif=exif)
        files[f"webp turned {value}"] = encoded(rgba, "WEBP", lossless=True, exif=exif)
    return files


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {
        f"{name}, {height} x {width}": contents
        for height, width in SIZES
        for name, contents in kinds(height, width).items()
    }


def photographs() -> dict[str, bytes]:
    own = Path(__file__).parents[1] / "keras_inception" / "assets" / "photos"
    paths = [
        *sorted(own.glob("*.jpg")),
        *sorted(Path(sklearn.__path__[0], "datasets", "images").glob("*.jpg")),
        Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"),
    ]
    files = {path.name: path.read_bytes() for path in paths}
    assert len(files) == 6
    for name, contents in list(files.items()):
        image = Image.open(io.BytesIO(contents))
        wide = image.crop((0, 0, image.width, image.height // 3))
        tall = image.crop((1, 0, image.width // 3, image.height))
        files |= {
            f"{name} as {shape} {kind}": encoded(part, kind)
            for shape, part in (("wide", wide), ("tall", tall))
            for kind in ("JPEG", "PNG", "WEBP", "GIF")
        }
    return files


def assert_agreement(files: dict[str, bytes], height: int, width: int, channels: int) -> None:
    pixels, valid = by_graph([*files.values()], height, width, channels)
    assert [name for name, decoded in zip(files, valid, strict=True) if not decoded] == []
    for received, (name, contents) in zip(pixels, files.items(), strict=True):
        expected = by_pillow(contents, height, width, channels)
        np.testing.assert_allclose(received, expected, atol=1, err_msg=name)


@pytest.mark.parametrize(("height", "width", "channels"), RESULTS)
def test_noise_of_every_kind_and_shape(files, height, width, channels):
    assert len(files) == 61 * len(SIZES)
    assert_agreement(files, height, width, channels)


@pytest.mark.parametrize(("height", "width", "channels"), [(224, 224, 3), (64, 48, 1)])
def test_photographs(height, width, channels):
    assert_agreement(photographs(), height, width, channels)


@pytest.mark.parametrize(("height", "width"), [(8, 32), (32, 8)])
def test_narrow_images_for_wide_and_tall_networks(height, width):
    sizes = ((40, 1), (1, 40), (1, 1), (3, 2))
    files = {f"{rows} x {columns}": encoded(noise(rows, columns), "PNG") for rows, columns in sizes}
    assert_agreement(files, height, width, 3)


def test_images_of_the_network_s_size_are_exact():
    pixels, _ = by_graph([encoded(noise(32, 32), "PNG")], 32, 32, 3)
    np.testing.assert_array_equal(pixels[0], np.asarray(noise(32, 32)))


# --- what the graph does not decode ---------------------------------------------------------------


def canvas(*frames: Image.Image, **options: object) -> bytes:
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], **options)


def partial_gif() -> bytes:
    """The canvas is a column wider than the only frame."""
    contents = bytearray(encoded(noise(20, 30), "GIF"))
    contents[6] += 1
    return bytes(contents)


def with_xmp(kind: str, *, compressed: bool = False) -> bytes:
    text = "<x:xmpmeta><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
    if kind != "PNG":
        return encoded(noise(20, 30), kind, xmp=text.encode())
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", text, zip=compressed)
    return encoded(noise(20, 30), "PNG", pnginfo=chunks)


def as_imagemagick_writes_exif() -> bytes:
    block = tagged(6).tobytes()
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    return encoded(noise(20, 30), "PNG", pnginfo=chunks)


def exif_segment(block: bytes) -> bytes:
    segment = b"Exif\0\0" + block
    return b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment


def directory(*entries: bytes, order: str = "<", gap: int = 0) -> bytes:
    """A TIFF block whose directory begins `gap` bytes after its header."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    start = struct.pack(f"{order}I", 8 + gap) + bytes(gap)
    return head + start + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


def entry(tag: int, kind: int, count: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HHI", tag, kind, count) + value


def turned(kind: int, order: str = "<", value: int = 6, count: int = 1) -> bytes:
    code = {3: "H2x", 4: "I", 8: "h2x", 9: "i", 1: "B3x"}[kind]
    return entry(ORIENTATION, kind, count, struct.pack(order + code, value), order)


SHORT = directory(turned(3))


def before_the_markers(inserted: bytes) -> bytes:
    """A JPEG with bytes behind its first two."""
    contents = encoded(noise(40, 70), "JPEG")
    return contents[:2] + inserted + contents[2:]


def behind_the_frame(inserted: bytes) -> bytes:
    """A JPEG with bytes behind the segment that gives its size."""
    contents = encoded(noise(40, 70), "JPEG")
    end = contents.index(b"\xff\xc0") + 19
    return contents[:end] + inserted + contents[end:]


def webp_of_length(more: int) -> bytes:
    """A WebP that claims that many bytes more than it has, at most what 4 bytes can say."""
    contents = encoded(noise(20, 30), "WEBP", lossless=True)
    length = min(len(contents) - 8 + more, 2**32 - 1)
    return contents[:4] + struct.pack("<I", length) + contents[8:]


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png_of_orientations(*values: int) -> bytes:
    """A chunk of EXIF each, before the pixels."""
    contents = encoded(noise(20, 30), "PNG")
    blocks = (tagged(value).tobytes().removeprefix(b"Exif\0\0") for value in values)
    return contents[:33] + b"".join(chunk(b"eXIf", block) for block in blocks) + contents[33:]


def gif_of_two_controls() -> bytes:
    """The first names a transparent colour, the second does not."""
    contents = encoded(noise(20, 30).quantize(256), "GIF")
    image = contents.index(b"\x2c\0\0\0\0", 13 + 768)
    controls = b"\x21\xf9\4\1\0\0\3\0" + b"\x21\xf9\4\0\0\0\5\0"
    return contents[:image] + controls + contents[image:]


def gif(*, control: bytes = b"", shared: bool = True, own: bool = False) -> bytes:
    """A GIF of 20 x 30 with a control extension, a palette for all frames, one of the frame."""
    plain = encoded(noise(20, 30).quantize(256), "GIF")
    head, palette, rest = plain[:13], plain[13:781], plain[781:]
    image = rest.index(b"\x2c\0\0\0\0")
    flags = bytes([head[10] if shared else head[10] & 0x7F])
    head = head[:10] + flags + head[11:] + (palette[::-1] if own else palette) * shared
    frame = rest[image : image + 9] + (b"\x87" + palette if own else b"\0") + rest[image + 10 :]
    return head + (b"\x21\xf9\4" + control + b"\0") * bool(control) + frame


def png(
    colour: int, *, depth: int = 8, key: bytes = b"", palette: bytes = b"", late: bool = False
) -> bytes:
    """A PNG of 20 x 30 with a tRNS chunk for each part of `key` between bars."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    line = bytes(range(30 * channels * depth // 8 + 1))  # the first byte of a line is its filter
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line[1:] for _ in range(20))))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 20, depth, colour, 0, 0, 0))
    keys = b"".join(chunk(b"tRNS", part) for part in key.split(b"|"))
    parts = (palette and chunk(b"PLTE", palette), *((pixels, keys) if late else (keys, pixels)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(parts) + chunk(b"IEND", b"")


def bmp(rows: int, compression: int = 0, masks: bytes = b"", size: int = 40) -> bytes:
    """A BMP of 32 bits, 30 pixels wide; negative rows come from above.

    Args:
        size: the header's, as it says itself; what is above 40 bytes is 0.
    """
    pixels = np.random.default_rng(0).integers(0, 256, abs(rows) * 30 * 4, np.uint8).tobytes()
    header = struct.pack("<IiiHHI20x", size, 30, rows, 1, 32, compression) + masks
    header += bytes(size - 40)
    return (
        b"BM" + struct.pack("<I4xI", 14 + len(header + pixels), 14 + len(header)) + header + pixels
    )


def bmp_of_a_header_of_16_bytes() -> bytes:
    """Black, so that what stands for the compression is 0."""
    header = struct.pack("<IIIHH", 16, 30, 20, 1, 24)
    return b"BM" + struct.pack("<I4xI", 14 + 16 + 1840, 14 + 16) + header + bytes(1840)


def key_before_its_palette() -> bytes:
    contents = png(3, key=bytes(range(40)), palette=bytes(range(120)))
    palette, key, pixels = (contents.index(name) - 4 for name in (b"PLTE", b"tRNS", b"IDAT"))
    return contents[:palette] + contents[key:pixels] + contents[palette:key] + contents[pixels:]


# What names the transparent pixels stands where the specification forbids it, or names none.
KEYS = {
    "behind the pixels": png(0, key=b"\0\5", late=True),
    "before the palette": key_before_its_palette(),
    "twice": png(0, key=b"\0\5|\0\7"),
    "a level of 9 bits": png(0, key=b"\1\0"),
    "a level of 3 bytes": png(0, key=b"\0\5\0"),
    "a level of 5 bits": png(0, key=b"\0\x10", depth=4),
    "a colour of 9 bits": png(2, key=b"\0\4\1\5\0\6"),
    "a colour of 16 bits": png(2, key=b"\1\4\1\5\1\6", depth=16),
    "a colour of 7 bytes": png(2, key=b"\0\4\0\5\0\6\0"),
    "more alphas than colours": png(3, key=bytes(41), palette=bytes(range(120))),
    "more alphas than 4 bits": png(3, key=bytes(17), palette=bytes(range(60)), depth=4),
}

NOT_DECODED = {
    "bmp with a palette": encoded(noise(20, 30).quantize(9), "BMP"),
    "grey bmp": encoded(noise(20, 30, 1), "BMP"),
    "black and white bmp": encoded(noise(20, 30, 1).convert("1"), "BMP"),
    "bmp with masks": bmp(20, 3, struct.pack("<III", 255, 255 << 8, 255 << 16)),
    "bmp with a header of 16 bytes": bmp_of_a_header_of_16_bytes(),
    "bmp with a header of 41 bytes": bmp(20, size=41),
    "jpeg of 9 bits": encoded(noise(20, 30), "JPEG").replace(b"\0\x11\x08", b"\0\x11\x09", 1),
    "jpeg with arithmetic coding": encoded(noise(20, 30), "JPEG").replace(
        b"\xff\xc0", b"\xff\xc9", 1
    ),
    "jpeg with a byte before its markers": before_the_markers(b"\0"),
    "jpeg with EXIF behind 5,000 markers": behind_the_frame(
        b"\xff\xd3" * 5000 + exif_segment(SHORT)
    ),
    "gif of another version": gif().replace(b"GIF87a", b"GIF85a", 1),
    "jpeg turned in XMP behind its size": behind_the_frame(
        b"\xff\xe1\0\x49http://ns.adobe.com/xap/1.0/\0" + b'<x tiff:Orientation="6"/>'.ljust(42)
    ),
    "webp shorter than it says": webp_of_length(2),
    "webp of 4 GB": webp_of_length(2**32 - 1),
    "gif of a part of its canvas": partial_gif(),
    "gif of a frame a row lower": gif().replace(b"\x2c\0\0\0\0", b"\x2c\0\0\1\0", 1),
    "gif whose transparent colour is beyond its palette": encoded(
        noise(64, 64).quantize(4), "GIF"
    ).replace(b"\x2c\0\0\0\0", b"\x21\xf9\4\1\0\0\x5f\0\x2c\0\0\0\0", 1),
    "gif of two controls": gif_of_two_controls(),
    "png of two orientations": png_of_orientations(6, 3),
    "gif without a palette": gif(shared=False),
    "animated webp": encoded(
        noise(20, 30), "WEBP", save_all=True, append_images=[noise(20, 30, 4).convert("RGB")]
    ),
    "cmyk jpeg": encoded(noise(20, 30).convert("CMYK"), "JPEG"),
    "jpeg turned in XMP alone": with_xmp("JPEG"),
    **{
        f"jpeg turned {value} by an attribute in XMP": encoded(
            noise(20, 30), "JPEG", xmp=f'<x tiff:Orientation="{value}"/>'.encode()
        )
        for value in (2, 8)
    },
    "webp turned in XMP alone": with_xmp("WEBP"),
    "png turned in XMP alone": with_xmp("PNG"),
    "png with compressed XMP": with_xmp("PNG", compressed=True),
    "png turned in a text chunk": as_imagemagick_writes_exif(),
    **{f"png with a key: {name}": contents for name, contents in KEYS.items()},
    "tiff": encoded(noise(20, 30), "TIFF"),
    "avif": encoded(noise(20, 30), "AVIF"),
    "nothing": b"",
    "no image": b"no image",
    "signature of a png alone": b"\x89PNG\r\n\x1a\n",
    "half a jpeg": encoded(noise(64, 64), "JPEG")[:2000],
    "half a png": encoded(noise(64, 64), "PNG")[:-40],
    "half a webp": encoded(noise(64, 64), "WEBP")[:1500],
    "half a gif": encoded(noise(64, 64), "GIF")[:2000],
    "half a bmp": encoded(noise(64, 64), "BMP")[:2000],
}


def test_what_the_graph_does_not_decode_is_marked_and_fails_no_other():
    whole = encoded(noise(32, 32), "PNG")
    pixels, valid = by_graph([whole, *NOT_DECODED.values(), whole], 32, 32, 3)
    marked = dict(zip(NOT_DECODED, valid[1:-1], strict=True))
    assert [name for name, decoded in marked.items() if decoded] == []
    assert valid[0]
    assert valid[-1]
    assert not pixels[1:-1].any()
    for own in (pixels[0], pixels[-1]):
        np.testing.assert_array_equal(own, np.asarray(noise(32, 32)))


@pytest.mark.parametrize("channels", [1, 3])
def test_keys_of_pngs_that_both_decoders_obey(channels):
    files = {
        "grey": png(0, key=b"\0\5"),
        "colour": png(2, key=b"\0\4\0\5\0\6"),
        "palette": png(3, key=bytes(range(40)), palette=bytes(range(120))),
        "palette of 4 bits": png(3, key=bytes(range(16)), palette=bytes(range(48)), depth=4),
        "alpha, and a key that counts for nothing": png(6, key=b"\0\5"),
    }
    assert_agreement(files, 20, 30, channels)


def test_palettes_and_controls_of_gifs():
    transparent, opaque = b"\1\0\0\3", b"\x0c\0\0\3"
    files = {
        f"{name}, {control!r}": gif(control=control, **palettes)
        for name, palettes in {
            "shared": {},
            "own": {"shared": False, "own": True},
            "both": {"own": True},
        }.items()
        for control in (b"", transparent, opaque)
    }
    assert_agreement(files, 20, 30, 3)


def test_extensions_of_gifs():
    """A control extension of another size, and extensions around it."""
    control, comment = b"\x21\xf9\4\1\0\0\3\0", b"\x21\xfe\3abc\0"
    contents = gif()
    image = contents.index(b"\x2c\0\0\0\0", 13 + 768)
    files = {
        repr(inserted): contents[:image] + inserted + contents[image:]
        for inserted in (
            control + comment,
            comment + control,
            b"\x21\xf9\5\1\0\0\3\7\0",
            b"\x21\xf9\4\1\0\0\3\2ab\0",
        )
    }
    assert_agreement(files, 20, 30, 3)


def test_markers_of_jpegs():
    exif = exif_segment(SHORT)
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"
    files = {
        "EXIF behind the size": behind_the_frame(exif),
        "EXIF behind the size and restarts": behind_the_frame(b"\xff\xd3" * 300 + exif),
        **{
            f"EXIF behind {between!r} and other bytes": behind_the_frame(b"\5" + between + exif)
            for between in (b"\xda", b"\xc0", b"\xe1\0\0Exif\0\0II")
        },
        "escaped 0xFF": before_the_markers(b"\xff\0\xff\0" + exif),
        "RGB, by its names of colours": encoded(noise(40, 70), "JPEG", keep_rgb=True),
        "RGB, by Adobe's marker": before_the_markers(adobe + b"\0"),
        "YCbCr, by Adobe's marker": before_the_markers(adobe + b"\1"),
    }
    assert_agreement(files, 40, 70, 3)
    assert_agreement(files, 70, 40, 3)


def test_webps_that_do_not_announce_their_alpha_are_opaque():
    contents = bytearray(encoded(noise(40, 70, 4), "WEBP", lossless=True, exact=True))
    contents[contents.index(b"VP8L") + 12] ^= 0x10
    opaque = np.asarray(noise(40, 70, 4).convert("RGB"))
    received = read_image(bytes(contents), height=40, width=70, channels=3)
    np.testing.assert_array_equal(received, opaque)
    np.testing.assert_array_equal(by_graph([bytes(contents)], 40, 70, 3)[0][0], opaque)


def test_scaling_that_a_webp_asks_for_counts_for_nothing():
    contents = bytearray(encoded(noise(40, 70), "WEBP", quality=80))
    for place in (27, 29):  # the upper byte of the width and of the height
        contents[place] |= 0xC0
    assert_agreement({"webp": bytes(contents)}, 40, 70, 3)


def test_rows_of_a_bmp_from_below_and_from_above():
    assert_agreement({"below": bmp(20), "above": bmp(-20)}, 20, 30, 3)


def test_headers_of_bmps():
    assert_agreement({f"{n} bytes": bmp(20, size=n) for n in (40, 52, 56, 64, 108, 124)}, 20, 30, 3)


def test_what_follows_the_end_of_a_file_counts_for_nothing():
    """Other images behind the first, and a chunk behind the length that a WebP gives."""
    plain, other = noise(40, 70), noise(40, 70, 4)
    files = {}
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {}), ("GIF", {})):
        first = encoded(plain, kind, **options)
        turned = first if kind == "GIF" else encoded(other.convert("RGB"), kind, exif=tagged(6))
        files |= {f"{kind}, turned behind": first + turned, f"{kind}, first": turned + first}
    files["PNG, key behind"] = encoded(plain, "PNG") + png(0, key=b"\0\5")
    xmp = b'<x tiff:Orientation="6"/>'
    files |= {f"{kind}, XMP behind": encoded(plain, kind) + xmp for kind in ("PNG", "WEBP", "JPEG")}
    flagged = bytearray(encoded(plain, "WEBP", lossless=True, icc_profile=b"profile"))
    flagged[20] |= 8  # that there is EXIF
    block = tagged(6).tobytes()
    files["WEBP, EXIF behind"] = bytes(flagged) + b"EXIF" + struct.pack("<I", len(block)) + block
    text = chunk(b"tEXt", b"note\0eXIf" + tagged(3).tobytes().removeprefix(b"Exif\0\0"))
    named = png_of_orientations(6)
    files["PNG, the name of a chunk in a text"] = named[:33] + text + named[33:]
    ended = chunk(b"tEXt", b"note\0IEND tRNS\0\5")
    files["PNG, names of others in a text"] = named[:33] + ended + named[33:]
    assert_agreement(files, 40, 70, 3)
    assert_agreement(files, 70, 40, 3)


@pytest.mark.parametrize("files", [[], [b"no image"]])
def test_batches_without_any_image(files):
    pixels, valid = by_graph(files, 8, 8, 3)
    assert pixels.shape == (len(files), 8, 8, 3)
    assert valid == [False] * len(files)


# --- rare layouts of EXIF -------------------------------------------------------------------------


def with_block(block: bytes, *, before: bytes = b"", kind: str = "JPEG") -> bytes:
    """A file with an EXIF block; `before` stands before a JPEG's segment."""
    if kind == "JPEG":
        contents = encoded(noise(40, 70), "JPEG")
        return contents[:2] + before + exif_segment(block) + contents[2:]
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(noise(40, 70), kind, exif=b"Exif\0\0" + block, **options)


def filler(tag: int = 0xC000) -> bytes:
    return entry(tag, 3, 1, b"\1\0\0\0")


LAYOUTS = {
    "little-endian short": (SHORT, {}),
    "big-endian short": (directory(turned(3, ">"), order=">"), {}),
    "little-endian long": (directory(turned(4)), {}),
    "big-endian long": (directory(turned(4, ">"), order=">"), {}),
    "signed": (directory(turned(8)), {}),
    "big-endian signed long": (directory(turned(9, ">"), order=">"), {}),
    "a directory far behind": (directory(turned(3), gap=60_000), {}),
    "an entry far behind": (directory(*[filler(1)] * 4000, turned(3)), {}),
    "fill bytes": (SHORT, {"before": b"\xff" * 7}),
    "many segments before": (SHORT, {"before": b"\xff\xe2\x00\x04ab" * 300}),
    "restart markers before": (SHORT, {"before": b"\xff\xd0\xff\xd7"}),
    "a whole segment before": (directory(filler()), {"before": exif_segment(SHORT)}),
    "a comment that looks like EXIF": (SHORT, {"before": b"\xff\xfe\x00\x0aExif\0\0II"}),
    "text": (directory(entry(ORIENTATION, 2, 2, b"6\0\0\0")), {}),
    "no such orientation": (directory(turned(3, value=9)), {}),
    "orientation 0": (directory(turned(3, value=0)), {}),
    "a value before it that is no place": (directory(entry(1, 3, 1, b"\xff" * 4), turned(3)), {}),
    "an entry of no type before it": (directory(entry(1, 99, 2**31, bytes(4)), turned(3)), {}),
    "no orientation": (directory(filler()), {}),
    "no entries": (directory(), {}),
}
# Pillow warns of some and raises at others; the image stays as it is.
DAMAGED = {
    "an empty block": b"",
    "no byte order": b"XX" + SHORT[2:],
    "a directory beyond the end": b"II*\0\xff\xff\xff\x7f" + SHORT[8:],
    "cut before its end": SHORT[:20],
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_block_leaves_the_image_as_it_is(kind, name):
    damaged = with_block(DAMAGED[name], kind=kind)
    as_it_is = with_block(directory(filler()), kind=kind)
    expected = by_pillow(as_it_is, 32, 32, 3)
    np.testing.assert_array_equal(read_image(damaged, height=32, width=32, channels=3), expected)
    pixels, valid = by_graph([damaged], 32, 32, 3)
    assert valid == [True]
    np.testing.assert_allclose(pixels[0], expected, atol=1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_rare_layouts_of_exif(kind):
    layouts = {
        name: with_block(block, kind=kind, **options)
        for name, (block, options) in LAYOUTS.items()
        if kind == "JPEG" or not options
    }
    assert_agreement(layouts, 40, 70, 3)
    assert_agreement(layouts, 70, 40, 3)
    # 40 x 70 turned to 70 x 40: a network of that shape sees all of it.
    noted = np.asarray(noise(40, 70))
    turned_pixels, _ = by_graph([with_block(SHORT, kind="PNG")], 70, 40, 3)
    np.testing.assert_array_equal(turned_pixels[0], np.rot90(noted, -1))


def test_the_orientation_may_end_the_block():
    """The last byte of the block is that of the value, and nothing follows."""
    contents = with_block(directory(turned(4, ">"), order=">")[:-4], kind="PNG")
    expected = np.rot90(np.asarray(noise(40, 70)), -1)
    np.testing.assert_array_equal(read_image(contents, height=70, width=40, channels=3), expected)
    pixels, valid = by_graph([contents], 70, 40, 3)
    assert valid == [True]
    np.testing.assert_array_equal(pixels[0], expected)


# What Pillow and other readers take differently, or the graph does not read.
MARKED = {
    "two orientations": directory(turned(3), turned(3, value=3)),
    "several values": directory(turned(3, count=2)),
    "a byte": directory(turned(1)),
    "another kind of TIFF": b"II+\0" + SHORT[4:],
    "another kind of TIFF, big-endian": b"MM\0+" + directory(turned(3, ">"), order=">")[4:],
    **{
        f"an entry before it whose data are not there: {name}": directory(damaged, turned(3))
        for name, damaged in {
            "text": entry(0x010F, 2, 100, b"\xff\xff\xff\0"),
            "text, a place above 2 GB": entry(0x010F, 2, 100, b"\xff" * 4),
            "more text than there can be": entry(0x010F, 2, 2**32 - 1, b"\x08\0\0\0"),
            "text longer than the block": entry(0x010F, 2, 5000, bytes(4)),
            "a ratio": entry(0x011A, 5, 1, b"\xff\xff\xff\0"),
        }.items()
    },
}


@pytest.mark.parametrize(
    ("kind", "unit"),
    [*enumerate((0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 0))],  # TIFF 6.0, BigTIFF
)
def test_entries_of_every_type_before_the_orientation(kind, unit):
    """Pillow stops at data that are not all in the block, which ends at 38 bytes; not at others."""
    count = 8 // (unit or 1)
    missing = (entry(1, kind, count, struct.pack("<I", place)) for place in (31, 2**24))
    there = {
        "in the entry": entry(1, kind, 4 // (unit or 1), b"\xff" * 4),
        "at the end": entry(1, kind, count, struct.pack("<I", 30)),
    }
    layouts = {name: with_block(directory(part, turned(3))) for name, part in there.items()}
    assert_agreement(layouts, 70, 40, 3)
    valid = by_graph([with_block(directory(part, turned(3))) for part in missing], 16, 16, 3)[1]
    assert valid == [not unit] * 2


@pytest.mark.parametrize("name", MARKED)
def test_layouts_that_are_marked(name):
    assert by_graph([with_block(MARKED[name])], 16, 16, 3)[1] == [False]


def with_chunks(kind: str, *blocks: bytes, flag: bool = True) -> bytes:
    """A PNG or WebP with chunks of EXIF, whose content is written as it is."""
    if kind == "PNG":
        contents = encoded(noise(40, 70), "PNG")
        return contents[:33] + b"".join(chunk(b"eXIf", block) for block in blocks) + contents[33:]
    contents = bytearray(encoded(noise(40, 70), "WEBP", lossless=True, icc_profile=b"profile"))
    for block in blocks:
        contents += b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    contents[20] |= 8 * flag
    contents[4:8] = struct.pack("<I", len(contents) - 8)
    return bytes(contents)


PREFIX, KINDS = b"Exif\0\0", ("PNG", "WEBP")


def test_chunks_of_exif_as_they_are_rarely_written():
    files = {
        "webp": with_chunks("WEBP", SHORT),
        "webp, two": with_chunks("WEBP", SHORT, directory(turned(3, value=3))),
        "webp, without its flag": with_chunks("WEBP", SHORT, flag=False),
        **{f"{kind} with a JPEG's prefix": with_chunks(kind, PREFIX + SHORT) for kind in KINDS},
    }
    assert_agreement(files, 40, 70, 3)
    assert_agreement(files, 70, 40, 3)
    without = with_chunks("WEBP", b"abcd", SHORT)  # the first counts, though it is no block
    by_both = (
        read_image(without, height=40, width=70, channels=3),
        by_graph([without], 40, 70, 3)[0][0],
    )
    for pixels in by_both:
        np.testing.assert_array_equal(pixels, np.asarray(noise(40, 70)))
    twice = [with_chunks(kind, PREFIX * 2 + SHORT) for kind in KINDS] + [with_block(PREFIX + SHORT)]
    assert by_graph(twice, 16, 16, 3)[1] == [False] * 3


def test_an_empty_block_hides_no_other_orientation():
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    contents = with_block(b"", before=segment)
    upright = read_image(contents, height=70, width=40, channels=3)
    np.testing.assert_array_equal(
        upright, np.rot90(np.asarray(Image.open(io.BytesIO(contents))), -1)
    )
    assert by_graph([contents], 70, 40, 3)[1] == [False]
    other = with_block(directory(turned(3, value=0)), before=segment)  # hides it
    assert_agreement({"orientation 0": other}, 70, 40, 3)


def test_an_orientation_in_a_second_segment_is_marked():
    """Pillow joins the segments: the second holds what the first points to."""
    first = directory(gap=20_000)[:200]
    second = directory(turned(3), gap=20_000)[200:]
    assert by_graph([with_block(second, before=exif_segment(first))], 16, 16, 3)[1] == [False]


# --- bounds -------------------------------------------------------------------------------------


def of_one_colour(kind: str) -> bytes:
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(Image.new("RGB", (300, 200)), kind, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_larger_images_are_marked(kind):
    files = tf.constant([of_one_colour(kind), encoded(noise(8, 8), "PNG")])
    for limit, expected in ((60_000, [True, True]), (59_999, [False, True])):
        _, valid = decode_images(files, height=8, width=8, channels=3, limit=limit)
        assert valid.numpy().tolist() == expected


@pytest.mark.parametrize(
    ("kind", "place", "sides"),
    [
        ("JPEG", None, ">HH"),
        ("PNG", 16, ">II"),
        ("GIF", 6, "<HH"),
        ("BMP", 18, "<ii"),
    ],
)
def test_the_size_is_read_before_anything_is_decoded(kind, place, sides):
    """A header that claims more than there is memory for is refused, not allocated."""
    contents = bytearray(of_one_colour(kind))
    if place is None:
        place = contents.index(b"\xff\xc0") + 5
    contents[place : place + struct.calcsize(sides)] = struct.pack(sides, 60_000, 60_000)
    assert by_graph([bytes(contents)], 8, 8, 3)[1] == [False]


def test_large_images_are_decoded_one_by_one_and_keep_their_places(monkeypatch):
    monkeypatch.setattr(graph_decode, "_LARGE", 32 * 32)
    files = [encoded(noise(height, 32), "PNG") for height in (33, 31, 32, 40, 20)]
    pixels, valid = decode_images(tf.constant(files), height=16, width=16, channels=3)
    assert valid.numpy().all()
    expected = np.stack([by_pillow(contents, 16, 16, 3) for contents in files])
    np.testing.assert_allclose(pixels, expected, atol=1)


@pytest.mark.parametrize(
    ("channels", "mode", "band", "rows"),
    [(3, "RGB", 1000, {11, 70 % 11}), (1, "L", 1000, {11, 70 % 11}), (3, "RGB", 50, {1})],
)
def test_pixels_are_composited_and_made_grey_by_bands_of_rows(
    monkeypatch, channels, mode, band, rows
):
    """Conversions need several times the memory of the pixels that they see at a time."""
    image, bands = noise(70, 90, 4), []
    on_white, grey = graph_decode._on_white, graph_decode._grey
    monkeypatch.setattr(graph_decode, "_BAND", band)  # of rows of 90 pixels
    monkeypatch.setattr(graph_decode, "_on_white", lambda x: bands.append(x.shape) or on_white(x))
    monkeypatch.setattr(graph_decode, "_grey", lambda x: bands.append(x.shape) or grey(x))
    pixels = tf.constant(np.asarray(image))
    converted = graph_decode._converted(pixels, tf.constant(True), channels)
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image).convert(mode))
    np.testing.assert_array_equal(converted, expected.reshape(70, 90, channels))
    assert {shape[0] for shape in bands} == rows
    opaque = graph_decode._converted(pixels[..., :3], tf.constant(False), channels)
    expected = np.asarray(Image.fromarray(np.asarray(image)[..., :3]).convert(mode))
    np.testing.assert_array_equal(opaque, expected.reshape(70, 90, channels))
    assert {shape[0] for shape in bands} == rows


def test_a_gif_s_later_frames_are_not_decoded():
    """A damaged second frame does not matter, as it does not to Pillow."""
    contents = canvas(noise(30, 20), ImageOps.invert(noise(30, 20)))
    second = contents.rindex(b"\x2c\0\0\0\0")
    damaged = contents[:second] + b"\x2c" + b"\xff" * 9 + contents[second + 10 :]
    assert_agreement({"damaged": damaged}, 30, 20, 3)
