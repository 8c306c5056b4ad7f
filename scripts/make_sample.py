"""Make the bundled sample: keras_inception/assets/fashion_mnist_sample.npz.

    TFDS_DATA_DIR=... python scripts/make_sample.py

Takes the first TRAIN images of Fashion-MNIST's training set and the first TEST of its test set, in
the order in which TensorFlow Datasets 3.0.1 stores them (already shuffled). The sample's held-out
part is thus disjoint from the training set. Expected: about 3.2 MB, ten classes.
"""

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_PATH = ROOT / "keras_inception" / "assets" / "fashion_mnist_sample.npz"
TRAIN, TEST = 6_000, 1_500


def main() -> None:
    """Write the sample and print its size and class counts."""
    builder = tfds.builder("fashion_mnist:3.0.1")
    builder.download_and_prepare()
    arrays = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        examples = tfds.as_numpy(builder.as_dataset(f"{split}[:{count}]", batch_size=-1))
        arrays[f"{split}_images"] = examples["image"]
        arrays[f"{split}_labels"] = examples["label"].astype(np.uint8)
    np.savez_compressed(
        SAMPLE_PATH, class_names=np.array(builder.info.features["label"].names), **arrays
    )
    print(f"{SAMPLE_PATH}: {SAMPLE_PATH.stat().st_size / 1e6:.2f} MB")
    for split in ("train", "test"):
        counts = np.bincount(arrays[f"{split}_labels"])
        print(f"{split}: {counts.sum()} images, {counts.min()} to {counts.max()} per class")


if __name__ == "__main__":
    main()
