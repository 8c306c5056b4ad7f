"""Evaluation metrics: top-k accuracy, accuracy per class, confusion matrix; crops and ensembles.

Returns numbers and prints nothing. Section 7 of the paper defines crops and ensembles.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """Results on a labelled data set.

    Attributes:
        top_1, top_5: share of images whose label is the first class, or among the first five.
        loss: mean cross-entropy in nats.
        confusion: classes x classes counts; row = true class, column = predicted class.
    """

    images: int
    top_1: float
    top_5: float
    loss: float
    confusion: np.ndarray

    def per_class(self) -> np.ndarray:
        """Return the top-1 accuracy of each class (recall); NaN for a class without images."""
        totals = self.confusion.sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.diag(self.confusion) / totals

    def summary(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return the results as a JSON-serializable dict."""
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
        data: a data set, whose test images are used, or a split; its classes are in the order of
            the model's.
        crops: "whole", or the "1", "10" or "144" crops of the paper's section 7.
        batch_size: crops per batch.

    Raises:
        ValueError: if it is not a model, its input is not a fixed square, or it does not have
            the labels.
    """
    network = model if isinstance(model, keras.Model) else load_keras(model)
    split = data.test if isinstance(data, ImageData) else data
    scores = crop_scores(flat_classifier(network), split, crops, batch_size=batch_size)
    return evaluate_scores(scores, np.asarray(split.labels))


def evaluate_batches(model: keras.Model, batches: Iterable[tuple[Any, Any]]) -> Evaluation:
    """Evaluate a model of one output, N x classes of probabilities.

    Args:
        model: ends with softmax; `inference_model` removes auxiliary classifiers.
        batches: pairs of images, in the model's pixel convention, and integer labels.

    Raises:
        ValueError: no images.
    """
    return evaluate_scores(*batch_scores(model, batches))


def batch_scores(
    model: keras.Model, batches: Iterable[tuple[Any, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (N x classes, float64) and labels (N) of batches as `evaluate_batches`.

    Raises:
        ValueError: no images.
    """
    scores, labels = [], []
    for images, batch_labels in batches:
        scores.append(np.asarray(model.predict_on_batch(images), dtype=np.float64))
        labels.append(np.asarray(batch_labels))
    if not scores:
        raise ValueError("Expected at least one batch of images. Received none.")
    return np.concatenate(scores), np.concatenate(labels)


def evaluate_scores(scores: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Evaluate probabilities (N x classes) against integer labels (N).

    A label counts as top k if fewer than k other classes score at least as high. Ties count against
    it, so a network with equal scores, or NaN, for all classes gains nothing.

    Raises:
        ValueError: if there is not one label per row of scores, or a label has no column.
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
    """Return the mean softmax over the crops of each image (section 7).

    The scores of an ensemble are the mean over its models.

    Args:
        model: has one output and an input of fixed size, square for other crops than "whole", whose
            name gives the pixel convention.
        split: the images; any size.
        crops: "whole" is as in `evaluation_batches`; "1", "10" and "144" are
            `keras_inception.images.geometry.scales`.
        batch_size: crops per batch.
        progress: called with the number of finished images whenever it changes.

    Returns:
        N x classes, float64.

    Raises:
        ValueError: if the input has another shape.
    """
    height, width, channels = image_shape(model)
    if height is None or width is None or (height != width and crops != "whole"):
        raise ValueError(
            f"Expected a fixed square input. Received: input_shape={model.input_shape}, "
            f'crops={crops!r}. Of a fixed input of another shape, evaluate the crops "whole".'
        )
    totals = np.zeros((len(split), model.output_shape[-1]))
    counts = np.zeros(len(split))
    if height == width:
        all_views = crop_views(split, height, channels, crops, views_at_once=batch_size)
    else:
        all_views = _whole_views(split, (height, width), channels, batch_size)
    for position, views in all_views:
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


def _whole_views(
    split: AnySplit, size: tuple[int, int], channels: int, images_at_once: int
) -> Iterator[tuple[int, np.ndarray]]:
    """As `crop_views`, the largest centred part of each image for an input of any shape."""
    for position in range(0, len(split), images_at_once):
        rows = np.arange(position, min(position + images_at_once, len(split)))
        yield position, split.fitted(rows, size, channels)[:, None]


@dataclass(frozen=True)
class Table3Row:
    """A row of the paper's Table 3.

    Attributes:
        models, crops: number of models and crops.
        cost: network evaluations per image, models times crops.
        top_5_error: share of images whose label is not among the first five.
        compared_to_base: difference of the error to the first row's; None in that row.
    """

    models: int
    crops: int
    cost: int
    top_5_error: float
    compared_to_base: float | None


def table_3(results: Sequence[tuple[int, Crops, Evaluation]]) -> list[Table3Row]:
    """Return the paper's Table 3 of (number of models, crops, result); the first is the base."""
    rows: list[Table3Row] = []
    for models, crops, evaluation in results:
        count = _CROP_COUNTS[crops]
        error = 1 - evaluation.top_5
        difference = error - rows[0].top_5_error if rows else None
        rows.append(Table3Row(models, count, models * count, error, difference))
    return rows
