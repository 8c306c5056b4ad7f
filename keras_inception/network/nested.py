"""Fine-tuned networks in the forms of Keras's transfer-learning guide, as one flat classifier.

A network of this package may be nested in a Sequential or functional model, after augmentation and
rescaling and before the user's head. This module converts it to one graph with the names that the
rest of the package expects: the input's name gives the pixel convention, and the head is
`avg_pool`, `predictions_logits`, `predictions`. The flat form, which needs no conversion, puts the
head on the network's own output:

    keras.Model(features.input, keras.layers.Dense(3, "softmax")(features.output))
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import layers

from keras_inception.network.build import inference_model
from keras_inception.spec.network import INPUT_NAME_PREFIX
from keras_inception.spec.pixels import CONVENTIONS, RAW

FLAT_FORM = "keras.Model(features.input, keras.layers.Dense(N, 'softmax')(features.output))"
# Augmentation is inactive outside of training, except for RandomCrop.
_AUGMENTATIONS = ("RandAugment", "AugMix", "MixUp", "CutMix")
# Layers before a network that keep the range of the pixels.
_GEOMETRY = (layers.Resizing, layers.CenterCrop, layers.RandomCrop, layers.Identity)


def flat_classifier(model: keras.Model) -> keras.Model:
    """Return the classifier as one graph, with the names of `build_network`.

    Args:
        model: a network of this package, or a Sequential or functional model around one. Where
            layers before the network change the values of pixels (Rescaling, ...), the result
            takes them in [0, 255]; otherwise in the network's convention.

    Returns:
        `model` itself if it already is such a network; otherwise a model with its own weights.
        Logits get a softmax; a single output, the score of the second of two classes, becomes two
        outputs.

    Raises:
        ValueError: if there is no network of this package, more than one, or an unsupported form.
    """
    nested = isinstance(model, keras.Sequential) or any(
        isinstance(layer, keras.Model) for layer in model.layers
    )
    if nested or _convention(model) is None:
        return _with_head(_flat(model))
    return _with_head(inference_model(model))


def inner_network(model: keras.Model) -> keras.Model | None:
    """Return the network of this package in a model, or the model itself; None if there is none.

    Raises:
        ValueError: if there is more than one.
    """
    found = list(_networks(model))
    if len(found) > 1:
        raise ValueError(
            f"Expected one network of this package in {model.name!r}. Received: "
            f"{[network.name for network in found]}. Build the flat form: {FLAT_FORM}"
        )
    return found[0] if found else None


def _networks(model: keras.Model) -> Iterator[keras.Model]:
    if _convention(model) is not None:
        yield model
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _networks(layer)


def _convention(model: keras.Model) -> str | None:
    """Return the pixel convention in the name of a model's only input."""
    if isinstance(model, keras.Sequential):  # the name may be that of the network in it
        return None
    names = [tensor.name for tensor in _inputs(model)]
    known = {INPUT_NAME_PREFIX + convention: convention for convention in CONVENTIONS}
    return known.get(names[0]) if len(names) == 1 else None


def _inputs(model: keras.Model) -> list[Any]:
    """Return the inputs of a model; none if it is not built."""
    return getattr(model, "inputs", None) or []


def _flat(model: keras.Model) -> keras.Model:
    network = inner_network(model)
    inputs = _inputs(model)
    if network is None:
        raise ValueError(
            f"Expected an input named {INPUT_NAME_PREFIX}CONVENTION, as networks of this package "
            f"have it, in {model.name!r} or inside. Received: inputs "
            f"{[tensor.name for tensor in inputs]}. Build the network without "
            f"`input_tensor`, and the flat form: {FLAT_FORM}"
        )
    inputs = inputs or network.inputs  # a Sequential model that was never called
    outputs = getattr(model, "outputs", None) or network.outputs
    if not len(inputs) == len(outputs) == len(network.outputs) == 1:
        raise ValueError(
            f"Expected one input and one output around the network in {model.name!r}. Received: "
            f"{len(inputs)} inputs, {len(outputs)} outputs. Build the flat form: "
            f"{FLAT_FORM}"
        )
    # Only the first pass shows whether layers change the pixels.
    for convention in (_convention(network), RAW):
        name = INPUT_NAME_PREFIX + str(convention)
        pixels = keras.Input(batch_shape=inputs[0].shape, name=name)
        copier = _Copier(network, behind=network is model)
        scores = copier.applied(model, pixels)
        if convention == RAW or not copier.changes_pixels:
            break
    flat = keras.Model(pixels, scores, name=model.name)
    copier.set_weights()
    return flat


