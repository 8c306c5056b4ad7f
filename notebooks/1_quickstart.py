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
# # Quickstart
#
# Count the cost of a GoogLeNet, build it, read its endpoints, train a small one and predict with
# it. The notebook runs on a CPU in about a minute, without downloads.

# %%
import keras_inception  # before Keras and TensorFlow, whose log messages it hides

print(keras_inception.__version__)

# %%
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

logging.getLogger("tensorflow").setLevel(logging.ERROR)  # retracing of small models

# %% [markdown]
# ## The architecture is data
#
# A *spec* describes a network. Its cost is counted before anything is built. This is the paper's
# Table 1: the printed operations beside the exact multiply-adds of its widths.

# %%
paper = keras_inception.VARIANTS["paper"]
print(f"{'':16}{'output':>16}{'multiply-adds':>16}  printed")
for row in keras_inception.table_1(paper):
    size = " x ".join(str(number) for number in row.output_shape)
    print(f"{row.type:16}{size:>16}{row.macs:>16,}  {row.printed_ops}")
print(keras_inception.network_cost(paper).total)

# %% [markdown]
# ## The network
#
# `GoogLeNet` takes the same arguments as the models in `keras.applications`. `GoogLeNet()`
# downloads ImageNet weights; this notebook initializes the weights randomly instead. Every module
# and branch is an endpoint, under the name of the paper, TF-Slim or torchvision.

# %%
model = keras_inception.GoogLeNet(weights=None)
print(f"{model.count_params():,} parameters, output {model.output_shape}")
print("the branches of 4a:", [name for name in keras_inception.endpoints(model) if "4a_" in name])

features = keras_inception.feature_extractor(model, ["3a", "Mixed_4b", "inception5b", "4a_5x5"])
for name, tensor in features.output.items():
    print(f"{name:12} N x {' x '.join(str(size) for size in tensor.shape[1:])}")

# %% [markdown]
# ## Train a small network
#
# `nano` is the smallest named network, for images of 28 to 64 pixels. The data set is the bundled
# sample of Fashion-MNIST; `open_data` also takes "tfds:NAME" and "dir:PATH". A *recipe* is the
# training configuration as data.

# %%
data = keras_inception.open_data("sample")
spec = keras_inception.fitted_to_data(keras_inception.VARIANTS["nano"], data)
recipe = replace(keras_inception.RECIPES["quick"], epochs=4)
run = Path(tempfile.mkdtemp()) / "run"
result = keras_inception.train(spec, data, recipe, run, verbose=2)
print(f"{result.metrics['top_1']:.1%} of {result.metrics['images']:,} held-out images are correct")
print("files in the folder:", sorted(path.name for path in run.iterdir()))

# %% [markdown]
# ## Predict

# %%
predictor = keras_inception.load(run)
pixels, labels = data.test.images[:8], data.test.labels[:8]
figure, axes = plt.subplots(1, 8, figsize=(14, 2.4))
for axis, image, label, ranked in zip(
    axes, pixels, labels, predictor.answers(pixels, top=1), strict=True
):
    (answer, score), right = ranked[0], ranked[0][0] == data.class_names[label]
    axis.imshow(image[..., 0], cmap="gray")
    axis.set_title(f"{answer}\n{score:.0%}", color="green" if right else "red", fontsize=10)
    axis.axis("off")
plt.show()

# %% [markdown]
# The `.keras` file is an ordinary Keras model. The name of its input records the pixel convention.

# %%
loaded = keras.models.load_model(run / "model.keras", compile=False)
convention = keras_inception.model_preprocessing(loaded)
scores = loaded.predict(keras_inception.preprocess_input(pixels, model=loaded), verbose=0)
print(f"convention {convention!r}, scores {scores.shape}")
print("the same labels:", [data.class_names[index] for index in np.argmax(scores, axis=1)])
