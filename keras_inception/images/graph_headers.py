"""What the header of an image file says, inside a TensorFlow graph: before anything is decoded.

Sources: ITU-T T.81 (JPEG), CIPA DC-008 (EXIF), the PNG specification (third edition), GIF89a,
Microsoft's BITMAPINFOHEADER, and Google's WebP container specification.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import tensorflow as tf

from keras_inception.images.graph_exif import (
    ABSENT,
    EXIF,
    UNKNOWN,
    UPRIGHT,
    among,
    at,
    begins,
    exif_orientation,
    number,
    octets,
)


class Kind(IntEnum):
    """Formats that the graph decodes."""

    NONE = 0
    JPEG = 1
    PNG = 2
    GIF = 3
    BMP = 4
    WEBP = 5


class Header(NamedTuple):
    """int32 scalars, and a boolean one.

    Attributes:
        kind: a `Kind`.
        height, width: as stored, before the orientation is applied.
        orientation: EXIF's, 1 to 8.
        alpha: whether there may be pixels that are not opaque.
        supported: whether the graph decodes all of it as `decode` does.
    """

    kind: Any
    height: Any
    width: Any
    orientation: Any
    alpha: Any
    supported: Any


SIGNATURE = Header(*(tf.TensorSpec((), dtype) for dtype in (*[tf.int32] * 4, *[tf.bool] * 2)))

_START_OF_SCAN = 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman coding
_WITHOUT_LENGTH = (0x00, *range(0xD0, 0xD8))  # an escaped 0xFF, and restarts
_APP1 = 0xE1
_MOST_MARKERS = 4096  # before the picture; a JPEG has about ten, with extended XMP hundreds
# Other places where Pillow finds an orientation if EXIF has none; the graph does not read them.
_OTHER_ORIENTATION = (
    r'tiff:Orientation(="|>)[2-8]|Raw profile type exif|XML:com\.adobe\.xmp\x00\x01'
)
# Bytes of the headers that Pillow reads, but those of OS/2 with sides of 16 bits.
_BMP_HEADERS = (40, 52, 56, 64, 108, 124)
# Names of chunks with the upper bytes of their lengths, as compressed pixels rarely are.
_KEY = r"\x00\x00\C\CtRNS"
_PNG_EXIF = r"\x00\C\C\CeXIf"
_WEBP_EXIF = r"EXIF\C\C\C\x00"
_PNG_END = r"\x00\x00\x00\x00IEND"


def read_header(contents: Any) -> Header:
    """The header of a file.

    Args:
        contents: scalar string.
    """
    data = octets(contents)
    kinds = (
        (Kind.JPEG, begins(data, 0, b"\xff\xd8\xff")),
        (Kind.PNG, begins(data, 0, b"\x89PNG\r\n\x1a\n")),
        (Kind.GIF, begins(data, 0, b"GIF87a") | begins(data, 0, b"GIF89a")),
        (Kind.BMP, begins(data, 0, b"BM")),
        (Kind.WEBP, begins(data, 0, b"RIFF") & begins(data, 8, b"WEBP")),
    )
    kind = tf.add_n([tf.where(found, int(kind), 0) for kind, found in kinds])
    readers = (_none, _jpeg, _png, _gif, _bmp, _webp)
    return tf.switch_case(kind, [_reader(read, contents, data) for read in readers])


def _reader(read: Any, contents: Any, data: Any) -> Any:
    return lambda: read(contents, data)


def _header(
    kind: Kind, height: Any, width: Any, orientation: Any, *, alpha: Any, supported: Any
) -> Header:
    supported &= (orientation != UNKNOWN) & (height > 0) & (width > 0)
    orientation = tf.where(orientation == ABSENT, UPRIGHT, orientation)
    alpha = tf.convert_to_tensor(alpha)
    return Header(tf.constant(int(kind)), height, width, orientation, alpha, supported)


def _none(contents: Any, data: Any) -> Header:
    zero, no = tf.constant(0), tf.constant(False)
    return _header(Kind.NONE, zero, zero, zero, alpha=no, supported=no)


def _jpeg(contents: Any, data: Any) -> Header:
    """The frame's header and EXIF's segment, among the markers before the first scan."""

    def at_scan(position: Any) -> Any:
        return (at(data, position) == 0xFF) & (at(data, position + 1) == _START_OF_SCAN)

    def goes_on(position: Any, frame: Any, exif: Any, exifs: Any) -> Any:
        return ~at_scan(position) & (position < tf.size(data))

    def next_marker(position: Any, frame: Any, exif: Any, exifs: Any) -> Any:
        code = at(data, position + 1)
        is_marker = at(data, position) == 0xFF
        is_frame = is_marker & among(code, _FRAMES)
        is_exif = is_marker & (code == _APP1) & begins(data, position + 4, EXIF)
        step = tf.where(
            among(code, _WITHOUT_LENGTH), 2, 2 + number(data, position + 2, 2, little=False)
        )
        step = tf.where(is_marker & (code != 0xFF), step, 1)  # bytes between, and that fill up
        return (
            position + step,
            tf.where(is_frame, position, frame),
            tf.where(is_exif & (exifs == 0), position, exif),
            exifs + tf.cast(is_exif, tf.int32),
        )

    start = (tf.constant(2), tf.constant(-1), tf.constant(-1), tf.constant(0))
    scan, frame, exif, exifs = tf.while_loop(
        goes_on, next_marker, start, maximum_iterations=_MOST_MARKERS
    )
    height, width = (number(data, frame + place, 2, little=False) for place in (5, 7))
    # Not four inks: TensorFlow rounds their mixture down, Pillow to the nearest level.
    components = at(data, frame + 9)
    supported = (frame > 0) & at_scan(scan) & among(components, (1, 3))
    # Pillow joins the segments of an EXIF block that has several.
    end = exif + 2 + number(data, exif + 2, 2, little=False)
    block = data[exif + 4 + len(EXIF) : end]
    orientation = tf.cond(exif > 0, lambda: exif_orientation(block), lambda: tf.constant(ABSENT))
    orientation = tf.where((exifs > 1) & (orientation == ABSENT), UNKNOWN, orientation)
    orientation = _or_elsewhere(orientation, tf.strings.substr(contents, 0, scan))
    return _header(Kind.JPEG, height, width, orientation, alpha=False, supported=supported)


def _png(contents: Any, data: Any) -> Header:
    width, height = (number(data, tf.constant(place), 4, little=False) for place in (16, 20))
    depth, colour = at(data, 24), at(data, 25)
    contents = _up_to(contents, _after(contents, _PNG_END))
    key = tf.strings.regex_full_match(contents, rf"\C*{_KEY}\C*")
    orientation = _orientation_in(contents, data, _PNG_EXIF, little=False)
    # Of several chunks Pillow reads the last.
    several = tf.strings.regex_full_match(contents, rf"\C*{_PNG_EXIF}\C*{_PNG_EXIF}\C*")
    orientation = _or_elsewhere(tf.where(several, UNKNOWN, orientation), contents)
    with_alpha = (colour == 4) | (colour == 6)
    supported = ~key | with_alpha | _key_is_plain(contents, data, depth, colour)
    return _header(
        Kind.PNG, height, width, orientation, alpha=key | with_alpha, supported=supported
    )


def _key_is_plain(contents: Any, data: Any, depth: Any, colour: Any) -> Any:
    """Whether the decoders agree on a PNG's tRNS chunk, which says what is transparent.

    TensorFlow's skips chunks that the specification forbids, Pillow uses them. Of 16-bit colour
    Pillow compares the high bytes alone.
    """
    key, palette, pixels = (_after(contents, name) for name in (_KEY, "PLTE", "IDAT"))
    length, palette_length = (number(data, start - 8, 4, little=False) for start in (key, palette))
    count = tf.bitwise.left_shift(1, depth)  # of levels, or of colours in a palette
    known = number(data, key + 2 * tf.range(3), 2, little=False) < count
    of_grey = (colour == 0) & (length == 2) & known[0]
    of_colour = (colour == 2) & (length == 6) & (depth == 8) & tf.reduce_all(known)
    fits = length <= tf.minimum(count, palette_length // 3)
    of_palette = (colour == 3) & (palette > 0) & (palette < key) & fits
    once = ~tf.strings.regex_full_match(contents, rf"\C*{_KEY}\C*{_KEY}\C*")
    return once & (key < pixels) & (of_grey | of_colour | of_palette)


def _gif(contents: Any, data: Any) -> Header:
    width, height = (number(data, tf.constant(place), 2, little=True) for place in (6, 8))
    # `graph_gif.first_frame` checks the rest.
    orientation, yes = tf.constant(UPRIGHT), tf.constant(True)
    return _header(Kind.GIF, height, width, orientation, alpha=False, supported=yes)


def _bmp(contents: Any, data: Any) -> Header:
    """24 or 32 bits, neither compressed nor with masks; rows from below (height > 0) or above."""
    size, width, height, compression = (
        number(data, tf.constant(place), 4, little=True) for place in (14, 18, 22, 30)
    )
    bits = number(data, tf.constant(28), 2, little=True)
    supported = among(size, _BMP_HEADERS) & among(bits, (24, 32)) & (compression == 0)
    orientation = tf.constant(UPRIGHT)
    return _header(Kind.BMP, tf.abs(height), width, orientation, alpha=False, supported=supported)


def _webp(contents: Any, data: Any) -> Header:
    """A lossy or lossless picture, alone or (VP8X) with more chunks."""
    contents = _up_to(contents, 8 + number(data, tf.constant(4), 4, little=True))
    extended, lossless = begins(data, 12, b"VP8X"), begins(data, 12, b"VP8L")
    flags = at(data, 20)
    packed = number(data, tf.constant(21), 4, little=True)  # 14 bits each, then alpha

    def side(canvas: int, in_packed: int, in_frame: int) -> Any:
        of_lossless = 1 + tf.bitwise.bitwise_and(tf.bitwise.right_shift(packed, in_packed), 0x3FFF)
        of_lossy = tf.bitwise.bitwise_and(
            number(data, tf.constant(in_frame), 2, little=True), 0x3FFF
        )
        of_canvas = 1 + number(data, tf.constant(canvas), 3, little=True)
        return tf.where(extended, of_canvas, tf.where(lossless, of_lossless, of_lossy))

    alpha = tf.where(extended, _bit(flags, 4), lossless & _bit(packed, 28))
    orientation = _orientation_in(contents, data, _WEBP_EXIF, little=True)
    # Without its flag the chunk does not count.
    orientation = tf.where(extended & _bit(flags, 3), orientation, ABSENT)
    orientation = _or_elsewhere(orientation, contents)
    animated = extended & _bit(flags, 1)
    supported = (extended | lossless | begins(data, 12, b"VP8 ")) & ~animated
    return _header(
        Kind.WEBP,
        side(27, 14, 28),
        side(24, 0, 26),
        orientation,
        alpha=alpha,
        supported=supported,
    )


def _orientation_in(contents: Any, data: Any, chunk: str, *, little: bool) -> Any:
    """The orientation in the TIFF block of a chunk; ABSENT without one.

    Args:
        chunk: a pattern of what stands before the chunk's content.
        little: whether the chunk's length is little-endian, and stands after its name (WebP).
    """
    start = _after(contents, chunk)
    end = start + number(data, start - (4 if little else 8), 4, little=little)
    block = start + tf.where(begins(data, start, EXIF), len(EXIF), 0)
    return tf.cond(
        start > 0, lambda: exif_orientation(data[block:end]), lambda: tf.constant(ABSENT)
    )


def _after(contents: Any, pattern: str) -> Any:
    """The position behind the first place that matches a pattern; 0 without one."""
    rest = tf.strings.regex_replace(contents, rf"^\C*?{pattern}", "", replace_global=False)
    return tf.strings.length(contents) - tf.strings.length(rest)


def _up_to(contents: Any, end: Any) -> Any:
    """A file without what follows its end, which no decoder reads."""
    return tf.strings.substr(contents, 0, tf.maximum(end, 0))


def _or_elsewhere(orientation: Any, contents: Any) -> Any:
    """UNKNOWN where EXIF has no orientation, but Pillow finds one elsewhere."""
    return tf.cond(
        orientation == ABSENT,
        lambda: tf.where(
            tf.strings.regex_full_match(contents, rf"\C*({_OTHER_ORIENTATION})\C*"),
            UNKNOWN,
            ABSENT,
        ),
        lambda: orientation,
    )


def _bit(value: Any, place: int) -> Any:
    return tf.bitwise.bitwise_and(tf.bitwise.right_shift(value, place), 1) == 1
