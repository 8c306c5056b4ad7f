"""The search space as a KerasTuner hypermodel, for any of its tuners."""

from __future__ import annotations

from typing import Any

import keras
import keras_tuner
import tensorflow as tf

from keras_inception.cost.budget import NetworkBound
from keras_inception.cost.layers import network_cost
from keras_inception.network.build import build_network
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import QUICK, Recipe
from keras_inception.training.keras_fit import compile_model
from tuning.space import Space, base_network


class InceptionHyperModel(keras_tuner.HyperModel):
    """Inception networks within a budget.

        tuner = keras_tuner.RandomSearch(InceptionHyperModel(...), "val_accuracy", max_trials=20)
        tuner.search(images, labels, validation_data=(other_images, other_labels))

    Images are float32, N x height x width x channels, in the pixel convention of the base (that of
    `small` is [-1, 1]); labels N integers from 0. The first trial is random unless the oracle is
    one of `tuning.engine.oracles`.

    Args:
        budget: what every candidate costs at most.
        input_shape: (height, width, channels).
        classes: of the labels.
        recipe: how to train; without averages, micro-batches and half precision, which are not
            Keras's own `fit`'s.
        base: the network at the neutral point; None: `small` up to 64 pixels, `bn` above.
        width_divisor, depth, kernels, stem: as for `Space`.
    """

    def __init__(
        self,
        *,
        budget: NetworkBound,
        input_shape: tuple[int, int, int],
        classes: int,
        recipe: Recipe = QUICK,
        base: NetworkSpec | None = None,
        width_divisor: int = 8,
        depth: bool = False,
        kernels: tuple[str, ...] = (),
        stem: bool = False,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.space = Space(
            base=base_network(input_shape, classes, base),
            budget=budget,
            width_divisor=width_divisor,
            depth=depth,
            kernels=kernels,
            stem=stem,
        )

    def spec(self, hp: keras_tuner.HyperParameters) -> NetworkSpec:
        """The network of a trial's hyperparameters."""
        return self.space.spec(self.space.declare(hp))

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The network, not compiled yet: its schedule needs the number of steps.

        Its outputs are logits; `build_network(spec)` takes its weights and has a softmax.
        """
        return build_network(self.spec(hp), classifier_activation=None)

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        epochs: int | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Compile by the recipe and fit.

        Args:
            x, y: arrays, or a finite tf.data set of batches as `x` alone.
            batch_size: of arrays; None: the recipe's.
            epochs: None: the recipe's. The schedule is the recipe's in any case.
            kwargs: further arguments of `Model.fit`.

        Returns:
            The history; each epoch also has the network's "macs" and "params".
        """
        if isinstance(x, tf.data.Dataset):
            steps, batches = int(x.cardinality()), {}
        else:
            size = batch_size or self.recipe.batch_size
            steps, batches = -(-len(x) // size), {"batch_size": size}
        compile_model(model, self.recipe, total_steps=steps * self.recipe.epochs)
        kwargs = {"verbose": 0, **kwargs, **batches}
        history = model.fit(x, y, epochs=epochs or self.recipe.epochs, **kwargs)
        cost = network_cost(self.spec(hp)).total
        count = len(history.history["loss"])
        history.history |= {"macs": [cost.macs] * count, "params": [cost.params] * count}
        return history
