"""Time networks on this machine, and fit the model of a latency budget to them.

The model is fitted to some networks and its error measured on others.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import tensorflow as tf

from keras_inception.bounded import read_json
from keras_inception.cost.budget import module_widths, with_module_widths
from keras_inception.cost.layers import NetworkCost, network_cost
from keras_inception.exporters.inference_graph import fold_batch_norm
from keras_inception.exporters.saved_model import constant_function
from keras_inception.files import write_text
from keras_inception.network.build import build_network
from keras_inception.spec.network import NetworkSpec
from tuning.latency import LatencyModel, latency_features

# A quarter of the networks measures the model's error.
_NETWORKS = 32
_ROUNDS = 12
_FACTORS = (0.25, 2.0)


def fit_latency(
    costs: Sequence[NetworkCost],
    milliseconds: Sequence[float],
    *,
    held_out: int,
    batch_size: int = 1,
) -> LatencyModel:
    """Fit a model to timed networks.

    Args:
        costs: of the networks, all of one form.
        milliseconds: an image, of each.
        held_out: the last ones, which are left out of the fit and measure its error.
        batch_size: with which the times were taken.

    Raises:
        ValueError: no network to fit to or none held out.
    """
    if not 0 < held_out < len(costs):
        raise ValueError(
            f"Expected some of {len(costs)} networks to fit to and some to hold out. "
            f"Received: held_out={held_out}"
        )
    rows = [latency_features(cost) for cost in costs]
    names = sorted({name for row in rows for name in row})
    table = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    times = np.array(milliseconds)
    fitted = len(rows) - held_out
    # Relative errors count, so that small networks are not drowned by large ones.
    scaled = table[:fitted] / times[:fitted, None]
    scale = np.maximum(scaled.max(axis=0), 1e-12)
    weights, _ = scipy.optimize.nnls(scaled / scale, np.ones(fitted))
    coefficients = weights / scale
    predicted = table[fitted:] @ coefficients
    error = float(np.mean(np.abs(predicted / times[fitted:] - 1)))
    return LatencyModel(
        coefficients=dict(zip(names, coefficients.tolist(), strict=True)),
        batch_size=batch_size,
        error=error,
    )


def measure_latency_model(
    spec: NetworkSpec, *, batch_size: int = 1, seed: int = 0, networks: int | None = None
) -> LatencyModel:
    """Time networks of the form of `spec` on this machine, and fit a model to them.

    Args:
        spec: its widths are multiplied by random factors from 1/4 to 2.
        batch_size: images in a batch.
        seed: of the widths.
        networks: number of networks to time; a quarter of them measures the error. None: 32.
    """
    count = networks or _NETWORKS
    draw = random.Random(seed)
    specs = [_random_widths(spec, draw) for _ in range(count)]
    times = measure_latencies(specs, batch_size=batch_size)
    costs = [network_cost(item) for item in specs]
    return fit_latency(costs, times, held_out=max(1, count // 4), batch_size=batch_size)


def load_or_measure(
    file: str | os.PathLike[str], spec: NetworkSpec, *, batch_size: int = 1
) -> LatencyModel:
    """Load the model from a file; if there is none, measure it and write the file and its folder.

    Raises:
        ValueError: the file's model is of another batch size.
    """
    file = Path(file)
    if file.exists():
        try:
            loaded = LatencyModel.from_json(json.dumps(read_json(file, "latency model")))
        except ValueError as error:
            raise ValueError(f"{error} In {str(file)!r}.") from error
        if loaded.batch_size != batch_size:
            raise ValueError(
                f"Expected a batch of {loaded.batch_size}, with which the times in {str(file)!r} "
                f"were taken, or another folder. Received: {batch_size}"
            )
        return loaded
    model = measure_latency_model(spec, batch_size=batch_size)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, model.to_json())
    return model


def measure_latencies(specs: Sequence[NetworkSpec], *, batch_size: int = 1) -> list[float]:
    """Milliseconds an image of each network in graph mode: medians of interleaved rounds.

    Batch normalization is folded into the convolutions, as in what is served.
    """
    runs = [_runner(spec, batch_size) for spec in specs]
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(_ROUNDS):
        for run, own in zip(runs, times, strict=True):
            started = time.perf_counter()
            run()
            own.append((time.perf_counter() - started) * 1e3 / batch_size)
    return [statistics.median(own) for own in times]


def _runner(spec: NetworkSpec, batch_size: int) -> Callable[[], Any]:
    # TensorFlow warns of many tracings when it is called for many networks.
    graph = constant_function(fold_batch_norm(build_network(spec))).get_concrete_function()
    images = tf.random.stateless_uniform((batch_size, *spec.input_shape), seed=(0, 0))
    return lambda: graph(images).numpy()


def _random_widths(spec: NetworkSpec, draw: random.Random) -> NetworkSpec:
    common = draw.uniform(*_FACTORS)
    widths = {
        name: max(1, round(width * common * draw.uniform(*_FACTORS) ** 0.5))
        for name, width in module_widths(spec).items()
    }
    return with_module_widths(spec, widths)
