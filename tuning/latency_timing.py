"""Write networks of a search space as exports with random weights, and time them.

They are timed here by `keras-inception time` in a process of its own, or copied to another machine.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_inception.bounded import naming, read_text
from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.files import temporary_folder, write_text
from keras_inception.runtimes.timing import TABLE_FILE
from keras_inception.spec.network import NetworkSpec
from tuning.latency import LatencyModel
from tuning.latency_fit import Wanted, fit_table
from tuning.space import Space

NETWORKS = 32
# Multiply-adds of the timed networks, relative to those of the space's base.
_FACTORS = (1 / 16, 4.0)
_CALIBRATION_IMAGES = 4


def random_networks(space: Space, count: int = NETWORKS, seed: int = 0) -> list[NetworkSpec]:
    """Networks of a space at random points, from 1/16 to 4 times the cost of its base.

    Args:
        space: its budget is not used.
        count: how many.
        seed: of the points and of the costs.
    """
    draw = random.Random(seed)
    own = network_cost(space.base).total.macs
    low, high = _FACTORS
    while not _allows(space, int(own * low)):
        low *= 2
    found = []
    for _ in range(count):
        factor = math.exp(draw.uniform(math.log(low), math.log(max(low, high))))
        within = _within(space, int(own * factor))
        found.append(within.spec(within.random_point(draw)))
    return found


def _within(space: Space, macs: int) -> Space:
    return replace(space, budget=Budget(macs=macs), min_budget_share=1.0)


def _allows(space: Space, macs: int) -> bool:
    try:
        _within(space, macs)
    except ValueError:
        return False
    return True


def write_networks(
    space: Space,
    folder: str | os.PathLike[str],
    wanted: Wanted,
    *,
    count: int = NETWORKS,
    report: Callable[[str], None] = lambda words: None,
) -> list[Path]:
    """Write random networks of a space as exports with random weights, each beside its spec.

    Args:
        space: of `random_networks`.
        folder: new or existing; network_00.json and so on are written into it.
        wanted: runtime and precision of the exports; default saved_model and float32.
        count: how many networks.
        report: is given words for each network as it begins.

    Returns:
        The exports.

    Raises:
        MissingPackageError: an optional package is missing.
        ValueError: a runtime that is not exported to, a precision that it does not have, or another
            backend than TensorFlow.
    """
    from keras_inception.exporters.formats import FILES, require_packages
    from keras_inception.exporters.inference_graph import require_tensorflow

    require_tensorflow("time networks")
    kind = export_format(wanted)
    require_packages(kind)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ending = FILES[kind].removeprefix("saved_").removeprefix("model")
    paths = []
    for number, spec in enumerate(random_networks(space, count)):
        name = f"network_{number:02}"
        report(f"writing {name}{ending} ({number + 1} of {count})")
        write_text(folder / f"{name}.json", spec.to_json())
        paths.append(folder / f"{name}{ending}")
        _write_export(spec, paths[-1], kind)
    return paths


def export_format(wanted: Wanted) -> Any:
    """The export of a runtime and precision.

    Raises:
        ValueError: there is none.
    """
    from keras_inception.exporters.formats import FORMATS

    by_name = {(kind.split("-")[0], kind.partition("-")[2] or "float32"): kind for kind in FORMATS}
    runtime, precision = wanted.runtime or "saved_model", wanted.precision or "float32"
    if (runtime, precision) not in by_name:
        have = ", ".join(" ".join(pair) for pair in by_name)
        raise ValueError(
            f"Expected a runtime and a precision among {have}. Received: {runtime} {precision}"
        )
    return by_name[runtime, precision]


def _write_export(spec: NetworkSpec, path: Path, kind: Any) -> None:
    import keras

    from keras_inception.exporters.formats import write_format
    from keras_inception.exporters.saved_model import write_saved_model
    from keras_inception.network.build import build_network

    keras.backend.clear_session()
    model = build_network(spec)
    height, width, channels = spec.input_shape
    size = (_CALIBRATION_IMAGES, height or 1, width or 1, channels)
    images = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    if kind == "saved_model":
        write_saved_model(model, path, samples=images)
    elif kind == "saved_model-bfloat16":
        write_saved_model(model, path, samples=images, precision="bfloat16")
    else:
        write_format(model, path, kind, calibration=images, keep_accuracy=False)


def measure_latency_model(
    space: Space,
    wanted: Wanted,
    *,
    count: int = NETWORKS,
    report: Callable[[str], None] = lambda words: None,
) -> LatencyModel:
    """Time networks of a space on this machine, and fit a model to them.

    Args:
        space, wanted, count, report: of `write_networks`.

    Raises:
        MissingPackageError: an optional package is missing.
        ValueError: the networks cannot be written or timed.
    """
    with temporary_folder() as folder:
        paths = write_networks(space, folder, wanted, count=count, report=report)
        report(f"timing {count} networks")
        _time(paths, wanted)
        return fit_table(folder / TABLE_FILE, space.base, wanted)


def _time(paths: list[Path], wanted: Wanted) -> None:
    """Run `keras-inception time`: in a new process, since TensorFlow's threads are a process's."""
    command = [sys.executable, "-m", "keras_inception", "time", *map(str, paths)]
    for option, value in (("--batch-size", wanted.batch_size), ("--threads", wanted.threads)):
        command += [] if value is None else [option, str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ValueError(f"The networks could not be timed. {lines[-1]}")


def load_or_fit(
    file: str | os.PathLike[str], wanted: Wanted, fit: Callable[[], LatencyModel]
) -> LatencyModel:
    """Load the model from a file; if there is none, fit it and write the file and its folder.

    Raises:
        ValueError: the file's model is for other conditions, or `fit` failed.
    """
    file = Path(file)
    if file.exists():
        with naming(file):
            loaded = LatencyModel.from_json(read_text(file))
        if not wanted.admits(loaded.conditions):
            raise ValueError(
                f"Expected {loaded.conditions}, under which the times in {str(file)!r} were taken, "
                f"or another folder. Received: {wanted}"
            )
        return loaded
    model = fit()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, model.to_json())
    return model
