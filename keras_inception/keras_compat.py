"""Private API and undocumented behaviour of Keras: all that this package uses of either.

Each function names the upstream source that it depends on, as seen in Keras 3.15.1. The import of
this module checks that the installed Keras still has it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
from keras.src.utils.module_utils import tensorflow as _tensorflow

_SEEN = "3.15.1"


class Call(NamedTuple):
    """One call of a layer, a nested model or an operation of `keras.ops`."""

    operation: Any
    inputs: list[Any]
    outputs: list[Any]


def calls(function: keras.Function, inputs: list[Any] | None = None) -> Iterator[Call]:
    """The calls of a functional model in the order of computation; a shared layer's are several.

    Args:
        function: the model.
        inputs: Keras tensors instead of the model's own; the calls then have the shapes that
            follow from theirs.

    Reads `Function._nodes_by_depth` and its nodes (keras/src/ops/function.py), as Keras's own
    `summary` does (keras/src/utils/summary_utils.py). The public `Function.operations` lists a
    shared layer once and has no tensors.
    """
    own = function.inputs
    tensors = {id(tensor): given for tensor, given in zip(own, inputs or own, strict=True)}
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            outputs = node.output_tensors
            if inputs is not None and not node.is_input:
                args, kwargs = node.arguments.fill_in(tensors)
                outputs = keras.tree.flatten(node.operation.compute_output_spec(*args, **kwargs))
            for tensor, output in zip(node.output_tensors, outputs, strict=True):
                tensors.setdefault(id(tensor), output)
            yield Call(
                node.operation,
                [tensors[id(tensor)] for tensor in node.input_tensors],
                [tensors[id(tensor)] for tensor in node.output_tensors],
            )


def name_in_keras_ops(operation: Any) -> str | None:
    """The class name of an operation of `keras.ops`, such as "Relu"; None for a layer or another's.

    The classes (keras/src/ops/numpy.py and its neighbours) are not public.
    """
    kind = type(operation)
    is_op = not isinstance(operation, keras.Layer) and _is_keras(kind)
    return kind.__name__ if is_op else None


def _is_keras(kind: type) -> bool:
    return kind.__module__.startswith("keras.")


def optimizer_moments(optimizer: keras.optimizers.Optimizer) -> list[list[Any]]:
    """SGD's momentum (nothing without momentum), or Adam's two moments, of each weight.

    Adam's have no public name (`_momentums`, `_velocities`; keras/src/optimizers/adam.py); SGD's
    `momentums` has.

    Raises:
        ImportError: this Keras has other names.
    """
    try:
        if isinstance(optimizer, keras.optimizers.Adam):
            return [optimizer._momentums, optimizer._velocities]
        return [optimizer.momentums]
    except AttributeError as error:
        raise _gone("an optimizer with its moments", str(error)) from error


def saved_as_keras_layer(cls: type[keras.Layer]) -> type[keras.Layer]:
    """Class decorator: saved files name the layer of the same name in `keras.layers`.

    `serialize_keras_object` (keras/src/saving/serialization_lib.py) writes `__module__` and
    `__name__` of a class that Keras does not export.
    """
    cls.__module__ = "keras.layers"
    # Under another backend Keras's serialization would import TensorFlow for this check.
    if keras.backend.backend() == "tensorflow":
        saved = keras.saving.serialize_keras_object(cls(name="keras_compat_check"))
        loaded = type(keras.saving.deserialize_keras_object(saved))
        if loaded is not getattr(keras.layers, cls.__name__):
            expected = f"a layer saved as keras.layers.{cls.__name__}"
            raise _gone(expected, f"{loaded} after loading it")
    return cls


@contextmanager
def without_tensorflow() -> Iterator[None]:
    """Within it Keras does not import TensorFlow to see whether values have types of TensorFlow.

    `set_random_seed` and saving import it (`tensorflow.available`, keras/src/utils/module_utils.py)
    under every backend. Where it is not imported yet, nothing can have its types.
    """
    before = _tensorflow._available
    if "tensorflow" not in sys.modules:
        _tensorflow._available = False
    try:
        yield
    finally:
        _tensorflow._available = before


def _gone(expected: str, received: str) -> ImportError:
    return ImportError(
        f"Expected {expected}, as in Keras {_SEEN}. Received: {received} in Keras "
        f"{keras.__version__}. Install the version that was seen: pip install keras=={_SEEN}"
    )


def check() -> None:
    """Refuse a Keras without this API.

    Raises:
        ImportError: what is missing.
    """
    # Nothing here takes an automatic name, which would renumber the names in the user's models.
    x = keras.Input((1,), name="keras_compat_check")
    try:
        list(calls(keras.Function(x, x, name="keras_compat_check")))
    except AttributeError as error:
        raise _gone("a keras.Function with `_nodes_by_depth`", str(error)) from error
    if not hasattr(_tensorflow, "_available"):
        raise _gone("`_available` of the module that imports TensorFlow", "none")
    operations = {kind.__name__ for kind in keras.Operation.__subclasses__() if _is_keras(kind)}
    if "Relu" not in operations:
        raise _gone("keras.ops.relu to be an operation named `Relu`", "none of this name")


check()
