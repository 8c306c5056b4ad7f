"""`InceptionHyperModel` in KerasTuner's documented ways: data of every kind, its arguments."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from training_steps import one_module_spec

from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.spec.recipe import Recipe
from tuning import InceptionHyperModel

# A warm-up of half an epoch; 4 steps an epoch.
RECIPE = Recipe(name="job", epochs=2, batch_size=8, base_learning_rate=0.1, warmup=0.25)
BASE = one_module_spec(batch_norm=True, aux=False)
COST = network_cost(BASE).total
IMAGES = np.random.default_rng(0).uniform(-1, 1, (32, 12, 12, 1)).astype("float32")
LABELS = np.arange(32) % 3


def hypermodel(**changes: Any) -> InceptionHyperModel:
    return InceptionHyperModel(
        budget=Budget(macs=3 * COST.macs),
        input_shape=(12, 12, 1),
        classes=3,
        recipe=replace(RECIPE, **changes),
        base=BASE,
        width_divisor=1,
    )


class Rates(keras.callbacks.Callback):
    """The learning rate of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(float(self.model.optimizer.learning_rate))


def fitted_rates(*data: Any, changes: dict[str, Any] | None = None, **options: Any) -> list[float]:
    model, hp, rates = hypermodel(**changes or {}), keras_tuner.HyperParameters(), Rates()
    model.fit(hp, model.build(hp), *data, callbacks=[rates], **options)
    return rates.seen


def cosine(step: float, epochs: int = 2, steps: int = 4) -> float:
    """The rate after the warm-up, of a quarter of all steps, by the formula."""
    peak, total = 0.1 * 8 / 256, epochs * steps
    warmup = total / 4
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + np.cos(np.pi * (step - warmup) / (total - warmup))) / 2


# Keras's at the end of the first epoch of data of unknown length.
RAN_OUT = pytest.mark.filterwarnings("ignore:.*ran out of data:UserWarning")


