"""Endpoints by name: listing, feature extraction, freezing."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_inception.network.endpoint_names import endpoint_name
from keras_inception.network.nested import inner_network
from keras_inception.network.registered_layers import ReverseChannels

_BEFORE_THE_NETWORK = (
    *(keras.layers.InputLayer, keras.layers.Normalization, keras.layers.Rescaling),
    ReverseChannels,
)


def endpoints(model: keras.Model) -> tuple[str, ...]:
    """List all endpoints: stem units, pools, modules ("3a"), branches ("3a_3x3"), head."""
    inner = {layer.name + suffix for layer in model.layers for suffix in _INNER}
    return tuple(
        layer.name
        for layer in model.layers
        if not isinstance(layer, _BEFORE_THE_NETWORK) and layer.name not in inner
    )


def pooled_endpoint(model: keras.Model) -> str:
    """Return the endpoint before the classifier: `avg_pool`, or what stands in its place."""
    names = endpoints(model)
    return "avg_pool" if "avg_pool" in names else names[-2]


# Suffixes of layers inside a unit; its last layer has the unit's name and is the endpoint.
_INNER = ("_conv", "_bn", "_pad", "_logits", "_flatten", "_dropout")


def feature_extractor(model: keras.Model, names: Sequence[str]) -> keras.Model:
    """Return a model with the same weights that outputs the chosen endpoints.

    Args:
        model: a network of this package, built or loaded.
        names: the paper's names ("3a", "3a_3x3_reduce", "pool3"), TF-Slim's ("Mixed_3b",
            "InceptionV1/Mixed_3b/Branch_1", "Conv2d_1a_7x7") or torchvision's ("inception3a",
            "inception3a.branch2.1", "maxpool3"). "conv2" is the paper's 3x3 convolution, which
            torchvision calls conv3; "conv2.relu" is torchvision's conv2, the paper's
            conv2_reduce.

    Returns:
        A model whose output is a dict {name as given: N x h x w x C}.

    Raises:
        ValueError: if no endpoint is given, or the model does not have one.
    """
    if isinstance(names, str) or not names:
        raise ValueError(
            f'Expected a list of endpoints, such as ["3a", "4e"]. Received: names={names!r}'
        )
    known = {layer.name for layer in model.layers}
    outputs = {}
    for name in names:
        own = endpoint_name(name, known)
        if own not in known:
            raise ValueError(
                f"Expected endpoints among {', '.join(endpoints(model))}, or TF-Slim's or "
                f"torchvision's names of them. Received: {name!r}"
            )
        outputs[name] = model.get_layer(own).output
    return keras.Model(model.input, outputs, name=f"{model.name}_features")


def freeze_until(model: keras.Model, endpoint: str) -> None:
    """Freeze every layer below `endpoint`; the endpoint and all layers above stay trainable.

    A frozen BatchNormalization also runs in inference mode and keeps its statistics (Keras does
    this for layers whose `trainable` is False). Layers above the endpoint that an earlier call or
    `model.trainable = False` froze become trainable. Compile the model again afterwards.

    Args:
        model: a network of this package, or a model around one, such as
            `keras.Sequential([network, ...])`, whose other layers stay trainable.
        endpoint: first trainable endpoint, under any of its names: "4a", "Mixed_4b", "pool3".

    Raises:
        ValueError: an endpoint that the model does not have.
    """
    whole, model = model, inner_network(model) or model
    own = endpoint_name(endpoint, {layer.name for layer in model.layers})
    up_to = feature_extractor(model, [endpoint]).layers
    # A module of a single branch ends with Identity.
    is_module = isinstance(model.get_layer(own), keras.layers.Concatenate | keras.layers.Identity)
    parts = {own, *(own + suffix for suffix in _INNER)}
    below = {
        layer.name
        for layer in up_to
        if layer.name not in parts and not (is_module and layer.name.startswith(f"{own}_"))
    }
    whole.trainable = True  # a model that is itself frozen has no trainable layers
    for layer in model.layers:
        layer.trainable = layer.name not in below
