"""The paper's form of the network, without batch normalization, trains from scratch.

    TFDS_DATA_DIR=... python benchmarks/paper_from_scratch.py

The network has LRN, biases, ReLU and no batch normalization, in Table 1's arrangement scaled to 28
pixels. It trains with SGD with momentum and an auxiliary classifier, as in section 6, on all of
Fashion-MNIST (60,000 and 10,000 images). Writes benchmarks/results/paper_from_scratch.csv, one row
per epoch. Expected: a held-out accuracy well above chance (.1) after the first epoch.
"""

import csv
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import keras
import tensorflow as tf
from machine import device

from keras_inception import RECIPES, VARIANTS, AuxSpec, LRNSpec, open_data, train

RESULTS = Path(__file__).parent / "results" / "paper_from_scratch.csv"
EPOCHS = 6

TINY = VARIANTS["tiny"]
SPEC = replace(
    TINY,
    name="paper_28",
    # conv1 -> pool -> LRN -> conv2 -> LRN, as in the paper's stem.
    stem=(*TINY.stem[:2], LRNSpec(name="norm1"), *TINY.stem[2:], LRNSpec(name="norm2")),
    batch_norm=None,
    aux=(AuxSpec(name="aux_1", after="4a", pool_size=3, pool_stride=2, filters=32, units=128),),
    dropout_rate=0.4,
    initializer="caffe_xavier",
    bias_initial_value=0.2,
)
# The paper's recipe without the crops and distortions for large photographs.
RECIPE = replace(
    RECIPES["paper"],
    name="paper_28",
    epochs=EPOCHS,
    batch_size=64,
    crop="none",
    photometric=False,
    shift=2,
)


def main() -> None:
    """Train and write the training curve."""
    data = open_data("tfds:fashion_mnist")
    with tempfile.TemporaryDirectory() as folder:
        metrics = train(SPEC, data, RECIPE, Path(folder)).metrics
    history = metrics["history"]
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    about = (device(), keras.__version__, tf.__version__)
    with RESULTS.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("epoch", *names, "seconds", "device", "keras", "tensorflow", "date"))
        for epoch in range(EPOCHS):
            numbers = (round(history[name][epoch], 4) for name in names)
            rows.writerow((epoch + 1, *numbers, metrics["seconds"], *about, date.today()))


if __name__ == "__main__":
    main()
