"""Networks for inference: batch normalization folded, one dtype, parallel convolutions merged.

Keras alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_inception.network.build import inference_model
from keras_inception.network.registered_layers import ReverseChannels

ComputeDtype = Literal["float32", "bfloat16"]


def require_tensorflow(what: str) -> None:
    """Refuse another backend: graphs are traced from TensorFlow's operations.

    Raises:
        ValueError: it is another one. `what` completes "Expected ... to".
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Expected KERAS_BACKEND=tensorflow to {what}; a .keras file of any backend loads "
            f"there. Received: {keras.backend.backend()!r}"
        )


def fold_batch_norm(model: keras.Model, precision: ComputeDtype = "float32") -> keras.Model:
    """Return an equivalent network for inference: the same endpoints, no batch normalization.

    y = gamma (conv(x) - mean) / sqrt(variance + epsilon) + beta is a convolution whose kernel is
    scaled by s = gamma / sqrt(variance + epsilon), with the bias beta - mean s. Auxiliary
    classifiers are left out, and dropout is inactive.

    Args:
        model: a functional model of this package, of any dtype policy and data format.
        precision: of weights and activations. Layers that compute in float32 under every policy
            (LRN's sums, the final softmax) still do.

    Returns:
        A model with weights of its own. Its scores equal the model's up to rounding.
    """
    model = inference_model(model)
    norms = _foldable_norms(model)

    def inference_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer in norms.values():
            return keras.layers.Identity(dtype=precision, name=layer.name)
        config = layer.get_config()
        if isinstance(layer, keras.layers.Normalization) and config["mean"] is not None:
            return _rescaling(config)
        if isinstance(layer, keras.layers.Layer) and not isinstance(layer, _FLOAT32):
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


def _rescaling(config: Mapping[str, Any]) -> keras.layers.Rescaling:
    """A Normalization of known mean and variance; its tensors would be inputs of an ONNX graph."""
    mean, variance = (np.asarray(config[name], np.float64) for name in ("mean", "variance"))
    scale = 1 / np.sqrt(variance)
    return keras.layers.Rescaling(
        scale.tolist(), (-mean * scale).tolist(), dtype="float32", name=config["name"]
    )


# Layers that keep their dtype: the scores, and pixels, whose levels half precision loses.
_FLOAT32 = (
    *(keras.layers.InputLayer, keras.layers.Activation),
    *(keras.layers.Normalization, ReverseChannels),
)


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
    """Call an operation; Identity, which replaces batch normalization, takes no mask."""
    if isinstance(operation, keras.layers.Identity):
        kwargs.pop("mask", None)
    return operation(*args, **kwargs)


def merge_parallel_convs(model: keras.Model) -> keras.Model:
    """Return an equivalent network for inference, folded, with parallel convolutions merged.

    A concatenation of nothing but convolutions of one tensor becomes one convolution of the largest
    kernel; the smaller kernels are padded with zeros. That is fewer layers for more multiply-adds:
    faster where the overhead of each layer dominates (small images, few filters;
    `docs/results-small-images.md`), slower elsewhere. Branches with a reduction or a pool are not
    merged. The endpoint of the concatenation remains, the endpoints of its branches do not.

    Args:
        model: a functional model of this package, of any dtype policy and data format.

    Returns:
        A float32 model with weights of its own. Its scores equal the model's up to rounding.
    """
    network = fold_batch_norm(model)
    makers = {id(layer.output): layer for layer in network.operations}
    pixels = keras.Input(batch_shape=network.input.shape, name=makers[id(network.input)].name)
    made = {id(network.input): pixels}

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        branches = _parallel_convolutions(operation, makers)
        if branches:
            inputs = made[id(branches[0][0].input)]
            outputs = _one_convolution(operation, branches, inputs)
        elif isinstance(operation, keras.layers.Layer):
            copy = type(operation).from_config(operation.get_config())
            outputs = _call_without_mask(copy, *args, **kwargs)
            copy.set_weights(operation.get_weights())
        else:
            outputs = operation(*args, **kwargs)
        made[id(operation.output)] = outputs
        return outputs

    # Branches that are merged are copied too, and left out with what leads to no output.
    return keras.models.clone_model(
        network,
        input_tensors=pixels,
        clone_function=lambda operation: operation,
        call_function=call,
    )


Branch = tuple[keras.layers.Conv2D, keras.layers.Layer | None]


def _parallel_convolutions(
    layer: keras.layers.Layer, makers: Mapping[int, keras.layers.Layer]
) -> list[Branch]:
    """The convolutions, with activations, that a concatenation joins; none if it joins others."""
    if not isinstance(layer, keras.layers.Concatenate):
        return []
    branches = [_convolution_before(tensor, makers) for tensor in layer.input]
    convolutions = [convolution for convolution, _ in branches]
    if not all(map(_can_merge, convolutions)):
        return []
    channels_last = convolutions[0].data_format == "channels_last"
    same = (
        len({id(convolution.input) for convolution in convolutions}) == 1
        and layer.axis % 4 == (3 if channels_last else 1)
        and len({_kind(activation) for _, activation in branches}) == 1
    )
    return branches if same else []


def _convolution_before(tensor: Any, makers: Mapping[int, keras.layers.Layer]) -> Branch:
    """The layer that a tensor comes from, and the ReLU behind it if there is one."""
    layer, activation = makers[id(tensor)], None
    while isinstance(layer, keras.layers.Identity) or (
        isinstance(layer, keras.layers.ReLU) and activation is None
    ):
        if isinstance(layer, keras.layers.ReLU):
            activation = layer
        layer = makers[id(layer.input)]
    return layer, activation


def _kind(activation: keras.layers.Layer | None) -> str:
    if activation is None:
        return ""
    return str({k: v for k, v in activation.get_config().items() if k != "name"})


def _can_merge(layer: keras.layers.Layer) -> bool:
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.activation is keras.activations.linear
        and layer.strides == layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.padding == "same"
        and all(size % 2 for size in layer.kernel_size)
    )


def _one_convolution(
    concatenation: keras.layers.Layer, branches: Sequence[Branch], inputs: Any
) -> Any:
    convolutions = [convolution for convolution, _ in branches]
    activation = branches[0][1]
    sides = [max(c.kernel_size[axis] for c in convolutions) for axis in (0, 1)]
    name = concatenation.name if activation is None else f"{concatenation.name}_conv"
    convolution = keras.layers.Conv2D(
        sum(c.filters for c in convolutions),
        sides,
        padding="same",
        data_format=convolutions[0].data_format,
        dtype=convolutions[0].dtype_policy,
        name=name,
    )
    outputs = convolution(inputs)
    kernels, biases = zip(*(_kernel_and_bias(c, sides) for c in convolutions), strict=True)
    convolution.set_weights([np.concatenate(kernels, axis=-1), np.concatenate(biases)])
    if activation is None:
        return outputs
    config = activation.get_config() | {"name": concatenation.name}
    return type(activation).from_config(config)(outputs)


def _kernel_and_bias(
    convolution: keras.layers.Conv2D, sides: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    kernel, *bias = convolution.get_weights()
    margins = [(side - own) // 2 for side, own in zip(sides, kernel.shape[:2], strict=True)]
    padded = np.pad(kernel, [(margin, margin) for margin in margins] + [(0, 0)] * 2)
    return padded, bias[0] if bias else np.zeros(kernel.shape[-1], kernel.dtype)
