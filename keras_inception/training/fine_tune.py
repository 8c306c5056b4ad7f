"""Begin with the weights of a saved model: fine-tuning."""

from __future__ import annotations

from pathlib import Path

import keras

from keras_inception.runtimes.keras_model import load_any_keras
from keras_inception.spec.network import NetworkSpec


def initialize(model: keras.Model, path: Path, spec: NetworkSpec) -> tuple[str, ...]:
    """Give `model` the weights of a .keras file, layer by layer of the same name and shapes.

    Args:
        model: of `build_network(spec)`, with or without auxiliary classifiers.
        path: a .keras file of this package's networks.
        spec: names the auxiliary classifiers, which need not be in the file.

    Returns:
        Names of the layers that begin anew: auxiliary classifiers that the file does not have, and
        the last layers of classifiers if the file is for another number of classes.

    Raises:
        ValueError: no .keras file that Keras loads, or any other layer is missing or has other
            shapes there; the model is then as it was.
    """
    if path.suffix != ".keras" or not path.is_file():
        raise ValueError(f"Expected a .keras file of initial weights. Received: {str(path)!r}")
    source = {layer.name: layer for layer in load_any_keras(path).layers}
    auxiliary = tuple(f"{aux.name}_" for aux in spec.aux)
    same, anew, wrong = [], [], []
    for layer in model.layers:
        expected = [weight.shape for weight in layer.get_weights()]
        if not expected:
            continue
        received = None
        if layer.name in source:
            received = [weight.shape for weight in source[layer.name].get_weights()]
        if received == expected:
            same.append(layer)
        elif layer.name.endswith("_logits") or (
            received is None and layer.name.startswith(auxiliary)
        ):
            anew.append(layer.name)
        else:
            wrong.append(f"\n - {layer.name}: {expected}\n + {layer.name}: {received}")
    if wrong:
        raise ValueError(
            f"Expected initial weights of these layers and shapes (-). Received: {str(path)!r} "
            f"with (+):{''.join(wrong)}"
        )
    for layer in same:
        layer.set_weights(source[layer.name].get_weights())
    return tuple(anew)
