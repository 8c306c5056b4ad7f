"""Checks of a `.keras` file before Keras, or the reader of its weights, opens it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_inception.archives import read_zip
from keras_inception.bounded import (
    LEAST_BYTES,
    MOST_TEXT,
    Allowance,
    bytes_on_disk,
    parsed_json,
    shown,
)
from keras_inception.weights.hdf5 import check_hdf5

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
# Of one image; the widest network of this family needs some 60 MB.
_MOST_ACTIVATIONS = 1_000_000_000
# Keras takes up to a millisecond for a layer and for each of its calls, and a time that grows with
# the third power for the layers of a Sequential. GoogLeNet with its heads has 217 layers.
_MOST_LAYERS = 2_000
_MOST_IN_SEQUENCE = 100
# Other layers of Keras read files that their configuration names, or repeat something as often as
# it says.
_LAYER_NAMES = (
    "Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D "
    "AdaptiveMaxPooling1D AdaptiveMaxPooling2D Add AdditiveAttention AlphaDropout Attention "
    "AutoContrast Average AveragePooling1D AveragePooling2D BatchNormalization CenterCrop "
    "Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D "
    "Conv2DTranspose Cropping1D Cropping2D CutMix Dense DepthwiseConv1D DepthwiseConv2D Dot "
    "Dropout ELU EinsumDense Equalization Flatten GaussianDropout GaussianNoise "
    "GlobalAveragePooling1D GlobalAveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D "
    "GroupNormalization GroupQueryAttention Identity InputLayer LayerNormalization LeakyReLU "
    "Masking MaxNumBoundingBoxes MaxPooling1D MaxPooling2D Maximum Minimum MixUp "
    "MultiHeadAttention Multiply Normalization PReLU Permute Pipeline RMSNormalization "
    "RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop "
    "RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale "
    "RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation "
    "RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom ReLU Rescaling "
    "Reshape Resizing SeparableConv1D SeparableConv2D Softmax Solarization SpatialDropout1D "
    "SpatialDropout2D Subtract UnitNormalization UpSampling1D "
    "UpSampling2D ZeroPadding1D ZeroPadding2D"
)
_LAYERS = frozenset(_LAYER_NAMES.split())
# A configuration can name any public function of Keras, which would be called with the pixels.
_FUNCTIONS = frozenset(dir(keras.activations)) - {"deserialize", "get", "serialize"}
_TYPE_NAMES = (
    "bfloat16 float16 float32 float64 mixed_bfloat16 mixed_float16 bool "
    "int8 int16 int32 int64 uint8 uint16 uint32 uint64"
)
_TYPES = frozenset(_TYPE_NAMES.split())
# Elements of a window on an axis, with its holes; those of `same` padding are added to the input.
_MOST_WINDOW = 512


def own_allowance(path: Path) -> Allowance:
    """Return what a file of this package may unpack: Keras compresses nothing.

    A network of a spec of one's own may be larger than the public ones, and then its file is.
    """
    return Allowance(path, max(LEAST_BYTES, 2 * bytes_on_disk(path)))


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration of a `.keras` file's model.

    Raises:
        ValueError: no `.keras` file of Keras 3.
    """
    allowance = own_allowance(path)
    (config,) = read_zip(path, allowance, CONFIG)
    if len(config) > MOST_TEXT:
        allowance.take(CONFIG, allowance.size + 1)
    document = parsed_json(config, "`.keras` file")
    if not isinstance(document, dict):
        raise ValueError(
            f"Expected a `.keras` file with the configuration of a model. Received: {str(path)!r}"
        )
    return document


def read_weights(path: Path) -> bytes:
    """Return the HDF5 file of weights in a `.keras` file, after its checks.

    Raises:
        ValueError: none, or one that no `model.save` writes.
    """
    (weights,) = read_zip(path, own_allowance(path), WEIGHTS)
    check_hdf5(weights, own_allowance(path))
    return weights


