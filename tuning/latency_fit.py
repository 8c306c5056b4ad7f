"""Fit the model of a latency budget to a table of timings, made here or on another machine.

The table is that of `keras-inception time`, or a folder of what LiteRT's benchmark_model wrote for
each network.
"""

from __future__ import annotations

import os
import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.optimize

from keras_inception.bounded import Allowance, naming, read_file, read_text
from keras_inception.cost.layers import NetworkCost, network_cost
from keras_inception.runtimes.timing import Conditions, Timing, precision_of, read_timings, spec_of
from keras_inception.spec.network import NetworkSpec
from tuning.latency import LatencyModel, latency_features

LEAST_NETWORKS = 12
# One of so many networks measures the model's error.
_HELD_OUT = 4
# benchmark_model's summary of the runs: in its profile the sum over the operators, microseconds.
_PROFILE = re.compile(
    r"Operator-wise Profiling Info for Regular Benchmark Runs:.*?"
    r"Timings \(microseconds\): count=\d+ [^\n]*?(?:avg|curr)=([\d.e+]+)(?: std|\n|$)",
    re.DOTALL,
)
_LOG = re.compile(r"Inference timings in us:.*Inference \(avg\): ([\d.e+]+)")
_MOST_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The conditions that a table's rows must have; None: whichever it has."""

    runtime: str | None = None
    precision: str | None = None
    batch_size: int | None = None
    threads: int | None = None

    def admits(self, conditions: Conditions) -> bool:
        """Whether the conditions are those wanted; unknown ones of the table are."""
        return all(
            wanted is None or getattr(conditions, label) in (wanted, None)
            for label, wanted in vars(self).items()
        )

    def __str__(self) -> str:
        given = [f"{label} {value}" for label, value in vars(self).items() if value is not None]
        return ", ".join(given) or "any conditions"


def fit_latency(
    costs: Sequence[NetworkCost],
    milliseconds: Sequence[float],
    *,
    held_out: int,
    conditions: Conditions,
) -> LatencyModel:
    """Fit a model to timed networks.

    Args:
        costs: of the networks, all of one form.
        milliseconds: an image, of each.
        held_out: the last ones, which are left out of the fit and measure its error.
        conditions: of the timings.

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
        error=error,
        conditions=conditions,
    )


def fit_table(path: str | os.PathLike[str], base: NetworkSpec, wanted: Wanted) -> LatencyModel:
    """Fit a model to a table of timings.

    Args:
        path: the CSV file of `keras-inception time`, beside it the networks' specs; or a folder
            of specs and of what benchmark_model wrote for each, as NAME.csv
            (--profiling_output_csv_file) or NAME.txt (its log).
        base: the network that is searched around; the timed ones must be of its form.
        wanted: conditions, where the table has several.

    Raises:
        ValueError: no such table, rows under several conditions, too few networks, or networks of
            another form.
        OSError: a file cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"Expected a table of timings, or a folder. Received: {str(path)!r}")
    timings = _benchmarked(path) if path.is_dir() else read_timings(path)
    conditions, timings = _of_one_kind(path, timings, wanted)
    by_model: dict[str, list[float]] = {}
    for timing in timings:
        by_model.setdefault(timing.model, []).append(timing.ms_an_image)
    if len(by_model) < LEAST_NETWORKS:
        raise ValueError(
            f"Expected at least {LEAST_NETWORKS} networks timed under the same conditions "
            f"({conditions}). Received: {len(by_model)} in {str(path)!r}"
        )
    folder = path if path.is_dir() else path.parent
    costs = [_cost(folder / model, base) for model in by_model]
    _require_layers(path, base, costs)
    times = [statistics.median(values) for values in by_model.values()]
    order = random.Random(0).sample(range(len(costs)), len(costs))
    return fit_latency(
        [costs[index] for index in order],
        [times[index] for index in order],
        held_out=len(costs) // _HELD_OUT,
        conditions=conditions,
    )


def _of_one_kind(
    path: Path, timings: list[Timing], wanted: Wanted
) -> tuple[Conditions, list[Timing]]:
    """The wanted rows, and their conditions."""
    found = [timing for timing in timings if wanted.admits(timing.conditions)]
    kinds = list(dict.fromkeys(timing.conditions for timing in found))
    if len(kinds) == 1:
        return kinds[0], found
    if kinds:
        raise ValueError(
            f"Expected timings under one of the conditions in {str(path)!r}. Received: "
            f"{'; '.join(map(str, kinds[:5]))}. Choose with --budget-runtime, --budget-precision, "
            "--budget-batch-size and --budget-threads, or split the table by device."
        )
    have = "; ".join(dict.fromkeys(str(timing.conditions) for timing in timings[:5]))
    raise ValueError(
        f"Expected timings with {wanted} in {str(path)!r}. Received: {have or 'no row'}"
    )


def _cost(model: Path, base: NetworkSpec) -> NetworkCost:
    """The cost of a timed network, by the spec beside it."""
    file = spec_of(model)
    if file is None:
        raise ValueError(
            f"Expected the spec of the network {model.name!r} as NAME.json or spec.json beside it, "
            f"as `tune --timing-networks` writes them. Received: none in {str(model.parent)!r}"
        )
    with naming(file):
        spec = NetworkSpec.from_json(read_text(file))
    for label in ("input_shape", "classes"):
        own, expected = getattr(spec, label), getattr(base, label)
        if own != expected:
            raise ValueError(
                f"Expected timed networks with {label} {expected}, as in this search. Received: "
                f"{own} in {str(file)!r}"
            )
    return network_cost(spec)


def _require_layers(path: Path, base: NetworkSpec, costs: Sequence[NetworkCost]) -> None:
    """Refuse networks of another form: with other kinds of layers than the base."""
    timed = {layer.kind for cost in costs for layer in cost.layers}
    own = {layer.kind for layer in network_cost(base).layers}
    if timed != own:
        raise ValueError(
            f"Expected timed networks of the form of {base.name!r}, with layers of the kinds "
            f"{sorted(own)}. Received: {sorted(timed)} in {str(path)!r}"
        )


def _benchmarked(folder: Path) -> list[Timing]:
    """The average times in a folder of benchmark_model's profiles and logs."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".csv", ".txt"))
    found = []
    for file in files:
        text = read_file(file, Allowance(file, _MOST_BYTES)).decode("utf-8", errors="replace")
        match = _PROFILE.search(text) or _LOG.search(text)
        if match is None:
            continue
        conditions = Conditions(runtime="litert", precision=precision_of(file))
        milliseconds = float(match.group(1)) / 1e3
        found.append(Timing(model=file.name, conditions=conditions, ms_an_image=milliseconds))
    if not found:
        raise ValueError(
            "Expected a folder with benchmark_model's profiles (--profiling_output_csv_file) as "
            f"NAME.csv, or its logs as NAME.txt. Received: {str(folder)!r}, which has "
            f"{len(files)} .csv and .txt files and no such one"
        )
    return found
