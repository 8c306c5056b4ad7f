"""The one-module network of `training_steps` in NumPy, float64, and its gradient by differences.

Independent of Keras: test_step_table.py compares both engines' steps with it.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Weights = dict[str, np.ndarray]
# (layer, mean of its channels, biased variance), in the order of the layers.
Statistics = list[tuple[str, np.ndarray, np.ndarray]]
EPSILON = 1e-3  # of batch normalization


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """N losses of N x classes logits and probabilities."""
    return -(targets * log_softmax(logits)).sum(axis=1)


def forward(weights: Weights, images: np.ndarray) -> tuple[np.ndarray, Statistics]:
    """Logits in training mode: batch normalization, where there is some, by this batch."""
    seen: Statistics = []

    def unit(x: np.ndarray, name: str) -> np.ndarray:
        x = _convolution(x, weights[f"{name}_conv/kernel"], weights.get(f"{name}_conv/bias", 0.0))
        if f"{name}_bn/gamma" in weights:
            mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            seen.append((f"{name}_bn", mean, variance))
            x = weights[f"{name}_bn/gamma"] * (x - mean) / np.sqrt(variance + EPSILON)
            x = x + weights[f"{name}_bn/beta"]
        return np.maximum(x, 0)

    # TensorFlow's SAME at 3/2 from 12 to 6 pads below and on the right alone.
    x = _maximum(unit(images, "conv1"), ((0, 1), (0, 1)))[:, ::2, ::2]
    module = [
        unit(x, "3a_1x1"),
        unit(unit(x, "3a_3x3_reduce"), "3a_3x3"),
        unit(_maximum(x, ((1, 1), (1, 1))), "3a_pool_proj"),
    ]
    features = np.concatenate(module, axis=-1).mean(axis=(1, 2))
    return features @ weights["predictions_logits/kernel"] + weights[
        "predictions_logits/bias"
    ], seen


def gradient(loss: Callable[[Weights], float], weights: Weights, names: Iterable[str]) -> Weights:
    """Central differences of `loss`, in float64."""
    return {name: _differences(loss, weights, name) for name in names}


def _differences(loss: Callable[[Weights], float], weights: Weights, name: str) -> np.ndarray:
    result = np.zeros(weights[name].shape)
    for at in np.ndindex(result.shape):
        sides = [loss(weights | {name: _moved(weights[name], at, h)}) for h in (1e-6, -1e-6)]
        result[at] = (sides[0] - sides[1]) / 2e-6
    return result


def _moved(values: np.ndarray, at: tuple[int, ...], by: float) -> np.ndarray:
    values = values.astype(np.float64)
    values[at] += by
    return values


def _padded(x: np.ndarray, edges: tuple[tuple[int, int], ...], value: float) -> np.ndarray:
    return np.pad(x, ((0, 0), *edges, (0, 0)), constant_values=value)


def _convolution(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | float) -> np.ndarray:
    edge = (kernel.shape[0] // 2,) * 2
    windows = sliding_window_view(
        _padded(x.astype(np.float64), (edge, edge), 0.0), kernel.shape[:2], (1, 2)
    )  # N x h x w x C x k x k
    return np.tensordot(windows, kernel.astype(np.float64), ([4, 5, 3], [0, 1, 2])) + bias


def _maximum(x: np.ndarray, edges: tuple[tuple[int, int], ...]) -> np.ndarray:
    return sliding_window_view(_padded(x, edges, -np.inf), (3, 3), (1, 2)).max(axis=(4, 5))
