"""`GoogLeNet(...)` with the signature of keras.applications, from spec, network and weights."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_inception.network.build import Pooling, build_network
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import VARIANTS, variant_spec
from keras_inception.weights.assign import assign, without_absent_heads
from keras_inception.weights.cache import imagenet_weights
from keras_inception.weights.manifest import imagenet_entry
from keras_inception.weights.readers import pixel_conventions, read_source
from keras_inception.weights.source import Source, converted
from keras_inception.wording import counted


def GoogLeNet(  # noqa: N802 - a function named like a class, as in keras.applications
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: Pooling | None = None,
    classes: int | None = None,
    classifier_activation: str | None = "softmax",
    name: str = "googlenet",
    *,
    variant: str | None = None,
    spec: NetworkSpec | None = None,
    auxiliary: bool = False,
    include_preprocessing: bool = False,
) -> keras.Model:
    """GoogLeNet and the Inception v1 family.

    Source: Going Deeper with Convolutions (arXiv 1409.4842).

    Args:
        include_top: end with the classifier (N x classes). Otherwise with the last module's grid,
            N x h x w x C (N x C x h x w for channels first), or N x C with `pooling`.
        weights: "imagenet", None for new weights, or the path of a file. "imagenet" is the
            variant's own public set (`keras-inception weights list`), downloaded and converted at
            the first use. A file may be `.weights.h5` or `.keras` of the same network, or a
            public one: `.caffemodel`, `.onnx`, `.pth`, `.safetensors`, `.pb` of inception5h, or
            a checkpoint of TF-Slim.
        input_tensor: a Keras tensor to start from.
        input_shape: (height, width, channels), in the order of the data format. Default the
            spec's own with the top, and any size without it. Without pretrained weights any
            size from the network's `spec.min_size` (31 for the paper's, 15 for torchvision's, 1
            for TF-Slim's) and any number of channels is possible. A height and width of None take
            images of any size, with the top too, but not with auxiliary classifiers.
        pooling: None, "avg" or "max", only without the top.
        classes: number of classes. Default the spec's: 1000, but 1008 for "inception5h", and 10
            for "medium", "small", "tiny" and "nano". 1001 with "slim" keeps the background of
            its weights as class 0.
        classifier_activation: activation of the classifier; None returns logits.
        name: of the model.
        variant: one of `keras_inception.VARIANTS`; default the network of a public file, and
            "paper" otherwise.
        spec: your own network, instead of `variant`.
        auxiliary: also return the auxiliary classifiers: a dict of outputs "main", "aux_1",
            "aux_2". They are used only in training.
        include_preprocessing: the model takes RGB pixels in [0, 255]; the pixel convention of its
            weights is part of the model, saved and exported with it.

    Returns:
        A functional `keras.Model`. Without `include_preprocessing` it expects float RGB pixels in
        the convention of its spec: pass those in [0, 255] through
        `preprocess_input(x, model=model)`.

    Raises:
        ValueError: arguments that exclude each other, an unknown variant, an input too small,
            classes or channels that the weights do not have, or a file that is damaged,
            another network's, or of weights for another pixel convention. Nothing is
            half-assigned.
        OSError: if the public weights are not in the cache and cannot be downloaded.
    """
    if not isinstance(include_top, bool):
        raise ValueError(
            f"Expected include_top True or False. Received: {include_top!r}. Name a variant by "
            "`variant`."
        )
    network, source = _network_and_file(weights, variant, spec, classes)
    if classes is not None:
        network = replace(network, classes=classes)
    shape = _input_shape(network, input_shape, input_tensor, include_top)
    network = replace(network, input_shape=shape)
    if weights == "imagenet":
        source = _imagenet(network, spec, include_top, auxiliary)
    model = build_network(
        network,
        include_top=include_top,
        auxiliary=auxiliary,
        pooling=pooling,
        classifier_activation=classifier_activation,
        input_tensor=input_tensor,
        include_preprocessing=include_preprocessing,
        name=name,
    )
    if source is not None:
        _load(model, source, network)
    return model


def _network_and_file(
    weights: str | os.PathLike[str] | None,
    variant: str | None,
    spec: NetworkSpec | None,
    classes: int | None,
) -> tuple[NetworkSpec, Source | None]:
    """Return the network to build, and the file to load if `weights` is a path."""
    network = None if variant is None and spec is None else _network_spec(variant, spec)
    source = None
    if weights is not None and weights != "imagenet":
        source = read_source(Path(weights), network, classes)
        network = network or source.spec
    network = network or _network_spec(None, None)
    if source is not None:
        _require_convention(source.path, network)
    return network, source


def _require_convention(path: Path, network: NetworkSpec) -> None:
    """Refuse weights that were trained on pixels in another convention than the network's.

    Raises:
        ValueError: naming both.
    """
    conventions = pixel_conventions(path)
    if conventions and network.pixels not in conventions:
        raise ValueError(
            f"Expected weights for pixels in the convention {network.pixels!r} of "
            f"{network.name!r}. Received: {str(path)!r}, whose convention is "
            f"{' or '.join(map(repr, conventions))}. Give the variant of the file, or "
            f"spec=dataclasses.replace(spec, pixels={conventions[0]!r})."
        )


def _network_spec(variant: str | None, spec: NetworkSpec | None) -> NetworkSpec:
    if spec is None:
        return variant_spec("paper" if variant is None else variant)
    if variant is not None:
        raise ValueError(
            "Expected `variant` or `spec`, not both. Received: "
            f"variant={variant!r}, spec={spec.name!r}. Leave one out."
        )
    if not isinstance(spec, NetworkSpec):
        raise ValueError(
            "Expected `spec` to be a NetworkSpec (NetworkSpec.from_json reads one from a file). "
            f"Received: {type(spec).__name__}"
        )
    return spec


def _input_shape(
    network: NetworkSpec, input_shape: Any, input_tensor: Any, include_top: bool
) -> tuple[int | None, int | None, int]:
    """Return the input shape with channels last, in both data formats."""
    first = keras.config.image_data_format() == "channels_first"
    if input_tensor is not None:
        if not keras.utils.is_keras_tensor(input_tensor):
            raise ValueError(
                "Expected `input_tensor` to be a Keras tensor, such as keras.Input(...) or a "
                f"layer's output. Received: {type(input_tensor).__name__}"
            )
        tensor_shape = tuple(input_tensor.shape[1:])
        if input_shape is not None and tuple(input_shape) != tensor_shape:
            raise ValueError(
                "Expected `input_shape` and `input_tensor` to agree. Received: "
                f"input_shape={tuple(input_shape)}, input_tensor of shape {tensor_shape}"
            )
        input_shape = tensor_shape
    if input_shape is None:
        own = network.input_shape
        return own if include_top else (None, None, own[2])
    if not isinstance(input_shape, tuple | list) or len(input_shape) != 3:
        raise ValueError(
            "Expected `input_shape` of three numbers, without the batch. "
            f"Received: input_shape={input_shape!r}"
        )
    return (*input_shape[1:], input_shape[0]) if first else tuple(input_shape)


def _imagenet(
    network: NetworkSpec, spec: NetworkSpec | None, include_top: bool, auxiliary: bool
) -> Source:
    """Return the converted file of the variant's own set, downloaded at the first use."""
    if spec is not None:
        raise ValueError(
            "Expected weights=None or a file for a spec of your own: ImageNet weights exist for "
            f'variants only. Received: weights="imagenet", spec={spec.name!r}'
        )
    entry = imagenet_entry(network.name)
    possible = sorted({VARIANTS[network.name].classes, entry.classes})
    if include_top and network.classes not in possible:
        raise ValueError(
            f"Expected classes among {possible} with the ImageNet weights of "
            f"{network.name!r}. Received: classes={network.classes}. Use include_top=False and "
            "a classifier of your own, or weights=None."
        )
    channels = VARIANTS[network.name].input_shape[2]
    if network.input_shape[2] != channels:
        raise ValueError(
            f"Expected {counted(channels, 'channel')} with ImageNet weights. Received: "
            f"input_shape={network.input_shape} (height, width, channels). Use weights=None."
        )
    if auxiliary and network.input_shape[:2] != VARIANTS[network.name].input_shape[:2]:
        raise ValueError(
            "Expected the input of 224 x 224 pixels with auxiliary=True and ImageNet weights: the "
            "auxiliary dense kernels fit no other size. Received: "
            f"input_shape={network.input_shape}. Use auxiliary=False, or weights=None."
        )
    path = imagenet_weights(entry, network.classes if include_top else None, _with_all_heads)
    return read_source(path, network)


def _with_all_heads(spec: NetworkSpec) -> keras.Model:
    return build_network(spec, auxiliary=bool(spec.aux))


def _load(model: keras.Model, source: Source, network: NetworkSpec) -> None:
    try:
        assign(model, without_absent_heads(converted(source), model, network))
    except ValueError as error:
        raise ValueError(
            f"Expected the weights of {model.name!r} with these arguments. Received: "
            f"{str(source.path)!r}, which does not hold them. Give the variant or spec, classes, "
            "input_shape, include_top and auxiliary that fit the file; include_top=False loads "
            f"it without its classifiers. {error}"
        ) from error
