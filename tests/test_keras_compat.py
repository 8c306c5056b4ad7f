"""Private API of Keras: its results, and the error when it is missing."""

import keras
import pytest
from keras import layers, ops

from keras_inception import keras_compat


def test_calls_in_order_with_their_tensors() -> None:
    shared = layers.Dense(2, name="shared")
    inputs = keras.Input((2,), name="in")
    first = shared(inputs)
    model = keras.Model(inputs, ops.relu(shared(first)))
    found = list(keras_compat.calls(model))
    assert [call.operation.name for call in found[:3]] == ["in", "shared", "shared"]
    assert found[1].inputs[0] is inputs
    assert found[1].outputs[0] is first
    assert found[2].inputs[0] is first
    names = [keras_compat.name_in_keras_ops(call.operation) for call in found]
    assert names == [None, None, None, "Relu"]


def test_a_keras_without_the_list_of_calls_is_refused_in_one_line(monkeypatch) -> None:
    monkeypatch.setattr(keras, "Function", lambda *arguments, **options: object())
    with pytest.raises(ImportError, match="with `_nodes_by_depth`") as found:
        keras_compat.check()
    assert "\n" not in str(found.value)
    assert f"in Keras {keras.__version__}. Install" in str(found.value)


def test_operations_under_another_name_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(keras, "Operation", layers.Layer)
    with pytest.raises(ImportError, match="named `Relu`"):
        keras_compat.check()


def test_a_layer_that_does_not_load_as_keras_own_is_refused(monkeypatch) -> None:
    class Dropout(layers.Dropout):
        def __init__(self, rate: float = 0.5, **kwargs) -> None:
            super().__init__(rate, **kwargs)

    as_saved = keras_compat.saved_as_keras_layer(Dropout)
    saved = keras.saving.serialize_keras_object(as_saved(0.25, name="d"))
    assert type(keras.saving.deserialize_keras_object(saved)) is layers.Dropout
    monkeypatch.setattr(layers, "Dropout", layers.Dense)
    with pytest.raises(ImportError, match=r"saved as keras\.layers\.Dropout"):
        keras_compat.saved_as_keras_layer(Dropout)
