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
# # Fine-tune on a folder of your own images
#
# A trained network with frozen lower stages learns new classes from a few images each. This
# notebook creates the image folder from the bundled sample, so that it runs anywhere. To use your
# own images, replace it with a folder that has one subfolder per class, with images of any size and
# format.

# %%
import keras_inception  # before Keras and TensorFlow, whose log messages it hides

print(keras_inception.__version__)

# %%
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from keras_inception import (
    RECIPES,
    VARIANTS,
    ImageData,
    Split,
    fitted_to_data,
    open_data,
    train,
)

logging.getLogger("tensorflow").setLevel(logging.ERROR)  # retracing of small models
WORK = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A folder of images
#
# Three classes with ten images each. The network in the next section is not trained on these
# classes.

# %%
NEW = ("Coat", "Sandal", "Sneaker")
sample = open_data("sample")
OWN = WORK / "my images"
for name in NEW:
    (OWN / name).mkdir(parents=True)
    rows = np.flatnonzero(sample.train.labels == sample.class_names.index(name))[:10]
    for row in rows:
        Image.fromarray(sample.train.images[row, ..., 0]).save(OWN / name / f"{row}.png")

own = open_data(f"dir:{OWN}")
print(own.class_names, f"{len(own.train)} images to train on, {own.note}")
print("unreadable files, skipped:", own.unreadable)

# %% [markdown]
# ## The starting network
#
# This network is trained on the seven other classes. The usual starting point is ImageNet weights:
# `keras-inception weights convert FILE --to start.keras`.

# %%
OTHERS = tuple(name for name in sample.class_names if name not in NEW)


def without_new(split: Split) -> Split:
    """Return the images of the other classes, labelled with their index in `OTHERS`."""
    names = np.array(sample.class_names)[split.labels]
    kept = np.isin(names, OTHERS)
    return Split(split.images[kept], np.array([OTHERS.index(name) for name in names[kept]]))


others = ImageData("others", without_new(sample.train), without_new(sample.test), OTHERS)
start = train(
    fitted_to_data(VARIANTS["nano"], others),
    others,
    replace(RECIPES["quick"], epochs=4),
    WORK / "start",
    verbose=0,
)
print(f"{start.metrics['top_1']:.1%} on its own seven classes")

# %% [markdown]
# ## Fine-tune
#
# The classifier is reinitialized because the classes differ. Everything below module 4a is frozen,
# including the statistics of batch normalization. The same in a shell:
#
#     keras-inception train --variant nano --data "dir:my images" --init start/model.keras \
#         --freeze-until 4a --epochs 8 --batch-size 8

# %%
recipe = replace(RECIPES["quick"], epochs=8, batch_size=8, base_learning_rate=0.05)
spec = fitted_to_data(VARIANTS["nano"], own)
tuned = train(
    spec,
    own,
    replace(recipe, freeze_until="4a"),
    WORK / "tuned",
    init=WORK / "start" / "model.keras",
    verbose=0,
)
scratch = train(spec, own, recipe, WORK / "scratch", verbose=0)
for name, result in (("fine-tuned", tuned), ("from scratch", scratch)):
    print(f"{name:13} {result.metrics['top_1']:.1%} of {result.metrics['images']} held-out images")

# %% [markdown]
# Six held-out images are too few to compare the two. The sample has many more of the three classes.
# How much fine-tuning helps depends on the training of the starting network. This one was trained
# for four epochs on seven kinds of clothes, and training from scratch does about as well.

# %%
for name in ("tuned", "scratch"):
    predictor = keras_inception.load(WORK / name)
    rows = np.flatnonzero(np.isin(np.array(sample.class_names)[sample.test.labels], NEW))
    answers = predictor.answers(sample.test.images[rows], top=1)
    truth = np.array(sample.class_names)[sample.test.labels[rows]]
    right = np.mean([ranked[0][0] == label for ranked, label in zip(answers, truth, strict=True)])
    print(f"{name:13} {right:.1%} of {len(rows)} images")

# %% [markdown]
# The frozen layers are bit for bit unchanged:

# %%
before, after = (
    {layer.name: layer.get_weights() for layer in keras.models.load_model(path).layers}
    for path in (WORK / "start" / "model.keras", WORK / "tuned" / "model.keras")
)
for name in ("conv1_conv", "3a_3x3_bn", "4a_3x3_conv"):
    same = all((a == b).all() for a, b in zip(before[name], after[name], strict=True))
    print(f"{name:13} {'unchanged' if same else 'trained'}")

# %% [markdown]
# ## Predict one image

# %%
picture = next((OWN / "Sandal").iterdir())
for label, score in keras_inception.load(WORK / "tuned")(picture, top=3).labels:
    print(f"{label:10} {score:.3f}")
