"""The classes of ImageNet's classification challenge, included in the package."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import numpy as np

_BACKGROUND = ("n00000000", "background")


@cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Return the 1000 (WordNet id, name), such as ("n02123045", "tabby"), in order of the ids."""
    asset = resources.files("keras_inception") / "assets" / "imagenet_classes.txt"
    lines = asset.read_text(encoding="utf-8").splitlines()
    return tuple((line[:9], line[10:]) for line in lines)


def class_names(count: int) -> tuple[str, ...] | None:
    """Return the class names of an ImageNet classifier; None for another number of classes.

    Args:
        count: 1000, or 1001 with TF-Slim's background first.
    """
    named = (_BACKGROUND, *imagenet_classes())
    skipped = len(named) - count
    return tuple(name for _, name in named[skipped:]) if skipped in (0, 1) else None


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Return the most probable ImageNet classes of each image, like `keras.applications`.

    Args:
        preds: N x 1000 scores, or N x 1001 with TF-Slim's background in column 0.
        top: number of classes per image.

    Returns:
        For each image, best first: (WordNet id, name, score).

    Raises:
        ValueError: for other shapes; the 1008 classes of inception5h have another order.
    """
    scores = np.asarray(preds)
    classes = imagenet_classes()
    if scores.ndim == 2 and scores.shape[1] == len(classes) + 1:
        classes = (_BACKGROUND, *classes)
    if scores.ndim != 2 or scores.shape[1] != len(classes):
        hint = (
            " The 1008 classes of inception5h have an order of their own, which its zip lists in "
            "imagenet_comp_graph_label_strings.txt."
            if scores.shape[-1:] == (1008,)
            else ""
        )
        raise ValueError(
            "Expected `preds` of N x 1000 ImageNet scores, or N x 1001 with the background first. "
            f"Received: preds of shape {scores.shape}.{hint}"
        )
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(*classes[index], float(row[index])) for index in indices]
        for row, indices in zip(scores, best, strict=True)
    ]
