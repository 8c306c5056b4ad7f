"""Functions that apply layers to a tensor: the only module that creates layers.

Uses only Keras, so that a network runs on the TensorFlow, JAX and torch backends. The last layer of
each unit has the unit's name: `model.get_layer("3a_3x3").output` is the paper's 3x3 branch of 3a.
The weight converters depend on the layer names.

Source: arXiv 1409.4842, figures 2 and 3, Table 1.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from keras_inception.network.batch_norm import BatchNormalization
from keras_inception.network.max_pool import MaxPooling2D
from keras_inception.network.registered_layers import (
    LocalResponseNormalization,
    ReverseChannels,
    channel_axis,
)
from keras_inception.spec.network import (
    INPUT_NAME_PREFIX,
    AuxSpec,
    ConvPadding,
    ConvSpec,
    LRNSpec,
    ModuleSpec,
    NetworkSpec,
    PoolSpec,
)
from keras_inception.spec.pixels import CONVENTIONS, PREPROCESSING_PREFIX, RAW


def input_layer(spec: NetworkSpec, tensor: Any = None, *, raw: bool = False) -> Any:
    """Create the network's input; its name keeps the pixel convention in saved and exported models.

    `raw` means pixels in [0, 255], for a network with its convention inside.
    """
    shape: tuple[int | None, ...] = spec.input_shape
    if channel_axis() == 1:
        shape = (shape[2], *shape[:2])
    if tensor is None:
        name = INPUT_NAME_PREFIX + RAW if raw else spec.input_name
        return keras.Input(shape=shape, name=name)
    if tuple(tensor.shape[1:]) != shape:
        raise ValueError(
            f"Expected `input_tensor` of the spec's shape, (None, {', '.join(map(str, shape))}). "
            f"Received: shape={tuple(tensor.shape)}. Give the spec that input_shape."
        )
    return tensor


def preprocessing(x: Any, spec: NetworkSpec) -> Any:
    """Convert raw RGB pixels in [0, 255] to the spec's convention, inside the network."""
    rule = CONVENTIONS[spec.pixels]
    axis, channels = channel_axis(), spec.input_shape[2]
    if channels != 3 and not rule.channels_alike:
        raise ValueError(
            f"Expected 3 channels for the convention {spec.pixels!r}, whose channels differ. "
            f"Received: input_shape={spec.input_shape}"
        )
    if rule.reverse_channels:
        # float32, because half precision cannot represent all levels of 255.
        x = ReverseChannels(axis=axis, dtype="float32", name="reverse_channels")(x)
    # x * scale - offset, as (x - mean) / deviation.
    scales, offsets = rule.scale[:channels], rule.offset[:channels]
    return layers.Normalization(
        axis=axis,
        mean=[offset / scale for scale, offset in zip(scales, offsets, strict=True)],
        variance=[1 / scale**2 for scale in scales],
        dtype="float32",
        name=PREPROCESSING_PREFIX + spec.pixels,
    )(x)


def conv_unit(
    x: Any,
    spec: NetworkSpec,
    name: str,
    *,
    filters: int,
    kernel_size: int,
    stride: int = 1,
    padding: ConvPadding = "same",
) -> Any:
    """Apply convolution -> batch normalization (if the spec has it) -> ReLU, which has `name`."""
    if padding == "symmetric" and kernel_size > 1 and stride > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        keras_padding = "valid"
    else:
        keras_padding = "same"  # the same as symmetric padding for stride 1
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding=keras_padding,
        use_bias=spec.batch_norm is None,
        kernel_initializer=_kernel_initializer(spec),
        bias_initializer=keras.initializers.Constant(spec.bias_initial_value),
        name=f"{name}_conv",
    )(x)
    if spec.batch_norm:
        x = BatchNormalization(
            axis=channel_axis(),
            momentum=spec.batch_norm.momentum,
            epsilon=spec.batch_norm.epsilon,
            scale=spec.batch_norm.scale,
            name=f"{name}_bn",
        )(x)
    return layers.ReLU(name=name)(x)


def max_pool(x: Any, pool: PoolSpec, *, signed: bool = True) -> Any:
    """Apply a max pool with the padding of the spec; padding never affects the maximum.

    `signed`: x may be negative, as before the first ReLU.
    """
    ceil = pool.padding == "ceil"
    x, padding = _ceil_padding(x, pool, signed) if ceil else (x, pool.padding)
    return MaxPooling2D(pool.size, pool.stride, padding=padding, name=pool.name)(x)