class _Copier:
    """Runs models on tensors, layer by layer, and copies each layer under a unique name."""

    def __init__(self, network: keras.Model, *, behind: bool) -> None:
        self._network = network
        self._own = {id(layer) for layer in network.layers}
        self._copies: dict[int, Any] = {}
        self._names: set[str] = {layer.name for layer in network.layers}
        self._before_network = not behind
        self.changes_pixels = False

    def applied(self, model: keras.Model, inputs: Any) -> Any:
        """Return the output of a model with one input and one output."""
        if isinstance(model, keras.Sequential):
            x = inputs
            for layer in model.layers:
                x = self._call(layer, x)
            return x
        if not hasattr(model, "operations"):
            raise ValueError(
                f"Expected Sequential and functional models. Received: {type(model).__name__} "
                f"{model.name!r}. Build the flat form: {FLAT_FORM}"
            )
        results = [inputs]

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            results.append(self._call(operation, *args, **kwargs))
            return results[-1]

        # Operations run in order of depth; the last one gives the output.
        structure = keras.tree.pack_sequence_as(model.input, [inputs])
        keras.models.clone_model(
            model,
            input_tensors=structure,
            clone_function=lambda operation: operation,
            call_function=call,
        )
        return results[-1]

    def set_weights(self) -> None:
        """Give the copies the weights of their originals."""
        for original, copy in self._copies.values():
            if copy.weights and not original.weights:
                raise ValueError(
                    f"Expected a model with weights. Received: layer {original.name!r} has none, "
                    "since the model was never called. Train it, or call it once, then save it."
                )
            if copy.weights:
                copy.set_weights(original.get_weights())

    def _call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, keras.Model):
            is_network = operation is self._network
            self._before_network = self._before_network and not is_network
            return self.applied(operation, args[0])
        if _is_augmentation(operation):
            return args[0]
        if self._before_network and not isinstance(operation, _GEOMETRY):
            self.changes_pixels = True
        return self._copy(operation)(*args, **_without(kwargs, "training", "mask"))

    def _copy(self, operation: Any) -> Any:
        if not isinstance(operation, layers.Layer):
            return operation
        if id(operation) not in self._copies:
            config = operation.get_config()
            if id(operation) not in self._own:
                config["name"] = self._own_name(operation)
            copy = type(operation).from_config(config)
            self._copies[id(operation)] = operation, copy
        return self._copies[id(operation)][1]

    def _own_name(self, layer: layers.Layer) -> str:
        """Return its name, or a unique one; the pool of the head gets this package's name."""
        name = layer.name
        if isinstance(layer, layers.GlobalAveragePooling2D) and not self._before_network:
            name = "avg_pool"
        while name in self._names:
            name += "_head"
        self._names.add(name)
        return name


def _without(arguments: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in names}


def _is_augmentation(operation: Any) -> bool:
    name = type(operation).__name__
    return name in _AUGMENTATIONS or (name.startswith("Random") and name != "RandomCrop")


def _with_head(model: keras.Model) -> keras.Model:
    """Return the model with its last dense layer as `predictions_logits` and `predictions`."""
    dense, activation = _head(model)
    named = dense is not None and dense.name == "predictions_logits"
    if dense is None or (named and activation is not keras.activations.linear):
        return model
    kernel, *bias = dense.get_weights()
    if dense.units == 1:
        # The score of the second class: sigmoid(x) is the softmax of 0 and x.
        if activation not in (keras.activations.linear, keras.activations.sigmoid):
            raise ValueError(
                f"Expected a sigmoid, or none, after the single output of {model.name!r}. "
                f"Received: {activation.__name__}"
            )
        kernel, *bias = (
            keras.ops.convert_to_numpy(keras.ops.pad(array, [(0, 0)] * (array.ndim - 1) + [(1, 0)]))
            for array in (kernel, *bias)
        )
    if dense.units == 1 or activation is keras.activations.linear:
        activation = keras.activations.softmax
    logits = layers.Dense(kernel.shape[1], use_bias=bool(bias), name="predictions_logits")
    scores = layers.Activation(activation, dtype="float32", name="predictions")
    result = keras.Model(model.input, scores(logits(dense.input)), name=model.name)
    logits.set_weights([kernel, *bias])
    return result


def _head(model: keras.Model) -> tuple[layers.Dense | None, Any]:
    """Return the last dense layer and the layers after it, if the model ends that way."""
    *before, last = model.operations
    if isinstance(last, layers.Dense):
        return last, last.activation
    dense = before[-1] if before else None
    if isinstance(dense, layers.Dense) and last.input is dense.output:
        if isinstance(last, layers.Activation):
            return dense, last.activation
        if isinstance(last, layers.Softmax):
            return dense, keras.activations.softmax
    return None, None
