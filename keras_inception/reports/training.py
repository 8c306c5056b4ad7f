"""The page of a finished training: accuracy, curves, mistakes, images, cost, data, environment."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_inception.cost.layers import network_cost
from keras_inception.data.record import data_option
from keras_inception.data.splits import ImageData
from keras_inception.data.stream import training_batches
from keras_inception.evaluation.scores import Evaluation
from keras_inception.files import DATA_FILE
from keras_inception.images.conventions import restored_pixels
from keras_inception.reports.evaluation import Mistake, evaluation_values
from keras_inception.reports.page import embedded, thumbnail, write_page
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe

MOST_SAMPLES = 24
_MOST_LISTED = 20
_PACKAGES = ("keras-inception", "keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy")


def write_training_page(
    path: Path,
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    evaluation: Evaluation,
    mistakes: list[Mistake],
    *,
    facts: dict[str, str],
    curve: Path | None,
    confusion: Path | None,
) -> None:
    """Write the page of a finished run beside its files.

    Args:
        path: of the HTML file, in the run's folder.
        evaluation, mistakes: of the held-out images.
        facts: value by name, for the first line: how long it took, which epoch was best.
        curve, confusion: pictures of `plots`; None without matplotlib.
    """
    pictures = (None if picture is None else picture.read_bytes() for picture in (curve, confusion))
    curve_png, confusion_png = pictures
    cost = network_cost(spec).total
    write_page(
        path,
        "training.html",
        title=f"{spec.name} on {data.name}",
        **evaluation_values(evaluation, mistakes, data.class_names, confusion_png),
        facts=list(facts.items()),
        commands=_commands(path.parent, data),
        curve=None if curve_png is None else embedded(curve_png),
        samples=training_samples(spec, data, recipe),
        cost=[
            ("input", " x ".join(map(str, spec.input_shape))),
            ("multiply-adds an image", f"{cost.macs:,}"),
            ("parameters", f"{cost.params:,}"),
        ],
        data=_rows(json.loads((path.parent / DATA_FILE).read_text(encoding="utf-8"))),
        recipe=_rows(asdict(recipe)),
        environment=environment(),
    )


def training_samples(spec: NetworkSpec, data: ImageData, recipe: Recipe) -> list[tuple[str, str]]:
    """(picture, classes) of the first images of the run's first batch, after augmentation."""
    with closing(training_batches(data.train, spec, recipe)) as batches:
        images, labels = (part[:MOST_SAMPLES] for part in next(batches))
    if keras.config.image_data_format() == "channels_first":
        images = np.moveaxis(images, 1, -1)
    pixels = restored_pixels(images, spec.pixels)
    names = data.class_names
    return [
        (thumbnail(image), _label(label, names))
        for image, label in zip(pixels, labels, strict=True)
    ]


def _label(label: np.ndarray, names: tuple[str, ...]) -> str:
    """The class of an integer label; of shares (mixup) the classes with theirs."""
    if label.ndim == 0:
        return names[label]
    order = [index for index in np.argsort(-label) if label[index] > 0]
    return ", ".join(f"{names[index]} {label[index]:.0%}" for index in order)


def environment() -> list[tuple[str, str]]:
    """Versions of Python and the packages, and the machine."""
    rows = [("Python", platform.python_version()), ("Keras backend", keras.backend.backend())]
    for package in _PACKAGES:
        try:
            rows.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return [*rows, ("system", platform.platform())]


def _commands(folder: Path, data: ImageData) -> list[str]:
    run = shlex.quote(str(folder))
    return [
        f"keras-inception predict {run} IMAGE",
        f"keras-inception evaluate {run} {data_option(data.source or data.name)}",
        f"keras-inception export {run} --format all",
        f"keras-inception serve {run}",
    ]


def _rows(document: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in document.items():
        if isinstance(value, list | tuple):
            more = f", ... ({len(value):,} in all)" if len(value) > _MOST_LISTED else ""
            value = ", ".join(map(str, value[:_MOST_LISTED])) + more
        yield name.replace("_", " "), "" if value is None else str(value)
