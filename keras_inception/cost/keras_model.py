"""Multiply-adds of any functional Keras model, layer by layer (keras issue 18391 asks for them).

Uses the convention of `cost.layers`: multiply-adds of convolutions and dense layers, for one image,
without biases. Layers that cannot be counted are returned, never dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras import layers

from keras_inception.keras_compat import calls, name_in_keras_ops

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
# This package's own layers, which are free too.
_OWN = ("keras_inception>LocalResponseNormalization", "keras_inception>ReverseChannels")
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)

# Layers without multiply-adds in this convention. Normalization is folded at inference.
_FREE = (
    *(layers.InputLayer, layers.Identity, layers.Activation, layers.ReLU, layers.LeakyReLU),
    *(layers.PReLU, layers.ELU, layers.Softmax, layers.Dropout, layers.SpatialDropout1D),
    *(layers.SpatialDropout2D, layers.SpatialDropout3D, layers.GaussianNoise),
    *(layers.GaussianDropout, layers.LayerNormalization),
    *(layers.GroupNormalization, layers.RMSNormalization, layers.UnitNormalization),
    *(layers.Normalization, layers.Rescaling),
    *(layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.AdaptiveAveragePooling2D, layers.AdaptiveMaxPooling2D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
    *(layers.GlobalAveragePooling3D, layers.Add, layers.Subtract, layers.Multiply),
    *(layers.Average, layers.Maximum, layers.Minimum, layers.Concatenate, layers.Embedding),
)
# `keras.ops` calls on a model's tensors that only add, compare or move elements.
_FREE_OPS = (
    *("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Pad", "Concatenate", "Stack"),
    *("Squeeze", "ExpandDims", "Reshape", "Transpose", "Flip", "GetItem", "Relu", "Cast"),
)


class CountedLayer(NamedTuple):
    """One call of a layer; a shared layer appears once for each call."""

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    macs: int


class UncountedLayer(NamedTuple):
    """A call whose multiply-adds are unknown, and why."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class ModelCost:
    """The result of `model_cost`. `macs` is complete only if `uncounted` is empty."""

    layers: tuple[CountedLayer, ...]
    uncounted: tuple[UncountedLayer, ...]

    @property
    def macs(self) -> int:
        """Return the multiply-adds of all counted calls."""
        return sum(layer.macs for layer in self.layers)


def model_cost(
    model: keras.Model, *, input_shape: tuple[int | None, ...] | None = None
) -> ModelCost:
    """Count the multiply-adds of a functional or Sequential model for one image.

    Args:
        model: built.
        input_shape: without the batch, for a model of one input of unknown size; default the
            model's own.

    Returns:
        Every call with its multiply-adds, and every call that could not be counted: custom
        layers, recurrent and attention layers, most `keras.ops` calls, unknown sizes. A layer with
        LoRA has the product of its two factors beside its own.

    Raises:
        ValueError: a subclassed model, whose calls cannot be listed, or an `input_shape` that the
            model does not take.
    """
    if isinstance(model, keras.Sequential) and model.built:
        model = _functional(model)
    if not isinstance(model, keras.Function):
        raise ValueError(
            "Expected a functional or Sequential model that is built. Received: a model whose "
            "layer calls are not recorded. Build it by `keras.Model(inputs, outputs)`."
        )
    counted: list[CountedLayer] = []
    uncounted: list[UncountedLayer] = []
    inputs = None if input_shape is None else [_input(model, input_shape)]
    _walk(model, inputs, "", counted, uncounted)
    return ModelCost(tuple(counted), tuple(uncounted))


def _input(model: keras.Function, shape: tuple[int | None, ...]) -> Any:
    """A Keras tensor of the size that the model is counted for."""
    own = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    fits = len(own) == 1 and len(own[0]) == len(shape)
    if not fits or any(a is not None and a != b for a, b in zip(own[0], shape, strict=True)):
        raise ValueError(
            "Expected `input_shape` without the batch, of a model with one input. Received: "
            f"input_shape={shape!r}, inputs of shape {own}"
        )
    return keras.KerasTensor((None, *shape), model.inputs[0].dtype, name="model_cost_input")


