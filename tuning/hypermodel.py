"""The search space as a KerasTuner hypermodel, for any of its tuners."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import keras_tuner

from keras_inception.cost.budget import NetworkBound
from keras_inception.cost.layers import network_cost
from keras_inception.network.build import build_network
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import QUICK, Recipe
from keras_inception.training.keras_fit import require_plain
from keras_inception.training.optimizer import make_optimizer
from tuning.base import base_network, base_with_room, usual_divisor
from tuning.rate_schedule import RecipeSchedule
from tuning.space import Space

# Callbacks that set the learning rate, instead of the recipe's schedule.
_RATE_CALLBACKS = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
_INFINITE = -1  # tf.data's cardinality of a repeated data set


class InceptionHyperModel(keras_tuner.HyperModel):
    """Inception networks within a budget.

        tuner = keras_tuner.RandomSearch(InceptionHyperModel(...), "val_accuracy", max_trials=20)
        tuner.search(images, labels, validation_data=(other_images, other_labels))

    Images are float32, N x height x width x channels, in the pixel convention of the base (that of
    `small` is [-1, 1]); labels N integers from 0. They are used as given: the recipe's augmentation
    is not applied. The tuner's `optimizer`, `loss` and `metrics` replace the recipe's. The first
    trial is random unless the oracle is one of `tuning.engine.oracles`.

    Args:
        budget: the most that a candidate may cost.
        input_shape: (height, width, channels).
        classes: of the labels.
        recipe: how to train; without averages, micro-batches and half precision, which Keras's
            `fit` does not have.
        base: the network at the neutral point, before it is fitted to the budget; None: the
            network of `base_with_room` in the form of `small` with a third stage up to 64
            pixels, of `bn` above.
        width_divisor: as for `Space`; None: the largest that leaves the base room, and with a given
            base 4 below 20 million multiply-adds, otherwise 8.
        depth, kernels, stem, pools: as for `Space`.

    Raises:
        ValueError: a recipe that `fit` cannot follow, or values that `Space` refuses.
    """

    def __init__(
        self,
        *,
        budget: NetworkBound,
        input_shape: tuple[int, int, int],
        classes: int,
        recipe: Recipe = QUICK,
        base: NetworkSpec | None = None,
        width_divisor: int | None = None,
        depth: bool = True,
        kernels: tuple[str, ...] = (),
        stem: bool = True,
        pools: bool = False,
    ) -> None:
        super().__init__()
        require_plain(recipe)
        self.recipe = recipe
        form = base_network(input_shape, classes, base)
        if base is None:
            form, width_divisor = base_with_room(form, budget, width_divisor)
        self.space = Space(
            base=form,
            budget=budget,
            width_divisor=width_divisor or usual_divisor(form),
            depth=depth,
            kernels=kernels,
            stem=stem,
            pools=pools,
        )
        # The optimizers of the recipe; a tuner may replace them by its own.
        self._optimizers: weakref.WeakSet[keras.optimizers.Optimizer] = weakref.WeakSet()

    def spec(self, hp: keras_tuner.HyperParameters) -> NetworkSpec:
        """The network of a trial's hyperparameters, whose ratios and shares are on a grid."""
        return self.space.spec(self.space.declare(hp, grid=True))

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The network, compiled by the recipe at its constant learning rate.

        `fit` adds the recipe's schedule, which needs to know how long the training is.
        """
        model = build_network(self.spec(hp))
        optimizer = make_optimizer(
            self.recipe, model.trainable_variables, self.recipe.learning_rate
        )
        optimizer.global_clipnorm = self.recipe.clip_norm or None
        self._optimizers.add(optimizer)
        smoothing = self.recipe.label_smoothing
        model.compile(
            optimizer,
            SmoothedCrossentropy(smoothing) if smoothing else "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=self.recipe.jit_compile or "auto",
        )
        return model

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        x: Any = None,
        y: Any = None,
        *,
        batch_size: int | None = None,
        epochs: int | None = None,
        callbacks: list[keras.callbacks.Callback] | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Fit by the recipe.

        Its schedule covers the recipe's epochs, or `epochs` if they are more, and is continued
        after `initial_epoch`: give the recipe as many epochs as Hyperband's `max_epochs`. Without a
        known number of steps, the first epoch has one rate, that of its middle. A
        callback that sets the learning rate, or an optimizer of the tuner's, takes its place.

        Args:
            hp, model: of the trial; the model is that of `build`.
            x, y: as `Model.fit` takes them: arrays, tf.data, `PyDataset`, generators.
            batch_size: of arrays; None: the recipe's.
            epochs: at the end; None: the recipe's.
            callbacks: of Keras.
            kwargs: further arguments of `Model.fit`.

        Returns:
            The history; each epoch also has the network's "macs" and "params".

        Raises:
            ValueError: infinite data, or a generator, without `steps_per_epoch`, and as validation
                data without `validation_steps`; the search ends.
        """
        _require_end(x, kwargs, "steps_per_epoch")
        _require_end(kwargs.get("validation_data"), kwargs, "validation_steps")
        last = epochs or self.recipe.epochs
        callbacks = list(callbacks or [])
        own_rate = any(isinstance(callback, _RATE_CALLBACKS) for callback in callbacks)
        if model.optimizer in self._optimizers and not own_rate:
            callbacks.append(RecipeSchedule(self.recipe, max(last, self.recipe.epochs)))
        if _are_arrays(x):
            kwargs["batch_size"] = batch_size or self.recipe.batch_size
        elif getattr(x, "num_batches", None) is None:
            kwargs.setdefault("shuffle", False)  # Keras shuffles no other data, and warns
        if self.recipe.class_weights:
            kwargs.setdefault("class_weight", dict(enumerate(self.recipe.class_weights)))
        options = {"verbose": 0, **kwargs}
        history = model.fit(x, y, epochs=last, callbacks=callbacks, **options)
        cost = network_cost(self.spec(hp)).total
        count = len(history.epoch)
        history.history |= {"macs": [cost.macs] * count, "params": [cost.params] * count}
        return history


@keras.saving.register_keras_serializable("keras_inception")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of integer labels with label smoothing, which Keras's own does not have.

    Args:
        label_smoothing: probability spread evenly over all classes.
    """

    def __init__(self, label_smoothing: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The losses of N images, from N labels and N x classes probabilities."""
        labels = keras.ops.reshape(y_true, (-1,))
        return keras.losses.categorical_crossentropy(
            keras.ops.one_hot(labels, y_pred.shape[-1]),
            y_pred,
            label_smoothing=self.label_smoothing,
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def _require_end(data: Any, options: Mapping[str, Any], steps: str) -> None:
    """Refuse data whose epoch does not end, and an iterator, which the first epoch would use up.

    KerasTuner would print any other error for each trial, and go on.
    """
    if options.get(steps) is not None:
        return
    if isinstance(data, Iterator):
        received = "a generator, which later epochs and trials would find at its end"
    elif isinstance(data, keras.utils.PyDataset) and data.num_batches is None:
        received = "a PyDataset with num_batches=None"
    elif hasattr(data, "cardinality") and int(data.cardinality()) == _INFINITE:
        received = "a data set that repeats for ever"
    else:
        return
    raise keras_tuner.errors.FatalValueError(
        f"Expected {steps} with such data. Received: {received}"
    )


def _are_arrays(data: Any) -> bool:
    """Whether `fit` takes a batch size: for arrays, also several, but not for batches."""
    leaves = keras.tree.flatten(data)
    return bool(leaves) and all(hasattr(leaf, "shape") for leaf in leaves)
