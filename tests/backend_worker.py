"""Run by test_backends.py under another backend: build, one gradient step, save.

    KERAS_BACKEND=jax python tests/backend_worker.py FOLDER

FOLDER contains images.npy and labels.npy. The script writes the weights and outputs before the step
(initial.npz, initial_outputs.npz) and after it (trained.npz, trained_outputs.npz), the outputs of
the same weights with channels first (first_outputs.npz), and the trained model.keras. Prints the
backend, and "tensorflow" if building or training imported it (saving does so in Keras itself).
"""

import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from conftest import tiny_module, tiny_spec

from keras_inception.network.build import build_network
from keras_inception.spec.network import BatchNormSpec, NetworkSpec


def every_layer() -> NetworkSpec:
    """Return a network with LRN, batch normalization and an auxiliary classifier.

    It has no dropout, because the backends draw different masks.
    """
    spec = tiny_spec(norm="lrn", aux=True)
    first = replace(spec.stages[0], modules=(tiny_module("3a"),))
    naive = replace(spec.stages[1], modules=(tiny_module("4a", kernels=(3,), naive=True),))
    return replace(
        spec,
        stages=(first, naive),
        aux=(replace(spec.aux[0], dropout_rate=0.0),),
        batch_norm=BatchNormSpec(momentum=0.9),
        dropout_rate=0.0,
    )


def step(model, images, labels):
    """Take one step of plain SGD on all classifiers with `fit`."""
    losses = dict.fromkeys(model.output, "sparse_categorical_crossentropy")
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=losses)
    model.fit(images, dict.fromkeys(losses, labels), batch_size=len(images), verbose=0)


def main(folder):
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    model = build_network(every_layer(), auxiliary=True)
    np.savez(folder / "initial.npz", *model.get_weights())
    np.savez(folder / "initial_outputs.npz", **model.predict_on_batch(images))
    step(model, images, labels)
    print(keras.backend.backend(), *({"tensorflow"} & set(sys.modules)))
    np.savez(folder / "trained.npz", *model.get_weights())
    np.savez(folder / "trained_outputs.npz", **model.predict_on_batch(images))
    model.save(folder / "model.keras")
    keras.config.set_image_data_format("channels_first")
    first = build_network(every_layer(), auxiliary=True)
    first.set_weights(model.get_weights())  # kernels have one layout in both formats
    np.savez(folder / "first_outputs.npz", **first.predict_on_batch(np.moveaxis(images, -1, 1)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
