"""Labels and pixels of a LiteRT file in the form that MediaPipe and Android's task library read.

A flat buffer `TFLITE_METADATA` inside the file, and a zip of the labels at its end. Written with
`flatbuffers`: the writer in MediaPipe 1.2 imports a module that its wheels do not have, and that of
tflite-support needs protobuf 3. The tests read the result with MediaPipe's reader.

Source: metadata_schema.fbs of MediaPipe (`mediapipe/tasks/metadata`), version 1.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np

from keras_inception.files import LABELS_FILE

_NAME = "TFLITE_METADATA"
_METADATA_IDENTIFIER = b"M001"
_MODEL_IDENTIFIER = b"TFL3"
_PARSER_VERSION = "1.0.0"  # of the fields below
_DATA_ALIGNMENT = 16  # of constants, which the object interface of flatbuffers drops

# Values of the schema's enumerations and unions.
_RGB, _GREY = 1, 2
_IMAGE_PROPERTIES = 2
_NORMALIZATION = 1
_AXIS_LABELS = 2


class _Table(NamedTuple):
    """A table of the schema: its fields by their numbers.

    Attributes:
        fields: strings, tables, lists of tables and arrays of float32.
        bytes: enumerations.
    """

    fields: Mapping[int, Any]
    bytes: Mapping[int, int] = {}


def with_metadata(model: bytes, *, name: str, labels: Sequence[str], channels: int) -> bytes:
    """Return a LiteRT file that names its classes and its pixels.

    Args:
        model: a LiteRT file of this package: pixels in [0, 255] in, scores out. The pixel
            convention is inside, so the normalization has the mean 0 and the deviation 1.
        name: of the network.
        labels: the names of the classes.
        channels: 3 for RGB, 1 for grey.
    """
    from ai_edge_litert.tools import flatbuffer_utils as files

    loaded = files.convert_bytearray_to_object(bytearray(model))
    data = files.BufferT()
    data.data = np.frombuffer(_metadata(name, channels), np.uint8)
    loaded.buffers.append(data)
    entry = files.schema_fb.MetadataT()
    entry.name, entry.buffer = _NAME, len(loaded.buffers) - 1
    loaded.metadata = [*(loaded.metadata or []), entry]
    builder = _AlignedBuilder(0)
    builder.Finish(loaded.Pack(builder), _MODEL_IDENTIFIER)
    whole = io.BytesIO(builder.Output())
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS_FILE), "".join(f"{label}\n" for label in labels))
    return whole.getvalue()


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns the data of constants, as the schema asks; kernels of small processors need it."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802 # flatbuffers' name
        """Add an array."""
        if x.dtype == np.uint8:
            self.Prep(_DATA_ALIGNMENT, x.size)
        return super().CreateNumpyVector(x)


def _metadata(name: str, channels: int) -> bytes:
    colours = _Table({}, {0: _RGB if channels == 3 else _GREY})
    normalization = _Table({0: np.zeros(1, np.float32), 1: np.ones(1, np.float32)})
    image = _Table(
        {
            0: "image",
            1: "Pixels in [0, 255].",
            3: _Table({1: colours}, {0: _IMAGE_PROPERTIES}),
            4: [_Table({1: normalization}, {0: _NORMALIZATION})],
            5: _stats(0, 255),
        }
    )
    labels = _Table({0: LABELS_FILE, 1: "The names of the classes."}, {2: _AXIS_LABELS})
    scores = _Table({0: "score", 1: "Of each class.", 5: _stats(0, 1), 6: [labels]})
    model = _Table({0: name, 3: [_Table({2: [image], 3: [scores]})], 7: _PARSER_VERSION})
    builder = flatbuffers.Builder(0)
    builder.Finish(_written(builder, model), _METADATA_IDENTIFIER)
    return bytes(builder.Output())


def _stats(low: float, high: float) -> _Table:
    return _Table({0: np.array([high], np.float32), 1: np.array([low], np.float32)})


def _written(builder: flatbuffers.Builder, value: Any) -> int:
    """Write a field's value after all that it holds; returns its place."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        places = [_written(builder, item) for item in value]
        builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()
    places_of_fields = {slot: _written(builder, field) for slot, field in value.fields.items()}
    builder.StartObject(max([*value.fields, *value.bytes]) + 1)
    for slot, place in places_of_fields.items():
        builder.PrependUOffsetTRelativeSlot(slot, place, 0)
    for slot, number in value.bytes.items():
        builder.PrependUint8Slot(slot, number, 0)
    return builder.EndObject()
