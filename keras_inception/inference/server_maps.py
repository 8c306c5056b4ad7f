"""What a network sees in an image, as pictures: its branches' activations and its class's place."""

from __future__ import annotations

import base64
import io
from typing import Any

import keras
import numpy as np
from PIL import Image

from keras_inception.evaluation.visualize import branches_by_module, channels_last, last_grid
from keras_inception.network.endpoints import feature_extractor
from keras_inception.runtimes.keras_model import network_input

_MAP_PIXELS = 64  # an activation map is shown at least this large


class Maps:
    """The pictures of a network of the package; made once, and called from one thread at a time.

    Args:
        model: of a `.keras` file.
        labels: its classes.
    """

    def __init__(self, model: keras.Model, labels: tuple[str, ...]) -> None:
        self._modules = branches_by_module(model)
        self._labels = labels
        names = [name for branches in self._modules.values() for name in branches]
        self._grid, self._kernel = last_grid(model)
        self._features = feature_extractor(model, [*dict.fromkeys([*names, *self._grid_names()])])

    @property
    def has_class_map(self) -> bool:
        """Whether the classifier can be applied to every position of the last grid."""
        return self._grid is not None

    def of(self, pixels: np.ndarray, label: int) -> dict[str, Any]:
        """Pictures of one image, each a PNG in base64.

        Args:
            pixels: h x w x C, uint8, of the network's size.
            label: the class to map.

        Returns:
            "image": what the network saw; "branches": name, module and mean activation over
            channels of each; "class_map": label and map, or None.
        """
        inputs = network_input(self._features, pixels[None].astype(np.float32))
        outputs = channels_last(self._features, self._features.predict_on_batch(inputs))
        maps = {name: array[0] for name, array in outputs.items()}
        return {
            "image": _png(pixels[..., 0] if pixels.shape[-1] == 1 else pixels),
            "branches": [
                {"name": name, "module": module, "png": _grey_png(maps[name].mean(axis=-1))}
                for module, names in self._modules.items()
                for name in names
            ],
            "class_map": self._class_map(maps, label),
        }

    def _class_map(self, maps: dict[str, np.ndarray], label: int) -> dict[str, str] | None:
        if self._grid is None:
            return None
        found = maps[self._grid] @ self._kernel[:, label]
        return {"label": self._labels[label], "png": _grey_png(found)}

    def _grid_names(self) -> list[str]:
        return [] if self._grid is None else [self._grid]


def _grey_png(activation: np.ndarray) -> str:
    """h x w floats as a grey PNG, lowest black and highest white."""
    low, high = float(activation.min()), float(activation.max())
    grey = np.round((activation - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    factor = -(-_MAP_PIXELS // grey.shape[0])
    return _png(grey.repeat(factor, 0).repeat(factor, 1))


def _png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
