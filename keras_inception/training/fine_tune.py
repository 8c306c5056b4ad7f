"""Initial weights from a saved model: fine-tuning."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_inception.network.build import build_network
from keras_inception.network.endpoints import freeze_until
from keras_inception.network.nested import flat_classifier
from keras_inception.runtimes.keras_model import image_shape, load_any_keras
from keras_inception.spec.network import NetworkSpec
from keras_inception.weights.own import pixel_convention
from keras_inception.wording import counted


class Initialization(NamedTuple):
    """What a network got from a file.

    Attributes:
        loaded: names of the layers that have the file's weights.
        reinitialized: names of those that do not: auxiliary classifiers that the file does not
            have, and the last layers of classifiers of another number of classes.
    """

    loaded: tuple[str, ...]
    reinitialized: tuple[str, ...]


class _Initial(NamedTuple):
    """A file's weights by layer, its channels and its pixel convention."""

    weights: dict[str, list[np.ndarray]]
    channels: int | None
    convention: str | None


def initialize(model: keras.Model, path: Path, spec: NetworkSpec) -> Initialization:
    """Give `model` the weights of a .keras file, layer by layer of the same name and shapes.

    Args:
        model: of `build_network(spec)`, with or without auxiliary classifiers.
        path: a .keras file of this package's networks, or of a model around one.
        spec: names the auxiliary classifiers, which need not be in the file.

    Raises:
        ValueError: no .keras file that Keras loads, weights for another pixel convention or other
            channels, or any other layer is missing or has other shapes there; the model is then
            as it was.
    """
    source = _read(path)
    if source.convention not in (None, spec.pixels):
        raise ValueError(
            f"Expected initial weights for pixels in the convention {spec.pixels!r} of "
            f"{spec.name!r}. Received: {str(path)!r}, trained on {source.convention!r}. Give a "
            f'spec with "pixels": "{source.convention}", or other weights.'
        )
    channels = spec.input_shape[2]
    if source.channels not in (None, channels):
        raise ValueError(
            f"Expected initial weights for images of {counted(channels, 'channel')}. Received: "
            f"{str(path)!r}, trained on {counted(source.channels, 'channel')}. Leave out "
            "--channels: images are then converted to those of the weights. Or give other weights."
        )
    auxiliary = tuple(f"{aux.name}_" for aux in spec.aux)
    loaded, fresh, wrong = [], [], []
    for layer in model.layers:
        expected = [weight.shape for weight in layer.get_weights()]
        if not expected:
            continue
        found = source.weights.get(layer.name)
        received = None if found is None else [weight.shape for weight in found]
        if received == expected:
            loaded.append(layer)
        elif layer.name.endswith("_logits") or (
            received is None and layer.name.startswith(auxiliary)
        ):
            fresh.append(layer.name)
        else:
            wrong.append(f"\n - {layer.name}: {expected}\n + {layer.name}: {received}")
    if wrong:
        raise ValueError(
            f"Expected initial weights of these layers and shapes (-). Received: {str(path)!r} "
            f"with (+). Give weights of the same variant and widths:{''.join(wrong)}"
        )
    for layer in loaded:
        layer.set_weights(source.weights[layer.name])
    return Initialization(tuple(layer.name for layer in loaded), tuple(fresh))


def initial_channels(path: Path) -> int | None:
    """The channels of the images that a file's network takes.

    Raises:
        ValueError: no .keras file that Keras loads.
    """
    return _read(path).channels


def describe_initialization(spec: NetworkSpec, path: Path, frozen_until: str | None) -> str:
    """Describe in one line what is loaded, what is reinitialized, and how many parameters train.

    Raises:
        ValueError: as `initialize`, and for an endpoint that the network does not have.
    """
    model = build_network(spec, auxiliary=bool(spec.aux))
    found = initialize(model, path, spec)
    if frozen_until:
        freeze_until(model, frozen_until)
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    fresh = ", ".join(found.reinitialized) or "nothing"
    return (
        f"Initial weights of {counted(len(found.loaded), 'layer')} are those of {path}; "
        f"reinitialized: {fresh}. {trained:,} of {model.count_params():,} parameters train."
    )


def _read(path: Path) -> _Initial:
    if path.suffix != ".keras" or not path.is_file():
        raise ValueError(f"Expected a .keras file of initial weights. Received: {str(path)!r}")
    return _loaded(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)  # a command asks for its channels, then for its weights
def _loaded(path: Path, modified: int) -> _Initial:
    model = load_any_keras(path)
    if isinstance(model, keras.Sequential) or not isinstance(model.output, dict):
        model = flat_classifier(model)
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    return _Initial(weights, image_shape(model)[2], pixel_convention(path))
