"""What a data set is: splits of images, in memory or as encoded files, and their labels."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from keras_inception.files import require_single_lines
from keras_inception.images.decode import (
    ImageError,
    as_image,
    as_pixels,
    converted,
    fit_image,
    fitted,
    opened,
)
from keras_inception.images.geometry import Window, stored_window

# In the place of an EXIF orientation: the content is upright pixels, not a JPEG.
PIXELS = 0


class _Digest(Protocol):
    """A hash of hashlib."""

    def update(self, content: Any, /) -> None: ...


class Part(NamedTuple):
    """A part of an image on its way to a decoder.

    `orientation` is EXIF's (1 to 8) of a whole JPEG file `content`, of which `window` is to be
    decoded; or PIXELS, when `content` is uint8 pixels, as many as `window` is large.
    """

    content: bytes
    window: Window
    orientation: int


@dataclass(frozen=True)
class Split:
    """Images (N x h x w x C, uint8, RGB or grey) and labels (N, integers from 0)."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(
                "Expected images of shape N x h x w x C and dtype uint8. Received: "
                f"shape={self.images.shape}, dtype={self.images.dtype}"
            )
        _check_labels(self.labels, len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def size_of(self, position: int) -> tuple[int, int]:
        """(height, width) of an image."""
        return self.shape[:2]

    def with_channels(self, channels: int) -> Split:
        """The same images in grey (1) or RGB (3)."""
        if channels == self.shape[2]:
            return self
        images = [as_pixels(converted(as_image(image), channels)) for image in self.images]
        return Split(np.stack(images), self.labels)

    def update(self, digest: _Digest) -> None:
        """Add the contents of the images and their labels to a digest."""
        digest.update(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").tobytes())

    @contextmanager
    def opened(self, position: int, channels: int) -> Iterator[Image.Image]:
        """A whole image; `channels` must be the split's own."""
        yield as_image(self.images[position])

    def fitted(self, positions: np.ndarray, size: tuple[int, int], channels: int) -> np.ndarray:
        """Images by `images.decode.fit_image`, uint8 N x h x w x C; `channels` as above."""
        images = self.images[positions]
        if size == self.shape[:2]:
            return images
        return np.stack([fit_image(image, height=size[0], width=size[1]) for image in images])


class ImageFile(NamedTuple):
    """An encoded image: where its bytes lie, and what is known of it.

    `height` and `width` are those of the upright image; `orientation` is EXIF's for JPEGs that
    TensorFlow decodes, PIXELS for all that goes through Pillow; `channels` is 1 for grey;
    `transparent` says that it has pixels that are not opaque, which are composited on white;
    `digest` is of the bytes.
    """

    path: str
    offset: int
    length: int
    height: int
    width: int
    channels: int
    orientation: int
    transparent: bool = False
    digest: str = ""

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            OSError: the file is gone or shorter than it was.
        """
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.length)
        if len(content) != self.length:
            raise OSError(f"{self.path!r} became shorter while it was in use")
        return content

    def open(self) -> io.BytesIO | io.BufferedReader:
        """The encoded bytes as a file, of which a decoder reads no more than it needs.

        Raises:
            OSError: as `read`.
        """
        is_part = self.offset > 0  # a record of TFDS, which never begins its file
        return io.BytesIO(self.read()) if is_part else open(self.path, "rb")


@dataclass(frozen=True)
class FileSplit:
    """Images read from files when they are asked for, and labels (N, integers from 0).

    `channels` is the same for all images of the data set: 3 if any image is in colour, else 1.
    """

    files: tuple[ImageFile, ...]
    labels: np.ndarray
    channels: int

    def __post_init__(self) -> None:
        _check_labels(self.labels, len(self.files))

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        """(height, width, channels) of every image; None where they differ."""
        heights = {file.height for file in self.files}
        widths = {file.width for file in self.files}
        return (
            heights.pop() if len(heights) == 1 else None,
            widths.pop() if len(widths) == 1 else None,
            self.channels,
        )

    def size_of(self, position: int) -> tuple[int, int]:
        """(height, width) of an image, upright."""
        file = self.files[position]
        return file.height, file.width

    def with_channels(self, channels: int) -> FileSplit:
        """The same images in grey (1) or RGB (3)."""
        return replace(self, channels=channels)

    def update(self, digest: _Digest) -> None:
        """Add the contents of the files and their labels to a digest; paths do not count."""
        for file in self.files:
            digest.update(f"{file.digest}\n".encode())
        digest.update(self.labels.astype("<i8").tobytes())

    def part(self, position: int, window: Window, channels: int, halvings: int) -> Part:
        """A part of an image for training.

        Args:
            window: in the upright image.
            channels: 1 or 3.
            halvings: pixels may be reduced to 1/2, 1/4, 1/8, ... in each direction; a JPEG comes
                whole, and is reduced while it is decoded.
        """
        file = self.files[position]
        if file.orientation != PIXELS:
            stored = stored_window(window, file.height, file.width, file.orientation)
            return Part(file.read(), stored, file.orientation)
        top, left, height, width = window
        with self.opened(position, channels) as image:
            part = image.reduce(2**halvings, (left, top, left + width, top + height))
        return Part(as_pixels(part).tobytes(), Window(0, 0, part.height, part.width), PIXELS)

    @contextmanager
    def opened(self, position: int, channels: int) -> Iterator[Image.Image]:
        """A whole image, upright, as `images.decode.opened` gives it.

        Raises:
            ValueError: the file cannot be read any more.
        """
        file = self.files[position]
        try:
            with file.open() as content, opened(content, channels) as image:
                yield image
        except (OSError, ImageError) as error:
            raise ValueError(f"Expected an image in {file.path!r}. Received: {error}") from None

    def fitted(self, positions: np.ndarray, size: tuple[int, int], channels: int) -> np.ndarray:
        """Images by `images.decode.read_image`, uint8 N x h x w x C."""
        images = []
        for position in positions:
            with self.opened(position, channels) as image:
                images.append(fitted(image, *size))
        return np.stack(images)


AnySplit = Split | FileSplit


@dataclass(frozen=True)
class ImageData:
    """A classification data set: `train` to learn from, `test` held out.

    Attributes:
        test: held out: a run is evaluated on it after each epoch.
        note: how the held-out part was chosen, if the data set does not determine it.
        unreadable: (path, reason) of every file that is in no split, because it cannot be read as
            an image, belongs to no class, or is hidden or the operating system's.
        folders_left_out: (path, reason) of folders that cannot be listed, lead back to a folder
            above them, or are classes without a readable image.
        final_test: a second held-out part that training never uses; `evaluate` takes it. None if
            the data set has only one held-out part.
        source: the name with which `open_data` opens these data again; "" for data made in Python.
        scanned: what the scan of the files found, for `scan.save_scan`.
    """

    name: str
    train: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    note: str = ""
    unreadable: tuple[tuple[str, str], ...] = ()
    folders_left_out: tuple[tuple[str, str], ...] = ()
    final_test: AnySplit | None = None
    source: str = ""
    scanned: Mapping[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_single_lines(self.class_names)
        labels = np.concatenate([split.labels for split in self.splits])
        if labels.min() < 0 or labels.max() >= len(self.class_names):
            raise ValueError(
                f"Expected labels from 0 to {len(self.class_names) - 1}, one less than the number "
                f"of class names. Received: labels from {labels.min()} to {labels.max()}"
            )
        channels = [split.shape[2] for split in self.splits]
        if len(set(channels)) > 1:
            raise ValueError(
                "Expected training and test images of equally many channels. Received: "
                f"{channels[0]} and {channels[1]}"
            )
        if len(set(self.class_names)) < len(self.class_names):
            repeated = sorted(
                {name for name in self.class_names if self.class_names.count(name) > 1}
            )
            raise ValueError(
                f"Expected different names of classes. Received more than once: {repeated}. "
                "Rename one."
            )

    @property
    def splits(self) -> tuple[AnySplit, ...]:
        """Training, held-out and, if there is one, final test images."""
        final = () if self.final_test is None else (self.final_test,)
        return (self.train, self.test, *final)

    def with_channels(self, channels: int) -> ImageData:
        """The same images in grey (1) or RGB (3)."""
        train, test, *final = (split.with_channels(channels) for split in self.splits)
        return replace(self, train=train, test=test, final_test=final[0] if final else None)

    @property
    def image_shape(self) -> tuple[int | None, int | None, int]:
        """(height, width, channels) of every training image; None where they differ."""
        return self.train.shape

    @property
    def transparent(self) -> int:
        """How many images have pixels that are not opaque: files, composited on white."""
        splits = [split for split in self.splits if isinstance(split, FileSplit)]
        return sum(file.transparent for split in splits for file in split.files)


def _check_labels(labels: np.ndarray, count: int) -> None:
    if not count:
        raise ValueError("Expected at least one image. Received: none")
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"Expected one integer label for each of {count} images. Received: "
            f"shape={labels.shape}, dtype={labels.dtype}"
        )
