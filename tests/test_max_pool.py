"""The gradient of max pooling under JAX, against loops over windows and against Keras's layer."""

import importlib.util
import os
import subprocess
import sys

import keras
import pytest

from keras_inception import build_network
from keras_inception.network.max_pool import MaxPooling2D
from keras_inception.spec.variants import NANO

UNDER_JAX = """
import jax, keras, numpy as np
from keras_inception.network.max_pool import MaxPooling2D

def by_loops(x, upstream, size, stride, padded):
    "The maxima and the gradient: the first of equal maxima takes all of a window's share."
    heights, widths = x.shape[1:3]
    rows, columns = upstream.shape[1:3]
    starts = []
    for count, stride_, size_, length in zip((rows, columns), stride, size, (heights, widths)):
        missing = max((count - 1) * stride_ + size_ - length, 0) if padded else 0
        starts.append(-(missing // 2))
    outputs, gradient = np.zeros_like(upstream), np.zeros_like(x)
    for n, r, c, channel in np.ndindex(upstream.shape):
        positions = [
            (i, j)
            for i in range(r * stride[0] + starts[0], r * stride[0] + starts[0] + size[0])
            for j in range(c * stride[1] + starts[1], c * stride[1] + starts[1] + size[1])
            if 0 <= i < heights and 0 <= j < widths
        ]
        best = max(positions, key=lambda at: x[n, at[0], at[1], channel])  # the first of the best
        outputs[n, r, c, channel] = x[n, best[0], best[1], channel]
        gradient[n, best[0], best[1], channel] += upstream[n, r, c, channel]
    return outputs, gradient

random = np.random.default_rng(0)
for size, stride, padding, shape, dtype in [
    ((3, 3), (1, 1), "same", (2, 5, 6, 3), "float32"),
    ((3, 3), (2, 2), "same", (2, 7, 8, 2), "float32"),
    ((3, 3), (2, 2), "valid", (2, 8, 7, 2), "float32"),
    ((2, 2), (2, 2), "valid", (1, 5, 5, 2), "bfloat16"),
    ((3, 2), (1, 3), "same", (1, 4, 7, 2), "float32"),
    ((1, 1), (2, 2), "same", (1, 5, 4, 1), "float32"),
    ((2, 2), (3, 3), "valid", (1, 7, 7, 1), "float32"),
]:
    # Small integers: many equal maxima, and sums that bfloat16 has exactly.
    x = random.integers(-2, 3, shape).astype("float32")
    options = {"pool_size": size, "strides": stride, "padding": padding, "dtype": dtype}
    for data_format in ("channels_last", "channels_first"):
        last = data_format == "channels_last"
        given = x if last else np.moveaxis(x, -1, 1)
        own, keras_own = (
            layer(data_format=data_format, **options)
            for layer in (MaxPooling2D, keras.layers.MaxPooling2D)
        )
        upstream = random.integers(-3, 4, own(given).shape).astype("float32")
        found, theirs = (
            jax.grad(lambda x: (layer(x).astype("float32") * upstream).sum())(given)
            for layer in (own, keras_own)
        )
        np.testing.assert_array_equal(found, theirs)
        back = (lambda values: values) if last else (lambda values: np.moveaxis(values, 1, -1))
        outputs, expected = by_loops(x, back(upstream), size, stride, padding == "same")
        np.testing.assert_array_equal(back(np.asarray(own(given), "float32")), outputs)
        np.testing.assert_array_equal(back(np.asarray(found)), expected)
print("equal")
"""


def test_the_gradient_under_jax() -> None:
    if importlib.util.find_spec("jax") is None:  # importing it here would concern other tests
        pytest.skip("JAX is not installed")
    done = subprocess.run(
        [sys.executable, "-c", UNDER_JAX],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "equal\n", done.stderr[-2000:]


def test_all_max_pools_of_a_network_have_it_and_saved_files_name_keras() -> None:
    model = build_network(NANO)
    pools = [layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert pools
    assert {type(layer) for layer in pools} == {MaxPooling2D}
    kinds = {
        (layer["module"], layer["class_name"])
        for layer in model.get_config()["layers"]
        if "MaxPooling" in layer["class_name"]
    }
    assert kinds == {("keras.layers", "MaxPooling2D")}