def check_model(path: Path) -> None:
    """Refuse a `.keras` file whose model would take more memory than a network of this family.

    The model is built without its weights.

    Raises:
        ValueError: as `read_config` and `read_weights`, or too large.
        Exception: whatever Keras raises for a configuration that it cannot build.
    """
    document = read_config(path)
    _check_layers(document, path)
    read_weights(path)
    document.pop("compile_config", None)
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(document, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected a model. Received: {type(model).__name__} in {str(path)!r}")
    allowance = own_allowance(path)
    for weight in model.weights:
        allowance.take_array(weight.path, weight.shape, 4)
    check_activations(model, path)


def _check_layers(document: dict[str, Any], path: Path) -> None:
    """Refuse layers that networks of this family do not have, and more than they have."""
    layers = in_sequence = 0
    for item in _objects(document):
        if unusual := _unusual(item):
            raise ValueError(
                f"Expected layers of a classifier of images. Received: {unusual} in "
                f"{str(path)!r}. If you know where the file is from, load it with Keras and give "
                "the model's weights to a network without that layer."
            )
        config, calls = item.get("config"), item.get("inbound_nodes")
        if isinstance(calls, list):
            layers += max(1, len(calls))
        if _kind(item) == "Sequential" and isinstance(config, dict):
            listed = config.get("layers")
            in_sequence += len(listed) if isinstance(listed, list) else 0
    if layers > _MOST_LAYERS or in_sequence > _MOST_IN_SEQUENCE:
        raise ValueError(
            f"Expected at most {_MOST_LAYERS:,} layers and calls of layers, {_MOST_IN_SEQUENCE} "
            f"of them in Sequentials. Received: {layers:,} and {in_sequence:,} in {str(path)!r}."
        )


def _unusual(item: dict[str, Any]) -> str | None:
    """Return what no network of this family has in an object of the configuration, if anything."""
    kind, config, dtype = _kind(item), item.get("config"), item.get("dtype")
    if (hasattr(keras.layers, kind) and kind not in _LAYERS) or kind.startswith("Quantized"):
        return shown(item["class_name"])
    known = isinstance(config, str) and (
        config in _FUNCTIONS or keras.saving.get_registered_object(config) is not None
    )
    if kind == "function" and not known:
        return f"the function {shown(config)}"
    if isinstance(dtype, str) and dtype not in _TYPES:
        return f"the dtype {shown(dtype)}"
    return None


def _kind(item: dict[str, Any]) -> str:
    """Return the name of an object's class, without the module that may stand before it."""
    name = item.get("class_name")
    return name.rpartition(".")[2] if isinstance(name, str) else ""


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects in a parsed JSON document; the nesting is bounded."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)


def check_activations(model: keras.Model, path: Path) -> None:
    """Refuse a model that computes more than a network of this family on one image.

    Raises:
        ValueError: naming the layer.
    """
    for layer in getattr(model, "operations", model.layers):
        if isinstance(layer, keras.Model):
            check_activations(layer, path)
        if (window := _window(layer)) > _MOST_WINDOW:
            raise ValueError(
                f"Expected windows of at most {_MOST_WINDOW} elements on an axis. Received: "
                f"{window:,} in layer {layer.name!r} in {str(path)!r}."
            )
        for tensor in keras.tree.flatten(getattr(layer, "output", None)):
            shape = [size or 1 for size in getattr(tensor, "shape", ())]
            if 4 * math.prod(shape) > _MOST_ACTIVATIONS:
                raise ValueError(
                    f"Expected layers of at most {_MOST_ACTIVATIONS:,} bytes for one image. "
                    f"Received: layer {layer.name!r} of shape {tuple(shape)} in {str(path)!r}."
                )


def _window(layer: Any) -> int:
    """Return the longer side of a convolution's or a pool's window, with its holes."""
    sizes = getattr(layer, "pool_size", getattr(layer, "kernel_size", 1))
    holes = getattr(layer, "dilation_rate", 1)
    return int((np.max(sizes) - 1) * np.max(holes) + 1)
