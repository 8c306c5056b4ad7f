"""The class index and decode_predictions (test_weights_torchvision.py checks the names)."""

import numpy as np
import pytest

from keras_inception import decode_predictions
from keras_inception.network.imagenet import imagenet_classes


def test_the_index_is_in_the_order_of_the_wordnet_ids():
    ids = [identifier for identifier, _ in imagenet_classes()]
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    # Well-known indices: 281 tabby, 207 golden retriever.
    assert imagenet_classes()[281] == ("n02123045", "tabby")
    assert imagenet_classes()[207] == ("n02099601", "golden_retriever")


def test_the_best_classes_of_each_image():
    scores = np.zeros((2, 1000))
    scores[0, [281, 0, 999]] = (0.6, 0.3, 0.1)
    scores[1, 207] = 1
    first, second = decode_predictions(scores, top=2)
    assert first == [("n02123045", "tabby", 0.6), ("n01440764", "tench", 0.3)]
    assert second[0] == ("n02099601", "golden_retriever", 1.0)
    assert len(decode_predictions(scores)[0]) == 5


def test_tf_slims_background_is_the_first_class():
    scores = np.zeros((1, 1001))
    scores[0, [0, 282]] = (0.7, 0.3)
    best = decode_predictions(scores, top=2)[0]
    assert best == [("n00000000", "background", 0.7), ("n02123045", "tabby", 0.3)]


@pytest.mark.parametrize("shape", [(1000,), (2, 999), (1, 1, 1000)])
def test_other_shapes(shape):
    with pytest.raises(ValueError, match=r"N x 1000.*Received: preds of shape"):
        decode_predictions(np.zeros(shape))


def test_inception5hs_order_is_not_guessed():
    with pytest.raises(ValueError, match=r"1008 .* imagenet_comp_graph_label_strings\.txt"):
        decode_predictions(np.zeros((1, 1008)))
