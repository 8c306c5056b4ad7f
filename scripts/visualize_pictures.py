"""Draw the pictures of docs/visualization.md.

    python scripts/visualize_pictures.py

Trains `small` with the quick recipe on the bundled sample (minutes) and writes class_maps.png,
branches.png, feature_images.png and deep_dream.png to docs/images. Needs TensorFlow; a CPU is
enough.
"""

from importlib import resources
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import keras_inception
from keras_inception import RECIPES, VARIANTS, ImageData, open_data, read_image, train

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
PHOTO = Path(str(resources.files("keras_inception") / "assets" / "photos" / "cat.jpg"))
BOOT = 9  # index of the class
ENDPOINTS = ("3a_3x3", "4a_3x3", "4b_3x3", "4b_5x5")


def main() -> None:
    """Train the network and draw all four pictures."""
    data = open_data("sample")
    with TemporaryDirectory() as folder:
        model = train(VARIANTS["small"], data, RECIPES["quick"], Path(folder) / "run").model
    first = [int(np.flatnonzero(data.test.labels == label)[0]) for label in range(10)]
    _class_maps(model, data, data.test.images[first])
    _branches(model, data.test.images[first[BOOT]])
    _feature_images(model)
    _deep_dream(model)


def _class_maps(model: keras.Model, data: ImageData, pixels: np.ndarray) -> None:
    maps = keras_inception.class_activation_maps(model, pixels)
    bias = model.get_layer("predictions_logits").get_weights()[1]
    answers = (maps.mean(axis=(1, 2)) + bias).argmax(axis=1)
    figure = Figure(figsize=(12, 2.7), layout="constrained")
    for column, (above, below) in enumerate(figure.subplots(2, 10).T):
        answer = answers[column]
        above.set_title(data.class_names[answer], fontsize=9)
        for axes in (above, below):
            axes.imshow(pixels[column, ..., 0], cmap="gray")
            axes.axis("off")
        extent = (-0.5, 27.5, 27.5, -0.5)
        below.imshow(
            maps[column, ..., answer],
            cmap="inferno",
            alpha=0.6,
            extent=extent,
            interpolation="bilinear",
        )
    _save(figure, "class_maps.png")


def _branches(model: keras.Model, image: np.ndarray) -> None:
    names = [name for name in keras_inception.branch_names(model) if name.startswith("3a_")]
    found = keras_inception.activations(model, image[None], names)
    figure = Figure(figsize=(8, 5), layout="constrained")
    for row, (name, answers) in zip(figure.subplots(len(names), 7), found.items(), strict=True):
        row[0].imshow(image[..., 0], cmap="gray")
        row[0].set_title(name, fontsize=9)
        strongest = answers[0].mean(axis=(0, 1)).argsort()[::-1][:6]
        for axes, channel in zip(row[1:], strongest, strict=True):
            axes.imshow(answers[0, ..., channel], cmap="viridis")
        for axes in row:
            axes.axis("off")
    _save(figure, "branches.png")


def _feature_images(model: keras.Model) -> None:
    ascent = keras_inception.Ascent(steps=24, octaves=3, jitter=4)
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    for row, endpoint in zip(figure.subplots(len(ENDPOINTS), 8), ENDPOINTS, strict=True):
        pictures = keras_inception.feature_images(model, endpoint, range(8), 84, ascent)
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture[..., 0], cmap="gray")
            axes.axis("off")
        row[0].set_title(endpoint, fontsize=9, loc="left")
    _save(figure, "feature_images.png")


def _deep_dream(model: keras.Model) -> None:
    cat = read_image(PHOTO, height=240, width=320, channels=1)
    figure = Figure(figsize=(9, 2.5), layout="constrained")
    for axes, endpoint in zip(figure.subplots(1, 3), (None, "3a", "4b"), strict=True):
        ascent = keras_inception.Ascent(steps=10)
        picture = keras_inception.deep_dream(model, cat, endpoint, ascent) if endpoint else cat
        axes.imshow(picture[..., 0], cmap="gray")
        axes.set_title(endpoint or "the photo", fontsize=9)
        axes.axis("off")
    _save(figure, "deep_dream.png")


def _save(figure: Figure, name: str) -> None:
    drawn = BytesIO()
    figure.savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(256).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()
