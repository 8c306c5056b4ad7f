"""Reference layers in NumPy and SciPy, one image at a time."""

import numpy as np
from scipy.signal import correlate2d


def convolution(x, kernel, bias=0.0, *, stride=1, padding=None):
    """x: h x w x C, kernel: k x k x C x filters; zero padding on every side, k // 2 by default."""
    padding = kernel.shape[0] // 2 if padding is None else padding
    x = np.pad(np.asarray(x, "float64"), [(padding, padding), (padding, padding), (0, 0)])
    maps = [
        sum(correlate2d(x[..., c], kernel[..., c, f], mode="valid") for c in range(x.shape[2]))
        for f in range(kernel.shape[3])
    ]
    return np.stack(maps, axis=-1)[::stride, ::stride] + bias


def window_maximum(x, starts, size):
    """Maxima of h x w x C over the windows at each pair of `starts`, truncated at the edge."""
    rows = [
        [
            x[max(top, 0) : top + size, max(left, 0) : left + size].max(axis=(0, 1))
            for left in starts[1]
        ]
        for top in starts[0]
    ]
    return np.array(rows)


def local_response_normalization(x, *, window_size, alpha_per_window, beta, bias):
    """x: ... x C, by Caffe's formula, channel by channel."""
    x = np.asarray(x, "float64")
    result = np.empty_like(x)
    for channel in range(x.shape[-1]):
        low, high = max(channel - window_size // 2, 0), channel + window_size // 2 + 1
        squares = (x[..., low:high] ** 2).sum(axis=-1)
        result[..., channel] = (
            x[..., channel] / (bias + alpha_per_window / window_size * squares) ** beta
        )
    return result


def relu(x):
    return np.maximum(x, 0.0)


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()
