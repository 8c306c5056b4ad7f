"""A SavedModel that serves images: files in, labels out, with neither Keras nor this package.

The network is folded and its weights are constants of the graph, so that TensorFlow prepares them
once. What is written is checked against the Python model before it gets its name.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_inception.exporters.inference_graph import (
    ComputeDtype,
    fold_batch_norm,
    merge_parallel_convs,
    require_tensorflow,
)
from keras_inception.exporters.parity import Agreement, agreement, require_agreement
from keras_inception.exporters.warmup import write_warmup
from keras_inception.files import (
    LABELS_FILE,
    aside,
    require_single_lines,
    temporary_folder,
    write_labels,
)
from keras_inception.images.conventions import CONVENTIONS, model_preprocessing
from keras_inception.images.graph_decode import decode_images
from keras_inception.images.limits import max_pixels
from keras_inception.network.build import inference_model
from keras_inception.network.endpoints import feature_extractor, pooled_endpoint
from keras_inception.runtimes.keras_model import image_shape, network_input
from keras_inception.wording import counted

PREPROCESSING_FILE = "preprocessing.json"
SCHEMA_VERSION = 1


def export_saved_model(
    model: keras.Model,
    folder: Path,
    *,
    samples: np.ndarray,
    labels: Sequence[str] | None = None,
    top: int = 5,
    features: Sequence[str] | None = None,
    documents: Mapping[str, str] = MappingProxyType({}),
    precision: ComputeDtype = "float32",
    merge: bool = False,
) -> Agreement:
    """Write a SavedModel with three signatures, and check it against the Python model.

    `serving_default` takes `images`, N strings, each the bytes of a JPEG, PNG, GIF, BMP or WebP. It
    returns `classes` (names), `indices` and `scores`, N x top, best first, and `valid`. An image
    that cannot be decoded does not fail the others: its `valid` is false, its classes are "", its
    indices -1 and its scores 0. `images` takes `pixels`, float32 N x h x w x C in [0, 255], RGB
    or grey, and returns `scores`, N x classes. `features` takes `pixels` and returns the chosen
    endpoints under their names. The pixel convention is inside the graph.

    Args:
        model: a model of this package with a fixed input size, whose input names its pixel
            convention. Auxiliary classifiers are left out.
        folder: of the SavedModel; must not exist.
        samples: real images, uint8 N x h x w x C of the network's size, on which the SavedModel
            must give the Python model's scores: to 1e-5 in float32; in bfloat16 the same first
            class on 99% of them.
        labels: the names of the classes; default their numbers. They become an asset.
        top: classes that `serving_default` returns; at most as many as there are.
        features: endpoints for the signature of that name; default the one before the classifier.
        documents: texts to lie beside the graph by file name, such as {"spec.json": ...}.
        precision: "bfloat16" is for CPUs with AVX512_BF16 or AMX; slow elsewhere.
        merge: apply `merge_parallel_convs`; the branches it merges are then no endpoints.

    Returns:
        How closely the SavedModel agrees with the Python model on the samples.

    Raises:
        ValueError: another backend than TensorFlow, the folder exists, labels or samples do not
            fit the model, an unknown endpoint, or scores that differ: nothing is left then.
    """
    require_tensorflow("write a SavedModel")
    if folder.exists():
        raise ValueError(f"Expected a new folder for the SavedModel. Received: {str(folder)!r}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with aside(folder) as beside:
        write_saved_model(
            merge_parallel_convs(model) if merge else model,
            beside,
            samples=samples,
            labels=labels,
            top=top,
            features=features,
            documents=documents,
            precision=precision,
        )
        return require_same_answers(model, beside, samples, labels, precision)


def write_saved_model(
    model: keras.Model,
    folder: Path,
    *,
    samples: np.ndarray,
    labels: Sequence[str] | None = None,
    top: int = 5,
    features: Sequence[str] | None = None,
    documents: Mapping[str, str] = MappingProxyType({}),
    precision: ComputeDtype = "float32",
) -> None:
    """Write what `export_saved_model` does, unchecked; the arguments are the same."""
    model = inference_model(model)
    _check_fit(model, samples, labels)
    names = _class_names(model, labels)
    with temporary_folder() as assets:
        labels_file = assets / LABELS_FILE
        write_labels(labels_file, names)
        network = fold_batch_norm(model, precision)
        serving = _Serving(network, labels_file, min(top, len(names)), features)
        # Of functions that the root holds, TensorFlow would write the network a second time.
        root = tf.Module()
        root.labels = serving.labels
        tf.saved_model.save(root, str(folder), signatures=serving.signatures())
    for name, text in {PREPROCESSING_FILE: preprocessing_json(model), **documents}.items():
        (folder / name).write_text(text, encoding="utf-8")
    write_warmup(folder, samples[0])


def preprocessing_json(model: keras.Model) -> str:
    """What happens to an image on its way into the network, as JSON."""
    height, width, channels = image_shape(model)
    convention = model_preprocessing(model)
    rule = CONVENTIONS[convention]
    steps = {
        "schema_version": SCHEMA_VERSION,
        "formats": ["JPEG", "PNG", "GIF (first frame)", "BMP", "WebP"],
        "most_pixels": max_pixels(),
        "exif_orientation": "applied",
        "transparency": "composited on white",
        "channels": "RGB" if channels == 3 else "grey, ITU-R 601",
        "crop": "the largest centred part of the shape height x width",
        "resize": "triangle filter, antialiased, rounded to whole levels",
        "height": height,
        "width": width,
        "pixels": convention,
        "order": "BGR" if rule.reverse_channels else "as decoded",
        "scale": list(rule.scale[:channels]),
        "offset": list(rule.offset[:channels]),
        "formula": "network input = pixel in [0, 255] * scale - offset, channel by channel",
    }
    return json.dumps(steps, indent=2) + "\n"


class _Serving:
    """The functions behind the signatures; they share one network, whose weights are constants."""

    def __init__(
        self, network: keras.Model, labels_file: Path, top: int, features: Sequence[str] | None
    ) -> None:
        self._shape = image_shape(network)
        self._top = top
        self._features = tuple(features or [pooled_endpoint(network)])
        self._normalized = functools.partial(network_input, network)
        extractor = feature_extractor(network, self._features)
        outputs = {
            "scores": network.output,
            **{f"feature {k}": v for k, v in extractor.output.items()},
        }
        self._network = constant_function(keras.Model(network.inputs, outputs))
        self.labels = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(labels_file),
                key_dtype=tf.int64,
                key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
                value_dtype=tf.string,
                value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            default_value="",
        )

    def signatures(self) -> dict[str, Any]:
        """The functions by the names of their signatures."""
        images = tf.TensorSpec((None,), tf.string, name="images")
        pixels = tf.TensorSpec((None, *self._shape), tf.float32, name="pixels")
        return {
            "serving_default": self._classify.get_concrete_function(images),
            "images": self._score.get_concrete_function(pixels),
            "features": self._extract.get_concrete_function(pixels),
        }

    @tf.function(autograph=False)
    def _classify(self, images: Any) -> dict[str, Any]:
        height, width, channels = self._shape
        pixels, valid = decode_images(images, height=height, width=width, channels=channels)
        scores, indices = tf.math.top_k(self._outputs(pixels)["scores"], self._top)
        indices = tf.where(valid[:, None], indices, -1)  # no label has the index -1
        return {
            "classes": self.labels.lookup(tf.cast(indices, tf.int64)),
            "indices": indices,
            "scores": tf.where(valid[:, None], scores, 0.0),
            "valid": valid,
        }

    @tf.function(autograph=False)
    def _score(self, pixels: Any) -> dict[str, Any]:
        return {"scores": self._outputs(pixels)["scores"]}

    @tf.function(autograph=False)
    def _extract(self, pixels: Any) -> dict[str, Any]:
        found = self._outputs(pixels)
        return {name: tf.cast(found[f"feature {name}"], tf.float32) for name in self._features}

    def _outputs(self, pixels: Any) -> Any:
        """What a signature does not use, TensorFlow does not compute.

        TensorFlow's convolutions fail on an empty batch: the network then sees one black image.
        """
        count = tf.shape(pixels)[0]
        shown = tf.cond(count > 0, lambda: pixels, lambda: tf.zeros((1, *self._shape)))
        outputs = self._network(self._normalized(tf.ensure_shape(shown, (None, *self._shape))))
        return {name: output[:count] for name, output in outputs.items()}


def constant_function(network: keras.Model) -> Any:
    """A tf.function of the network whose weights are constants; it has no variables.

    TensorFlow lays out a constant kernel for the CPU once, a variable's at every call.
    """
    trainable = [variable.numpy() for variable in network.trainable_variables]
    fixed = [variable.numpy() for variable in network.non_trainable_variables]

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec((None, *network.input_shape[1:]), tf.float32)],
    )
    def function(pixels: Any) -> Any:
        outputs, _ = network.stateless_call(
            [tf.constant(value) for value in trainable],
            [tf.constant(value) for value in fixed],
            pixels,
            training=False,
        )
        return outputs

    return function


def _check_fit(model: keras.Model, samples: np.ndarray, labels: Sequence[str] | None) -> None:
    model_preprocessing(model)
    shape, classes = image_shape(model), model.output_shape[-1]
    if None in shape or shape[2] not in (1, 3):
        raise ValueError(
            "Expected a model of a fixed input size and 1 or 3 channels: the graph resizes images "
            f"to it. Received: input shape {shape}"
        )
    if samples.shape[1:] != shape or samples.dtype != np.uint8 or not len(samples):
        raise ValueError(
            f"Expected samples of dtype uint8 and shape N x {' x '.join(map(str, shape))}, real "
            "images on which the export is checked. Received: "
            f"shape={samples.shape}, dtype={samples.dtype}"
        )
    if labels is not None and len(labels) != classes:
        raise ValueError(
            f"Expected {counted(classes, 'label')}, one for each class. Received: {len(labels)}"
        )
    require_single_lines(labels or ())


def _class_names(model: keras.Model, labels: Sequence[str] | None) -> Sequence[str]:
    return [str(index) for index in range(model.output_shape[-1])] if labels is None else labels


def require_same_answers(
    model: keras.Model,
    folder: Path,
    samples: np.ndarray,
    labels: Sequence[str] | None,
    precision: ComputeDtype,
) -> Agreement:
    """Compare both signatures that answer with the model: on pixels, and on PNG files of them.

    Raises:
        ValueError: they differ.
    """
    model = inference_model(model)
    names = _class_names(model, labels)
    expected = model.predict(network_input(model, samples), batch_size=32, verbose=0)
    signatures = tf.saved_model.load(str(folder)).signatures
    batches = [samples[start : start + 32] for start in range(0, len(samples), 32)]
    pixels = [
        signatures["images"](pixels=tf.constant(batch, tf.float32))["scores"] for batch in batches
    ]
    found = agreement(expected, np.concatenate(pixels))
    require_agreement(found, "The SavedModel's signature `images`", precision)
    answers = [
        signatures["serving_default"](images=tf.stack([tf.io.encode_png(image) for image in batch]))
        for batch in batches
    ]
    indices, scores, classes = (
        np.concatenate([answer[key] for answer in answers])
        for key in ("indices", "scores", "classes")
    )
    served = np.zeros_like(expected)
    np.put_along_axis(served, indices, scores, axis=1)
    answered = np.where(served > 0, expected, 0)
    require_agreement(
        agreement(answered, served), "The SavedModel's signature `serving_default`", precision
    )
    if [name.decode() for name in classes[:, 0]] != [names[index] for index in indices[:, 0]]:
        raise ValueError("Expected the SavedModel's class names in the order of its labels.")
    return found
