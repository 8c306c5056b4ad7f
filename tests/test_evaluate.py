"""Metrics against scikit-learn and hand-computed examples."""

import json
import math

import keras
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from keras_inception.evaluation.scores import evaluate_batches, evaluate_scores


def random_scores(images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities without ties, better than chance, and labels that include every class."""
    random = np.random.default_rng(classes)
    labels = np.arange(images) % classes
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1
    return scipy.special.softmax(logits, axis=1), labels


@pytest.mark.parametrize("classes", [6, 12, 100])
def test_against_scikit_learn(classes):
    scores, labels = random_scores(400, classes)
    result = evaluate_scores(scores, labels)
    predicted = scores.argmax(axis=1)
    assert result.images == 400
    assert result.top_1 == sklearn.metrics.accuracy_score(labels, predicted)
    assert result.top_5 == sklearn.metrics.top_k_accuracy_score(labels, scores, k=5)
    assert result.loss == pytest.approx(sklearn.metrics.log_loss(labels, scores), rel=1e-12)
    np.testing.assert_allclose(
        result.per_class(), sklearn.metrics.recall_score(labels, predicted, average=None)
    )
    assert 0.05 < result.top_1 < result.top_5 < 1


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_with_five_classes_or_fewer_top_5_includes_all(classes):
    scores, labels = random_scores(60, classes)
    result = evaluate_scores(scores, labels)
    assert result.top_5 == 1
    assert result.top_1 == sklearn.metrics.accuracy_score(labels, scores.argmax(axis=1))


def test_by_hand():
    """Labels 0, 1, 2, 1: correct, correct, wrong (0), wrong (2)."""
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.6, 0.0, 0.4], [0.1, 0.4, 0.5]])
    result = evaluate_scores(scores, np.array([0, 1, 2, 1]))
    assert result.top_1 == 0.5
    assert result.loss == pytest.approx(-math.log(0.5 * 0.8 * 0.4 * 0.4) / 4)
    assert result.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 0]]
    assert result.per_class().tolist() == [1, 0.5, 0]


def test_ties_count_against_the_label():
    """Six classes; the label 0 shares its score with one other, then with five others."""
    one_tie = [0.3, 0.3, 0.1, 0.1, 0.1, 0.1]
    constant = [1 / 6] * 6
    result = evaluate_scores(np.array([one_tie, constant]), np.array([0, 0]))
    assert result.top_1 == 0
    assert result.top_5 == 0.5


def test_scores_that_are_nan_count_as_wrong():
    scores = np.full((3, 6), np.nan)
    result = evaluate_scores(scores, np.array([0, 1, 2]))
    assert (result.top_1, result.top_5) == (0, 0)
    assert math.isnan(result.loss)


def test_a_score_of_zero_has_a_finite_loss():
    """The smallest normal float64 is 2^-1022."""
    result = evaluate_scores(np.array([[1.0, 0.0]]), np.array([1]))
    assert result.loss == pytest.approx(1022 * math.log(2))


def test_a_class_without_images_is_null_in_the_json():
    result = evaluate_scores(np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]]), np.array([0, 0]))
    summary = json.loads(json.dumps(result.summary(("a", "b", "c")), allow_nan=False))
    assert summary["per_class"] == {"a": 0.5, "b": None, "c": None}
    assert summary["images"] == 2
    assert summary["top_1"] == 0.5


@pytest.mark.parametrize("labels", [[0], [0, 3], [0, -1]])
def test_labels_must_fit_the_scores(labels):
    with pytest.raises(ValueError, match=r"2 labels from 0 to 2. Received: labels="):
        evaluate_scores(np.full((2, 3), 1 / 3), np.array(labels))


def test_evaluate_runs_the_model_over_all_batches():
    inputs = keras.Input((7,))
    model = keras.Model(inputs, keras.layers.Softmax()(inputs))
    logits = np.random.default_rng(0).normal(size=(10, 7)).astype(np.float32)
    labels = np.arange(10) % 7
    result = evaluate_batches(model, [(logits[:6], labels[:6]), (logits[6:], labels[6:])])
    scores = scipy.special.softmax(logits.astype(np.float64), axis=1)
    assert result.images == 10
    assert result.top_1 == sklearn.metrics.accuracy_score(labels, logits.argmax(axis=1))
    assert result.loss == pytest.approx(
        sklearn.metrics.log_loss(labels, scores, labels=range(7)), rel=1e-5
    )


def test_evaluate_needs_images():
    inputs = keras.Input((7,))
    model = keras.Model(inputs, keras.layers.Softmax()(inputs))
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate_batches(model, [])
