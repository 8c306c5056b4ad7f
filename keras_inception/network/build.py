"""From a spec to a functional Keras model with named endpoints. No downloads, no training."""

from __future__ import annotations

from typing import Any, Literal

import keras

from keras_inception.network import blocks
from keras_inception.spec.network import ConvSpec, NetworkSpec

Pooling = Literal["avg", "max"]


def build_network(
    spec: NetworkSpec,
    *,
    include_top: bool = True,
    auxiliary: bool = False,
    pooling: Pooling | None = None,
    classifier_activation: str | None = "softmax",
    input_tensor: Any = None,
    include_preprocessing: bool = False,
    name: str | None = None,
) -> keras.Model:
    """Build the network of a spec with new weights.

    Args:
        spec: the architecture.
        include_top: end with the classifier (N x classes). Otherwise end with the last module's
            grid (N x h x w x C), or N x C with `pooling`.
        auxiliary: also return the auxiliary classifiers: the output is then a dict
            {"main": ..., "aux_1": ..., "aux_2": ...} of N x classes each.
        pooling: "avg" or "max", only without the top.
        classifier_activation: of all classifiers; None gives logits.
        input_tensor: a Keras tensor of the spec's input shape, used instead of a new input.
        include_preprocessing: take raw RGB pixels in [0, 255]; the convention `spec.pixels` is
            then applied inside the model, and is saved and exported with it.
        name: of the model; default the spec's.

    Returns:
        A functional model of float pixels in the convention `spec.pixels` (or raw), in the data
        format and dtype policy that are set globally. Classifier outputs are float32.

    Raises:
        ValueError: if the input is smaller than `spec.min_size` or too small for the
            auxiliary classifiers, or arguments exclude each other.
    """
    _check(spec, include_top, auxiliary, pooling)
    inputs = blocks.input_layer(spec, input_tensor, raw=include_preprocessing)
    outputs: dict[str, Any] = {}
    heads = {aux.after: aux for aux in spec.aux} if auxiliary else {}
    x = blocks.preprocessing(inputs, spec) if include_preprocessing else inputs
    signed = not any(isinstance(layer, ConvSpec) for layer in spec.stem)  # until the first ReLU
    x = blocks.stem(x, spec)
    for stage in spec.stages:
        if stage.downsample:
            x = blocks.max_pool(x, stage.downsample, signed=signed)
        signed = False
        for module in stage.modules:
            x = blocks.inception_module(x, spec, module)
            if aux := heads.get(module.name):
                outputs[aux.name] = blocks.auxiliary_classifier(x, spec, aux, classifier_activation)
    if include_top:
        x = blocks.head(x, spec, classifier_activation)
    elif pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)
    if input_tensor is not None:
        sources = keras.utils.get_source_inputs(input_tensor)
        inputs = sources[0] if len(sources) == 1 else sources
    return keras.Model(inputs, {"main": x, **outputs} if auxiliary else x, name=name or spec.name)


def inference_model(model: keras.Model) -> keras.Model:
    """Return the model without auxiliary classifiers: the same layers and weights, one output."""
    if not isinstance(model.output, dict):
        return model
    return keras.Model(model.input, model.output["main"], name=model.name)


def _check(spec: NetworkSpec, include_top: bool, auxiliary: bool, pooling: Pooling | None) -> None:
    if pooling not in (None, "avg", "max"):
        raise ValueError(f'Expected `pooling` None, "avg" or "max". Received: pooling={pooling!r}')
    if include_top and pooling:
        raise ValueError(
            "Expected `pooling` only with include_top=False: the head pools already. "
            f"Received: include_top=True, pooling={pooling!r}"
        )
    if auxiliary and not include_top:
        raise ValueError(
            "Expected auxiliary=True only with include_top=True. Received: include_top=False"
        )
    if auxiliary and not spec.aux:
        raise ValueError(
            f"Expected a spec with auxiliary classifiers. Received: {spec.name!r}, which has none. "
            "Use auxiliary=False, or add `AuxSpec`s to the spec."
        )
    spec.require_min_size()
    if auxiliary and None in spec.input_shape[:2]:
        raise ValueError(
            "Expected a fixed input size for the auxiliary classifiers, whose dense kernels depend "
            f"on it. Received: input_shape={spec.input_shape}"
        )
