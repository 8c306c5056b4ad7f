"""The page of an evaluation, and the parts of it that the page of a training has too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_inception.data.splits import AnySplit
from keras_inception.evaluation.scores import Evaluation
from keras_inception.reports.page import embedded, thumbnail, write_page

# Of a network that is hardly trained, or of thousands of images, the page shows this many.
MOST_MISTAKES = 24


@dataclass(frozen=True)
class ClassRow:
    """One class of a table: how many images it has, and which of them were recognized.

    Attributes:
        recall: share of the class's images with its label; NaN without images.
        precision: share of the images with its label that are of the class; NaN without images.
        mistaken_for: the most frequent wrong label of its images, "" where there is none.
        times: how often.
    """

    name: str
    images: int
    recall: float
    precision: float
    mistaken_for: str
    times: int


@dataclass(frozen=True)
class Mistake:
    """An image with a wrong label. `score` is the wrong label's, `own_score` the true one's."""

    picture: str
    label: str
    predicted: str
    score: float
    own_score: float


def write_evaluation_page(
    path: Path,
    evaluation: Evaluation,
    mistakes: Sequence[Mistake],
    class_names: Sequence[str],
    *,
    title: str,
    confusion: bytes | None,
) -> None:
    """Write the page of an evaluation: accuracy, confusion, classes, worst mistakes.

    Args:
        path: of the HTML file.
        mistakes: of `worst_mistakes`.
        title: such as the model and the data.
        confusion: the PNG of the confusion matrix; None without matplotlib.
    """
    write_page(
        path,
        "evaluation.html",
        title=title,
        **evaluation_values(evaluation, mistakes, class_names, confusion),
    )


def evaluation_values(
    evaluation: Evaluation,
    mistakes: Sequence[Mistake],
    class_names: Sequence[str],
    confusion: bytes | None,
) -> dict[str, object]:
    """The variables of the template `_evaluation.html`."""
    return {
        "evaluation": evaluation,
        "classes": class_rows(evaluation.confusion, class_names),
        "mistakes": mistakes,
        "confusion": None if confusion is None else embedded(confusion),
    }


def class_rows(confusion: np.ndarray, class_names: Sequence[str]) -> list[ClassRow]:
    """A row for each class of a confusion matrix, those recognized worst first."""
    images, labelled = confusion.sum(axis=1), confusion.sum(axis=0)
    right = np.diag(confusion)
    with np.errstate(invalid="ignore"):
        recall, precision = right / images, right / labelled
    wrong = confusion - np.diag(right)
    rows = [
        ClassRow(
            name=name,
            images=int(images[index]),
            recall=float(recall[index]),
            precision=float(precision[index]),
            mistaken_for=class_names[wrong[index].argmax()] if wrong[index].any() else "",
            times=int(wrong[index].max()),
        )
        for index, name in enumerate(class_names)
    ]
    return sorted(rows, key=lambda row: (np.isnan(row.recall), row.recall))


def worst_mistakes(
    scores: np.ndarray,
    split: AnySplit,
    class_names: Sequence[str],
    shape: tuple[int, int, int],
) -> list[Mistake]:
    """The images whose wrong label has the highest scores, the highest first.

    Args:
        scores: N x classes, for the images of the split in order.
        shape: height, width and channels of the images that the network takes.
    """
    predicted = scores.argmax(axis=1)
    wrong = np.flatnonzero(predicted != split.labels)
    worst = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind="stable")][:MOST_MISTAKES]
    images = split.fitted(worst, shape[:2], shape[2]) if len(worst) else ()
    return [
        Mistake(
            picture=thumbnail(image),
            label=class_names[split.labels[position]],
            predicted=class_names[predicted[position]],
            score=float(scores[position, predicted[position]]),
            own_score=float(scores[position, split.labels[position]]),
        )
        for image, position in zip(images, worst, strict=True)
    ]