class Batches(keras.utils.PyDataset):
    """Four batches of eight."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(8 * index, 8 * index + 8)
        return IMAGES[rows], LABELS[rows]


def dataset() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8)


def endless() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while True:
        yield IMAGES[:8], LABELS[:8]


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ((IMAGES, LABELS), {}),
        ((dataset(),), {}),
        ((Batches(),), {}),
        ((dataset().repeat(),), {"steps_per_epoch": 4}),
        ((endless(),), {"steps_per_epoch": 4}),
    ],
    ids=["arrays", "tf.data", "PyDataset", "repeated", "generator"],
)
def test_the_schedule_where_the_number_of_steps_is_known(data: Any, options: Any) -> None:
    expected = [cosine(step) for step in range(8)]
    assert fitted_rates(*data, **options) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@RAN_OUT
def test_a_first_epoch_of_unknown_length_has_the_rate_of_its_middle() -> None:
    """Half of the first of two epochs is the end of the warm-up; then the steps are known."""
    unknown = dataset().unbatch().filter(lambda image, label: True).batch(8)
    rates = fitted_rates(unknown)
    assert rates[:4] == pytest.approx([cosine(2)] * 4, rel=1e-4)
    assert rates[4:] == pytest.approx([cosine(step) for step in range(4, 8)], rel=1e-4)


def test_more_epochs_than_the_recipes_stretch_the_schedule() -> None:
    rates = fitted_rates(IMAGES, LABELS, epochs=4)
    assert rates == pytest.approx([cosine(step, epochs=4) for step in range(16)], abs=1e-7)


def test_an_initial_epoch_continues_the_schedule() -> None:
    rates = fitted_rates(IMAGES, LABELS, initial_epoch=1)
    assert rates == pytest.approx([cosine(step) for step in range(4, 8)], abs=1e-7)


def test_a_callback_that_sets_the_rate_takes_the_schedules_place() -> None:
    model, hp, rates = hypermodel(), keras_tuner.HyperParameters(), Rates()
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 / (epoch + 1))
    model.fit(hp, model.build(hp), IMAGES, LABELS, callbacks=[scheduler, rates])
    assert rates.seen == pytest.approx([0.5] * 4 + [0.25] * 4)


class Endless(keras.utils.PyDataset):
    """The same batch for ever."""

    num_batches = None

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return IMAGES[:8], LABELS[:8]


@pytest.mark.parametrize(
    "data",
    [dataset().repeat(), Endless(), endless(), iter(dataset())],
    ids=["repeated", "PyDataset", "generator", "iterator"],
)
def test_data_without_an_end_need_steps(data: Any) -> None:
    with pytest.raises(ValueError, match=r"steps_per_epoch with such data\. Received: a "):
        fitted_rates(data)


@pytest.mark.parametrize(
    ("data", "options", "missing"),
    [
        (dataset().repeat(), {}, "steps_per_epoch"),
        (dataset(), {"validation_data": dataset().repeat()}, "validation_steps"),
        (dataset(), {"validation_data": endless()}, "validation_steps"),
    ],
    ids=["training", "validation", "validation generator"],
)
def test_data_without_an_end_end_a_stock_search(
    data: Any, options: dict[str, Any], missing: str, tmp_path: Path
) -> None:
    """KerasTuner prints other errors of each trial, and goes on to the next."""
    tuner = keras_tuner.RandomSearch(
        hypermodel(), "accuracy", max_trials=4, directory=tmp_path, project_name="search"
    )
    with pytest.raises(ValueError, match=f"^Expected {missing} with such data"):
        tuner.search(data, **options)


def test_an_endless_py_dataset_with_steps() -> None:
    expected = [cosine(step) for step in range(8)]
    assert fitted_rates(Endless(), steps_per_epoch=4) == pytest.approx(expected, abs=1e-7)


def test_two_inputs_class_weights_and_callbacks_as_in_fit() -> None:
    """A subclass adds an input behind the network, and an optimizer that keeps its own rate."""

    class WithSize(InceptionHyperModel):
        def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
            model, size = super().build(hp), keras.Input((1,), name="size")
            joined = keras.layers.Concatenate()([model.output, size])
            scores = keras.layers.Dense(3, activation="softmax")(joined)
            both = keras.Model([model.input, size], scores)
            both.compile(keras.optimizers.SGD(0.25), model.loss, metrics=["accuracy"])
            return both

    tuned = WithSize(
        budget=Budget(macs=3 * COST.macs),
        input_shape=(12, 12, 1),
        classes=3,
        recipe=RECIPE,
        base=BASE,
        width_divisor=1,
    )
    hp, rates = keras_tuner.HyperParameters(), Rates()
    model, sizes = tuned.build(hp), np.ones((32, 1), "float32")
    weights = {0: 1.0, 1: 2.0, 2: 0.0}
    history = tuned.fit(hp, model, [IMAGES, sizes], LABELS, class_weight=weights, callbacks=[rates])
    assert rates.seen == [0.25] * 8
    assert history.history["macs"] == [network_cost(tuned.spec(hp)).total.macs] * 2


def test_stock_grid_search_moves_several_dimensions(tmp_path: Path) -> None:
    """Ratios have the values 1/2, 1 and 2 and shares 0, 1 and 2: thirty trials move four."""
    hp = keras_tuner.HyperParameters()
    hypermodel().spec(hp)
    assert {item.name: list(item.values) for item in hp.space} == {
        "stem/width_ratio": [0.5, 1.0, 2.0],
        "stage_3/depth": [1, 2],
        "stage_3/reduce_3x3_ratio": [0.5, 1.0, 2.0],
        "stage_3/share_1x1": [0.0, 1.0, 2.0],
        "stage_3/share_pool": [0.0, 1.0, 2.0],
    }
    score = keras_tuner.Objective("score", "max")
    oracle = keras_tuner.oracles.GridSearchOracle(score, max_trials=30, hyperparameters=hp, seed=1)
    oracle.verbose = 0
    oracle._set_project_dir(str(tmp_path), "grid")
    moved = set()
    for _ in range(30):
        trial = oracle.create_trial("one")
        values = trial.hyperparameters.values
        moved |= {item.name for item in hp.space if values[item.name] != item.default}
        oracle.update_trial(trial.trial_id, {"score": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert len(moved) == 4


def test_what_fit_cannot_do_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="Received: average='uniform'"):
        hypermodel(average="uniform")


def test_a_built_model_is_compiled() -> None:
    model = hypermodel().build(keras_tuner.HyperParameters())
    history = model.fit(IMAGES, LABELS, batch_size=8, verbose=0).history
    assert {"loss", "accuracy"} <= set(history)


def test_sample_weights_and_class_weights_change_the_training() -> None:
    """Weights of 0 leave the weights where they are but for their decay, here none."""

    def moved(**options: Any) -> float:
        model, hp = hypermodel(weight_decay=0.0), keras_tuner.HyperParameters()
        built = model.build(hp)
        before = [weight.numpy() for weight in built.trainable_weights]
        model.fit(hp, built, IMAGES, LABELS, **options)
        after = [weight.numpy() for weight in built.trainable_weights]
        return max(np.abs(a - b).max() for a, b in zip(after, before, strict=True))

    assert moved() > 0
    assert moved(sample_weight=np.zeros(32)) == 0
    assert moved(class_weight=dict.fromkeys(range(3), 0.0)) == 0


def test_label_smoothing_by_hand() -> None:
    """Smoothing .3 over 3 classes: .8 and .1, .1 of the probabilities .5, .25, .25."""
    model = hypermodel(label_smoothing=0.3).build(keras_tuner.HyperParameters())
    loss = float(model.loss(np.array([[0]]), np.array([[0.5, 0.25, 0.25]], "float32")))
    assert loss == pytest.approx(-0.8 * np.log(0.5) - 0.2 * np.log(0.25), rel=1e-5)
    assert type(model.loss).from_config(model.loss.get_config()).label_smoothing == 0.3


@RAN_OUT
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"optimizer": keras.optimizers.SGD(0.125)},
        {"loss": "sparse_categorical_crossentropy"},
        {"metrics": ["accuracy"]},
    ],
    ids=["recipe", "optimizer", "loss", "metrics"],
)
def test_a_stock_tuner_with_arguments_of_its_own(tmp_path: Path, overrides: Any) -> None:
    seen: list[float] = []

    class Noted(keras.callbacks.Callback):  # KerasTuner copies callbacks
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(float(self.model.optimizer.learning_rate))

    tuner = keras_tuner.RandomSearch(
        hypermodel(),
        "val_accuracy",
        max_trials=1,
        seed=1,
        directory=tmp_path,
        project_name="plain",
        **overrides,
    )
    unknown = dataset().unbatch().filter(lambda image, label: True).batch(8)
    tuner.search(unknown, validation_data=(IMAGES, LABELS), verbose=0, callbacks=[Noted()])
    own = "optimizer" in overrides
    expected = [0.125] * 8 if own else [cosine(2)] * 4 + [cosine(step) for step in range(4, 8)]
    assert seen == pytest.approx(expected, rel=1e-4)
    best = tuner.get_best_models(1)[0]
    scores = best.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    assert set(scores) == {"loss", "accuracy"}
    assert np.isfinite(scores["loss"])
    again = tuner.hypermodel.build(tuner.get_best_hyperparameters()[0])
    again.fit(IMAGES, LABELS, batch_size=8, verbose=0)


def test_stock_hyperband_continues_the_schedule(tmp_path: Path) -> None:
    """Trials of 1 and of 3 epochs; promoted ones continue the rates of their first epoch."""
    seen: list[tuple[int, float]] = []

    class Noted(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append((self.params["epochs"], float(self.model.optimizer.learning_rate)))

    tuner = keras_tuner.Hyperband(
        hypermodel(epochs=3),
        "val_accuracy",
        max_epochs=3,
        seed=1,
        directory=tmp_path,
        project_name="plain",
    )
    tuner.search(IMAGES, LABELS, validation_data=(IMAGES, LABELS), verbose=0, callbacks=[Noted()])
    short, long = ([rate for epochs, rate in seen if epochs == count] for count in (1, 3))
    assert short[:4] == pytest.approx([cosine(step, epochs=3) for step in range(4)], abs=1e-7)
    assert any(
        long[at : at + 8] == pytest.approx([cosine(s, epochs=3) for s in range(4, 12)], abs=1e-7)
        for at in range(0, len(long), 4)
    )
