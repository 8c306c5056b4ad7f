"""Max pooling whose gradient is quick under JAX."""

from __future__ import annotations

from typing import Any

import keras

from keras_inception.keras_compat import saved_as_keras_layer


@saved_as_keras_layer
class MaxPooling2D(keras.layers.MaxPooling2D):
    """Keras's max pooling; on the JAX backend with a gradient of its own.

    Where several positions of a window have the maximum, the first takes the whole gradient, as
    in Keras. Saved files hold an ordinary `keras.layers.MaxPooling2D` and load without this
    package.
    """

    def call(self, inputs: Any) -> Any:
        """Return the maxima: N x h x w x C, or N x C x h x w by the data format of the layer."""
        if keras.backend.backend() != "jax":
            return super().call(inputs)
        from keras_inception.network.max_pool_jax import with_quick_gradient

        spatial = (1, 2) if self.data_format == "channels_last" else (2, 3)
        windows, strides = [1] * 4, [1] * 4
        for axis, size, stride in zip(spatial, self.pool_size, self.strides, strict=True):
            windows[axis], strides[axis] = size, stride
        return with_quick_gradient(super().call, windows, strides, inputs, self.padding == "same")
