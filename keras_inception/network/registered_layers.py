"""Local response normalization and the order of channels: the layer classes that saved files name.

`keras_hook` imports this module after Keras, so that Keras finds the class when it loads a model.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


def channel_axis() -> int:
    """The channel axis of `keras.config.image_data_format()`."""
    return 1 if keras.config.image_data_format() == "channels_first" else -1


@keras.saving.register_keras_serializable(package="keras_inception")
class ReverseChannels(layers.Layer):
    """RGB to BGR. A class, because `keras.ops.flip` of a model is not found in .h5 and JSON.

    Args:
        axis: the channel axis.
    """

    def __init__(self, *, axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Any) -> Any:
        """Reverse the channels; the shape is unchanged."""
        return ops.flip(inputs, axis=self.axis)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input shape, which is unchanged."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that build the same layer."""
        return {**super().get_config(), "axis": self.axis}


@keras.saving.register_keras_serializable(package="keras_inception")
class LocalResponseNormalization(layers.Layer):
    """Local response normalization across channels: x / (bias + a * sum(x^2))^beta.

    Args:
        window_size: channels summed, odd, centred on the normalized one.
        alpha_per_window: Caffe's, torch's and ONNX's alpha: a = alpha_per_window / window_size.
            TensorFlow's alpha is a itself.
        beta: exponent.
        bias: added to the sum; Caffe's k.
        axis: the channel axis; default that of `keras.config.image_data_format()`.

    Computes in float32 under every policy, because squares of half-precision activations overflow.
    Source: Krizhevsky et al. 2012, section 3.3; BVLC's lrn_param.
    """

    def __init__(
        self,
        *,
        window_size: int = 5,
        alpha_per_window: float = 1e-4,
        beta: float = 0.75,
        bias: float = 1.0,
        axis: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if window_size < 1 or window_size % 2 == 0:
            raise ValueError(
                f"Expected an odd window, centred on a channel. Received: window_size={window_size}"
            )
        self.window_size = window_size
        self.alpha_per_window = alpha_per_window
        self.beta = beta
        self.bias = bias
        self.axis = channel_axis() if axis is None else axis

    def call(self, inputs: Any) -> Any:
        """Normalize; the shape is unchanged."""
        x = ops.cast(inputs, "float32")
        radius = self.window_size // 2
        padding = [(0, 0)] * len(x.shape)
        padding[self.axis] = (radius, radius)
        squares = ops.pad(ops.square(x), padding)
        channels = x.shape[self.axis]
        window_sum = sum(
            squares[self._channels(start, start + channels, len(x.shape))]
            for start in range(self.window_size)
        )
        scale = self.bias + self.alpha_per_window / self.window_size * window_sum
        return ops.cast(x * ops.power(scale, -self.beta), self.compute_dtype)

    def _channels(self, start: int, stop: int, rank: int) -> tuple[slice, ...]:
        index = [slice(None)] * rank
        index[self.axis] = slice(start, stop)
        return tuple(index)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input shape, which is unchanged."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that build the same layer."""
        return {
            **super().get_config(),
            "window_size": self.window_size,
            "alpha_per_window": self.alpha_per_window,
            "beta": self.beta,
            "bias": self.bias,
            "axis": self.axis,
        }
