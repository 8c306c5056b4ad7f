"""The network made for inference: batch normalization folded, one dtype. Keras alone."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np

from keras_inception.network import inference_model

ComputeDtype = Literal["float32", "bfloat16"]


def require_tensorflow(what: str) -> None:
    """Refuse another backend: graphs are traced from TensorFlow's operations.

    Raises:
        ValueError: it is another one; `what` tells what was to be done.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Expected KERAS_BACKEND=tensorflow to {what}; a .keras file of any backend loads "
            f"there. Received: {keras.backend.backend()!r}"
        )


def folded(model: keras.Model, precision: ComputeDtype = "float32") -> keras.Model:
    """An equivalent network for inference: the same endpoints, without batch normalization.

    y = gamma (conv(x) - mean) / sqrt(variance + epsilon) + beta is a convolution whose kernel is
    scaled by s = gamma / sqrt(variance + epsilon), with the bias beta - mean s. Auxiliary
    classifiers are left out, and dropout does nothing.

    Args:
        model: a functional model of this package, of any dtype policy and data format.
        precision: of weights and activations. Layers that compute in float32 under every policy
            (LRN's sums, the final softmax) go on to do so.

    Returns:
        A model of its own weights. Scores differ from the model's by rounding only.
    """
    model = inference_model(model)
    norms = _foldable_norms(model)

    def inference_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer in norms.values():
            return keras.layers.Identity(dtype=precision, name=layer.name)
        config = layer.get_config()
        if not isinstance(layer, keras.layers.InputLayer | keras.layers.Activation):
            config["dtype"] = precision
        if layer.name in norms:
            config["use_bias"] = True
        return type(layer).from_config(config)

    clone = keras.models.clone_model(
        model, clone_function=inference_layer, call_function=_call_without_mask
    )
    for layer in model.layers:
        if layer.weights and layer not in norms.values():
            clone.get_layer(layer.name).set_weights(_folded_weights(layer, norms.get(layer.name)))
    return clone


def _foldable_norms(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """Convolutions, by name, whose only reader is a batch normalization."""
    readers: dict[int, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        for tensor in keras.tree.flatten(layer.input):
            readers.setdefault(id(tensor), []).append(layer)
    outputs = {id(tensor) for tensor in model.outputs}
    norms = {}
    for layer in model.layers:
        after = readers.get(id(layer.output), [])
        if (
            isinstance(layer, keras.layers.Conv2D)
            and layer.activation is keras.activations.linear
            and id(layer.output) not in outputs
            and len(after) == 1
            and isinstance(after[0], keras.layers.BatchNormalization)
        ):
            norms[layer.name] = after[0]
    return norms


def _folded_weights(
    layer: keras.layers.Layer, norm: keras.layers.BatchNormalization | None
) -> list[np.ndarray]:
    weights = [np.asarray(weight, dtype=np.float32) for weight in layer.get_weights()]
    if norm is None:
        return weights
    values = {variable.name: np.float64(variable.numpy()) for variable in norm.weights}
    scale = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + norm.epsilon)
    bias = weights[1] if len(weights) > 1 else 0.0
    shift = values.get("beta", 0.0) + (bias - values["moving_mean"]) * scale
    return [weights[0] * scale, shift]


def _call_without_mask(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Identity, in the place of batch normalization, takes no mask."""
    if isinstance(operation, keras.layers.Identity):
        kwargs.pop("mask", None)
    return operation(*args, **kwargs)