def stem(x: Any, spec: NetworkSpec) -> Any:
    """Apply every layer before the first module."""
    signed = True  # pixels
    for layer in spec.stem:
        if isinstance(layer, ConvSpec):
            signed = False
            x = conv_unit(
                x,
                spec,
                layer.name,
                filters=layer.filters,
                kernel_size=layer.kernel_size,
                stride=layer.stride,
                padding=layer.padding,
            )
        elif isinstance(layer, PoolSpec):
            x = max_pool(x, layer, signed=signed)
        elif isinstance(layer, LRNSpec):
            x = LocalResponseNormalization(
                window_size=layer.window_size,
                alpha_per_window=layer.alpha_per_window,
                beta=layer.beta,
                bias=layer.bias,
                name=layer.name,
            )(x)
    return x


def inception_module(x: Any, spec: NetworkSpec, module: ModuleSpec) -> Any:
    """Apply figure 2a (naive) or 2b: N x h x w x C -> N x h x w x module.output_filters(C)."""
    outputs = []
    for branch in module.branches(x.shape[channel_axis()]):
        y = x
        if branch.pooled:
            name = f"{module.name}_pool"
            y = MaxPooling2D(3, strides=1, padding="same", name=name)(y)
        for conv in branch.convolutions:
            y = conv_unit(y, spec, conv.name, filters=conv.filters, kernel_size=conv.kernel_size)
        outputs.append(y)
    if len(outputs) == 1:
        return layers.Identity(name=module.name)(outputs[0])
    return layers.Concatenate(axis=channel_axis(), name=module.name)(outputs)


def auxiliary_classifier(x: Any, spec: NetworkSpec, aux: AuxSpec, activation: str | None) -> Any:
    """Apply section 5's auxiliary classifier to a module's output: N x h x w x C -> N x classes.

    Raises:
        ValueError: if the grid is smaller than the window of the pool.
    """
    aux.require_grid(*(x.shape[axis] for axis in _spatial_axes()))
    name = f"{aux.name}_pool"
    if aux.pool == "adaptive":
        x = layers.AdaptiveAveragePooling2D(aux.pool_size, name=name)(x)
    else:
        x = layers.AveragePooling2D(aux.pool_size, aux.pool_stride, name=name)(x)
    # N x 4 x 4 x C at 224 pixels
    x = conv_unit(x, spec, f"{aux.name}_proj", filters=aux.filters, kernel_size=1)
    x = layers.Flatten(name=f"{aux.name}_flatten")(x)  # channels last in both data formats
    x = layers.Dense(
        aux.units,
        activation="relu",
        kernel_initializer=_kernel_initializer(spec),
        bias_initializer=keras.initializers.Constant(spec.bias_initial_value),
        name=f"{aux.name}_dense",
    )(x)
    x = layers.Dropout(aux.dropout_rate, name=f"{aux.name}_dropout")(x)
    return _classifier(x, spec, aux.name, activation)


def head(x: Any, spec: NetworkSpec, activation: str | None) -> Any:
    """Apply global average pool, dropout, classifier: N x h x w x C -> N x classes."""
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dropout(spec.dropout_rate, name="predictions_dropout")(x)
    return _classifier(x, spec, "predictions", activation)


def _classifier(x: Any, spec: NetworkSpec, name: str, activation: str | None) -> Any:
    x = layers.Dense(
        spec.classes, kernel_initializer=_kernel_initializer(spec), name=f"{name}_logits"
    )(x)
    # Softmax and the loss need float32 under a half-precision policy.
    return layers.Activation(activation or "linear", dtype="float32", name=name)(x)


def _ceil_padding(x: Any, pool: PoolSpec, signed: bool) -> tuple[Any, str]:
    """Return Caffe's padding: only at the bottom and right, so that every pixel is covered."""
    axes = _spatial_axes()
    missing = [None if x.shape[axis] is None else _missing(x.shape[axis], pool) for axis in axes]
    if missing == [0, 0]:
        return x, "valid"
    if missing == [1, 1] and pool.size <= pool.stride + 1:
        # Both pad a single missing pixel at the bottom and right. For a larger window "same" would
        # pad more, and give more positions.
        return x, "same"
    # For an unknown size, padding by stride - 1 and rounding down is the same as rounding up.
    ends = [(0, pool.stride - 1 if amount is None else amount) for amount in missing]
    if not signed:  # zeros never exceed the maximum, and a layer is saved in every format
        return layers.ZeroPadding2D(tuple(ends), name=f"{pool.name}_pad")(x), "valid"
    padding = [(0, 0)] * 4
    for axis, end in zip(axes, ends, strict=True):
        padding[axis] = end
    return ops.pad(x, padding, constant_values=float("-inf")), "valid"


def _missing(size: int, pool: PoolSpec) -> int:
    return (pool.output_size(size) - 1) * pool.stride + pool.size - size


def _kernel_initializer(spec: NetworkSpec) -> keras.Initializer:
    if spec.initializer == "caffe_xavier":
        return keras.initializers.VarianceScaling(1.0, mode="fan_in", distribution="uniform")
    return keras.initializers.HeNormal()


def _spatial_axes() -> tuple[int, int]:
    return (2, 3) if channel_axis() == 1 else (1, 2)
