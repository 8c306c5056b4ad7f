# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a GoogLeNet sees
#
# Class activation maps, the branches of a module at their scales, images that maximize a filter,
# and DeepDream, which was first shown on a GoogLeNet. These functions work with any network of the
# family. This notebook uses one trained on the bundled sample for a minute; the same calls accept
# `GoogLeNet()` with ImageNet weights.

# %%
import tempfile
from dataclasses import replace
from importlib import resources
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import keras_inception
from keras_inception import RECIPES, VARIANTS, open_data, read_image, train

# %%
data = open_data("sample")
run = Path(tempfile.mkdtemp()) / "run"
result = train(VARIANTS["tiny"], data, replace(RECIPES["quick"], epochs=4), run, verbose=0)
model = result.model
print(f"{result.metrics['top_1']:.1%} of the held-out images are correct")

# %% [markdown]
# ## Class activation maps
#
# The head averages the last grid over its positions and then applies a dense layer to the channels.
# Applying the dense weights before the average gives a map for each class. The mean of the map plus
# the class's bias is the class's logit, so the map shows where in the image the prediction comes
# from.

# %%
SHOWN = [int(np.flatnonzero(data.test.labels == label)[0]) for label in range(10)]
pixels = data.test.images[SHOWN]
maps = keras_inception.class_activation_maps(model, pixels)
logits = maps.mean(axis=(1, 2)) + model.get_layer("predictions_logits").get_weights()[1]
print(f"maps: {maps.shape}, images x grid x classes")

figure, axes = plt.subplots(2, 10, figsize=(15, 3.6))
for column, (image, image_maps) in enumerate(zip(pixels, maps, strict=True)):
    answer = int(logits[column].argmax())
    axes[0, column].imshow(image[..., 0], cmap="gray")
    axes[0, column].set_title(data.class_names[answer], fontsize=9)
    axes[1, column].imshow(image[..., 0], cmap="gray")
    axes[1, column].imshow(
        image_maps[..., answer],
        cmap="inferno",
        alpha=0.6,
        extent=(-0.5, 27.5, 27.5, -0.5),
        interpolation="bilinear",
    )
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## The branches of a module
#
# Visual information is processed at several scales and then aggregated (section 4). The figure
# shows one image in the four branches of 3a. Each row shows the six channels with the strongest
# activation.

# %%
image = data.test.images[SHOWN[7]]
names = [name for name in keras_inception.branch_names(model) if name.startswith("3a_")]
found = keras_inception.activations(model, image[None], names)
figure, axes = plt.subplots(len(names), 7, figsize=(10, 1.5 * len(names)))
for row, (name, answers) in zip(axes, found.items(), strict=True):
    row[0].imshow(image[..., 0], cmap="gray")
    row[0].set_title(name, fontsize=9)
    strongest = answers[0].mean(axis=(0, 1)).argsort()[::-1][:6]
    for axis, channel in zip(row[1:], strongest, strict=True):
        axis.imshow(answers[0, ..., channel], cmap="viridis")
        axis.set_title(f"{channel}", fontsize=8)
for axis in axes.flat:
    axis.axis("off")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Images that maximize a filter
#
# Gradient ascent maximizes one channel, starting from noise and going from small to large image
# sizes. The network has no fixed input size here: the images are three times as large as the
# training images.

# %%
ascent = keras_inception.Ascent(steps=16, octaves=3, jitter=4)
figure, axes = plt.subplots(4, 8, figsize=(12, 6.4))
for row, endpoint in zip(axes, ("3a_3x3", "4a_3x3", "4b_3x3", "4b_5x5"), strict=True):
    images = keras_inception.feature_images(model, endpoint, range(8), 84, ascent)
    for axis, picture in zip(row, images, strict=True):
        axis.imshow(picture[..., 0], cmap="gray")
        axis.axis("off")
    row[0].set_title(endpoint, fontsize=9, loc="left")
plt.show()

# %% [markdown]
# The same for the class scores before the softmax:

# %%
images = keras_inception.feature_images(model, "predictions", range(10), 56, ascent)
figure, axes = plt.subplots(1, 10, figsize=(15, 1.9))
for axis, picture, name in zip(axes, images, data.class_names, strict=True):
    axis.imshow(picture[..., 0], cmap="gray")
    axis.set_title(name, fontsize=9)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## DeepDream
#
# DeepDream amplifies what the endpoint already detects in the image. The network was trained on
# grey images of clothes, so the cat is grey too.

# %%
photo = Path(str(resources.files("keras_inception") / "assets" / "photos" / "cat.jpg"))
cat = read_image(photo, height=180, width=240, channels=1)
dreams = {"": cat} | {
    endpoint: keras_inception.deep_dream(model, cat, endpoint, keras_inception.Ascent(steps=10))
    for endpoint in ("3a", "4b")
}
figure, axes = plt.subplots(1, 3, figsize=(14, 3.8))
for axis, (endpoint, picture) in zip(axes, dreams.items(), strict=True):
    axis.imshow(picture[..., 0], cmap="gray")
    axis.set_title(endpoint)
    axis.axis("off")
plt.show()