def _walk(
    model: keras.Function,
    given: list[Any] | None,
    prefix: str,
    counted: list[CountedLayer],
    uncounted: list[UncountedLayer],
) -> None:
    for operation, inputs, outputs in calls(model, given):
        name, kind = prefix + operation.name, type(operation).__name__
        if isinstance(operation, keras.Function | keras.Sequential):
            inner = None if given is None else inputs
            _walk(_functional(operation), inner, f"{name}/", counted, uncounted)
            continue
        input_shape = tuple(inputs[0].shape) if inputs else ()
        output_shape = tuple(outputs[0].shape)
        macs, reason = _macs(operation, input_shape, output_shape)
        if macs is None:
            uncounted.append(UncountedLayer(name, kind, reason))
        else:
            counted.append(CountedLayer(name, kind, output_shape, macs + _lora_macs(operation)))


def _functional(model: keras.Function | keras.Sequential) -> keras.Function:
    is_functional = isinstance(model, keras.Function)
    return model if is_functional else keras.Function(model.inputs, model.outputs)


def _macs(
    operation: Any, input_shape: tuple[int | None, ...], output_shape: tuple[int | None, ...]
) -> tuple[int | None, str]:
    """Return the multiply-adds of one call, or None and the reason why they are unknown."""
    is_free = type(operation) in _FREE or name_in_keras_ops(operation) in _FREE_OPS
    if is_free or _is_own(operation):
        return 0, ""
    try:
        # Each weight of a kernel is used once per position: of the output, or, for a transposed
        # convolution, of the input.
        if type(operation) in (*_CONVOLUTIONS, *_DEPTHWISE):
            return _positions(operation, output_shape) * math.prod(operation.kernel.shape), ""
        if type(operation) in _TRANSPOSED:
            return _positions(operation, input_shape) * math.prod(operation.kernel.shape), ""
        if type(operation) in _SEPARABLE:
            kernels = (operation.depthwise_kernel, operation.pointwise_kernel)
            weights = sum(math.prod(kernel.shape) for kernel in kernels)
            return _positions(operation, output_shape) * weights, ""
        if type(operation) is layers.Dense:
            return math.prod(output_shape[1:-1]) * math.prod(operation.kernel.shape), ""  # type: ignore[arg-type]
        if type(operation) is layers.EinsumDense:
            return _einsum_macs(operation, input_shape), ""
    except TypeError:
        return None, f"unknown sizes: input {input_shape}, output {output_shape}"
    return None, "no rule for this kind of layer"


def _lora_macs(operation: Any) -> int:
    """The product of the two factors that a layer with `enable_lora` adds to its kernel."""
    if not getattr(operation, "lora_enabled", False):
        return 0
    name = "embeddings" if type(operation) is layers.Embedding else "kernel"
    first, second = (getattr(operation, f"lora_{name}_{letter}") for letter in "ab")
    return math.prod(first.shape) * second.shape[-1]


def _is_own(operation: Any) -> bool:
    """Return whether it is a layer of `network`, which this module may not import."""
    return (
        isinstance(operation, layers.BatchNormalization | layers.MaxPooling2D)
        or keras.saving.get_registered_name(type(operation)) in _OWN
    )


def _positions(layer: Any, shape: tuple[int | None, ...]) -> int:
    spatial = shape[2:] if layer.data_format == "channels_first" else shape[1:-1]
    return math.prod(spatial)  # type: ignore[arg-type]


def _einsum_macs(layer: Any, input_shape: tuple[int | None, ...]) -> int:
    """Multiply the sizes of all indices of the equation except the batch."""
    inputs, kernel = layer.equation.replace(" ", "").split("->")[0].split(",")
    hidden = len(input_shape) - len(inputs) + len("...")
    inputs = inputs.replace("...", "0123456789"[:hidden])
    sizes = dict(zip(inputs, input_shape, strict=True)) | dict(
        zip(kernel, layer.kernel.shape, strict=True)
    )
    del sizes[inputs[0]]
    return math.prod(sizes.values())
