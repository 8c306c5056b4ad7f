"""How good a network is: top-k accuracy, per class, confusions; many crops; ensembles.

Returns numbers, prints nothing. Section 7 of the paper lays out crops and ensembles.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_inception.data.splits import AnySplit, ImageData
from keras_inception.evaluation.testing_crops import crop_views
from keras_inception.images.geometry import Crops
from keras_inception.network.nested import flat_classifier
from keras_inception.runtimes.keras_model import image_shape, load_keras, network_input

_CROP_COUNTS: dict[Crops, int] = {"whole": 1, "1": 1, "10": 10, "144": 144}


@dataclass(frozen=True)
class Evaluation:
    """Results on a labelled set.

    Attributes:
        top_1, top_5: shares of images whose label is the first, or among the first five.
        loss: mean cross-entropy in nats.
        confusion: classes x classes counts; row = true class, column = predicted class.
    """

    images: int
    top_1: float
    top_5: float
    loss: float
    confusion: np.ndarray

    def per_class(self) -> np.ndarray:
        """Top-1 accuracy of each class (recall); NaN for a class without images."""
        totals = self.confusion.sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.diag(self.confusion) / totals

    def summary(self, class_names: Sequence[str]) -> dict[str, Any]:
        """The numbers as JSON takes them."""
        per_class = zip(class_names, self.per_class().tolist(), strict=True)
        return {
            "images": self.images,
            "top_1": self.top_1,
            "top_5": self.top_5,
            "loss": self.loss,
            "per_class": {name: None if np.isnan(value) else value for name, value in per_class},
        }


def evaluate(
    model: keras.Model | str | os.PathLike[str],
    data: ImageData | AnySplit,
    *,
    crops: Crops = "whole",
    batch_size: int = 64,
) -> Evaluation:
    """Evaluate a classifier on held-out images: top-1, top-5, loss, confusion.

    Args:
        model: a network of this package or a classifier around one, a run's folder, or a .keras
            file.
        data: whose test images to take, or the images themselves; the classes in the order of the
            model's.
        crops: "whole", or the "1", "10" or "144" crops of the paper's section 7.
        batch_size: crops that the model sees at once.

    Raises:
        ValueError: not a model, an input that is not a fixed square, or labels that the model
            does not have.
    """
    network = model if isinstance(model, keras.Model) else load_keras(model)
    split = data.test if isinstance(data, ImageData) else data
    scores = crop_scores(flat_classifier(network), split, crops, batch_size=batch_size)
    return evaluate_scores(scores, np.asarray(split.labels))


def evaluate_batches(model: keras.Model, batches: Iterable[tuple[Any, Any]]) -> Evaluation:
    """Evaluate a model of one output, N x classes of probabilities.

    Args:
        model: ends in softmax; `inference_model` leaves the auxiliary classifiers out.
        batches: pairs of images, in the model's pixel convention, and integer labels.

    Raises:
        ValueError: no images.
    """
    scores, labels = [], []
    for images, batch_labels in batches:
        scores.append(np.asarray(model.predict_on_batch(images), dtype=np.float64))
        labels.append(np.asarray(batch_labels))
    if not scores:
        raise ValueError("Expected at least one batch of images. Received none.")
    return evaluate_scores(np.concatenate(scores), np.concatenate(labels))


def evaluate_scores(scores: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Evaluate probabilities (N x classes) against integer labels (N).

    A label counts as among the first k if fewer than k other classes score as high; equal scores
    count against it, so a network that answers the same, or NaN, for all classes gains nothing.

    Raises:
        ValueError: not one label for each row of scores, or a label that is no column.
    """
    count, classes = scores.shape
    if labels.shape != (count,) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Expected {count} labels from 0 to {classes - 1}. Received: labels={labels}"
        )
    own = scores[np.arange(count), labels][:, None]
    as_high = (~(scores < own)).sum(axis=1) - 1  # without the label itself; NaN compares as False
    tiny = np.finfo(np.float64).tiny
    return Evaluation(
        images=count,
        top_1=float(np.mean(as_high < 1)),
        top_5=float(np.mean(as_high < 5)),
        loss=float(-np.mean(np.log(np.maximum(own[:, 0], tiny)))),
        confusion=np.bincount(
            labels.astype(np.int64) * classes + scores.argmax(axis=1), minlength=classes**2
        ).reshape(classes, classes),
    )


def crop_scores(
    model: keras.Model,
    split: AnySplit,
    crops: Crops,
    *,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Mean softmax over the crops of each image (section 7); the mean of several models' is theirs.

    Args:
        model: of one output and a fixed square input, whose name tells the pixel convention.
        split: the images; any size.
        crops: "whole" is what `evaluation_batches` gives; "1", "10" and "144" are
            `keras_inception.images.geometry.scales`.
        batch_size: crops that the model sees at once.
        progress: called with the number of images that are done, each time some are.

    Returns:
        N x classes, float64.

    Raises:
        ValueError: an input of another shape.
    """
    height, width, channels = image_shape(model)
    if height is None or height != width:
        raise ValueError(
            f"Expected a fixed square input. Received: input_shape={model.input_shape}"
        )
    totals = np.zeros((len(split), model.output_shape[-1]))
    counts = np.zeros(len(split))
    for position, views in crop_views(split, height, channels, crops, views_at_once=batch_size):
        images, of_each = views.shape[:2]
        inputs = network_input(model, views.reshape(-1, height, width, channels))
        scores = np.concatenate(
            [
                np.asarray(model.predict_on_batch(inputs[row : row + batch_size]))
                for row in range(0, len(inputs), batch_size)
            ]
        )
        rows = slice(position, position + images)
        totals[rows] += scores.reshape(images, of_each, -1).sum(axis=1)
        counts[rows] += of_each
        if progress is not None and (counts[position] == _CROP_COUNTS[crops]):
            progress(images)
    return totals / counts[:, None]


@dataclass(frozen=True)
class Table3Row:
    """A row of the paper's Table 3.

    Attributes:
        models, crops: how many.
        cost: evaluations of a network for each image, models times crops.
        top_5_error: share of images whose label is not among the first five.
        compared_to_base: difference of the error to the first row's; None in that row.
    """

    models: int
    crops: int
    cost: int
    top_5_error: float
    compared_to_base: float | None


def table_3(results: Sequence[tuple[int, Crops, Evaluation]]) -> list[Table3Row]:
    """The paper's Table 3 of (number of models, crops, result); the first is the base."""
    rows: list[Table3Row] = []
    for models, crops, evaluation in results:
        count = _CROP_COUNTS[crops]
        error = 1 - evaluation.top_5
        difference = error - rows[0].top_5_error if rows else None
        rows.append(Table3Row(models, count, models * count, error, difference))
    return rows
