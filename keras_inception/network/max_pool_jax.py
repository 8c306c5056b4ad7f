"""The gradient of a maximum over windows, under JAX.

XLA computes it by select-and-scatter, one window after another. Here it is a sum of as many shifted
products as a window has positions, which XLA fuses: the same values in a fraction of the time
(benchmarks/max_pool.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax


def with_quick_gradient(
    pool: Callable[[Any], Any],
    windows: Sequence[int],
    strides: Sequence[int],
    inputs: Any,
    padded: bool,
) -> Any:
    """Return `pool(inputs)`, a maximum over windows, with its gradient by shifted products.

    `padded`: the pool pads so that every input is covered, less before than after it.
    """
    with_gradient = jax.custom_vjp(pool)
    with_gradient.defvjp(
        lambda inputs: (pool(inputs), inputs),
        lambda inputs, upstream: (_gradient(inputs, upstream, windows, strides, padded),),
    )
    return with_gradient(inputs)


def _gradient(
    inputs: Any, upstream: Any, windows: Sequence[int], strides: Sequence[int], padded: bool
) -> Any:
    """The gradient of the inputs from that of the maxima."""
    # From the first row of the first window to the first row of the last window.
    spans = [(n - 1) * s + 1 for n, s in zip(upstream.shape, strides, strict=True)]
    missing = [
        max(span + window - 1 - size, 0) if padded else 0
        for span, window, size in zip(spans, windows, inputs.shape, strict=True)
    ]
    before = [amount // 2 for amount in missing]
    ends = [(low, amount - low, 0) for low, amount in zip(before, missing, strict=True)]
    # In float32, which is exact for a comparison: XLA aborts where it compares vectors of bfloat16
    # on some CPUs (jaxlib 0.11.2, AVX-512), and computes with them slowly.
    dtype = jax.numpy.promote_types(inputs.dtype, "float32")
    surrounded = lax.pad(inputs.astype(dtype), dtype.type(-jax.numpy.inf), ends)
    offsets = list(itertools.product(*map(range, windows)))
    first = _positions_of_maxima(surrounded, offsets, spans, strides)
    gradient = jax.numpy.zeros(inputs.shape, dtype)
    for number, offset in enumerate(offsets):
        starts = [start - low for start, low in zip(offset, before, strict=True)]
        placed = [
            (start, size - start - span, stride - 1)
            for start, size, span, stride in zip(starts, inputs.shape, spans, strides, strict=True)
        ]
        own = jax.numpy.where(first == number, upstream.astype(dtype), 0)
        gradient += lax.pad(own, dtype.type(0), placed)
    return gradient.astype(inputs.dtype)


def _positions_of_maxima(
    surrounded: Any, offsets: Sequence[Sequence[int]], spans: Sequence[int], strides: Sequence[int]
) -> Any:
    """The number in `offsets` of the first maximum of each window.

    It is not found by comparing with the outputs of the pool: XLA may compute the inputs a second
    time for the gradient, and round otherwise.
    """
    first: Any = jax.numpy.int16(0)
    most: Any = -jax.numpy.inf
    for number, offset in enumerate(offsets):
        stops = [start + span for start, span in zip(offset, spans, strict=True)]
        here = lax.slice(surrounded, offset, stops, strides)
        first = jax.numpy.where(here > most, jax.numpy.int16(number), first)
        most = jax.numpy.maximum(here, most)
    # Otherwise XLA would compute the positions again for each of the products.
    return lax.optimization_barrier(first)
