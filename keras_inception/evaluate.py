"""How good a network is: top-k accuracy, per class, confusions. Returns numbers, prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from sklearn.metrics import confusion_matrix


@dataclass(frozen=True)
class Evaluation:
    """Results on a labelled set.

    Fields:
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


def evaluate(model: keras.Model, batches: Iterable[tuple[Any, Any]]) -> Evaluation:
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
        confusion=confusion_matrix(labels, scores.argmax(axis=1), labels=np.arange(classes)),
    )
