"""Run by test_step_table.py under each backend: one step and ten from given weights and batches.

    KERAS_BACKEND=jax python tests/step_rows.py OUT [ROW ...]

Writes OUT/ROW.npz: the first images, the targets and logits of each batch, the weights (by path)
before and after each step, the metrics of each step; of the averages; and logits, labels and the
evaluation of held-out images. OUT/diverged.json says how runs that meet NaN end.
"""

import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import keras
import numpy as np
from training_steps import noise, one_module_spec

from keras_inception.data.stream import (
    evaluation_batches,
    padded_evaluation_batches,
    training_batches,
)
from keras_inception.spec.recipe import Recipe
from keras_inception.training.progress import TrainingDivergedError
from keras_inception.training.run import train
from keras_inception.training.step import Trainer
from keras_inception.training.strategy import make_trainer

STEPS = 10
# A rate of 1 in the first step: what the weights lose is the gradient.
PLAIN = Recipe(
    name="plain",
    epochs=1,
    batch_size=8,
    optimizer="sgd",
    base_learning_rate=32.0,
    warmup=0.0,
    momentum=0.0,
    weight_decay=0.0,
)
CLASS_WEIGHTS = (3.0, 1.0, 0.5)
# Rates of a tenth, in a run of ten steps.
SHORT = replace(PLAIN, base_learning_rate=3.2)
ROWS = {
    "plain": PLAIN,
    "aux": PLAIN,
    "clipping": replace(PLAIN, clip_norm=0.05),
    "smoothing": replace(PLAIN, label_smoothing=0.3),
    "mixup": replace(PLAIN, mixup=1.0),
    "class_weights": replace(PLAIN, class_weights=CLASS_WEIGHTS),
    "class_weights_smoothing": replace(PLAIN, class_weights=CLASS_WEIGHTS, label_smoothing=0.3),
    "frozen": replace(PLAIN, freeze_until="3a"),
    "micro_batches": replace(PLAIN, micro_batches=4),
    "micro_batches_weighted": replace(
        PLAIN, micro_batches=2, class_weights=CLASS_WEIGHTS, clip_norm=0.05
    ),
    "micro_batches_batch_norm": replace(PLAIN, micro_batches=4),
    "weight_decay": replace(PLAIN, weight_decay=0.1),
    "bias_rate": replace(PLAIN, bias_rate=2.0),
    "clipping_bias_rate": replace(PLAIN, clip_norm=0.05, bias_rate=2.0),
    "batch_norm": PLAIN,
    "weight_decay_batch_norm": replace(PLAIN, weight_decay=0.1),
    "bias_rate_batch_norm": replace(PLAIN, bias_rate=2.0),
    "gap_of_30": PLAIN,
    "bfloat16": replace(PLAIN, precision="mixed_bfloat16"),
    "bfloat16_exact": replace(PLAIN, precision="mixed_bfloat16"),
    "momentum": replace(SHORT, momentum=0.9, warmup=0.3),
    "staircase": replace(SHORT, epochs=5, schedule="staircase", decay_factor=0.5, decay_epochs=2),
    "adamw": replace(SHORT, optimizer="adamw", weight_decay=0.1),
    "uniform_average": replace(SHORT, average="uniform", average_start=0.3),
    "exponential_average": replace(SHORT, average="exponential", average_momentum=0.5),
}
# Rows in which every image has these logits, whatever its pixels.
LOGITS = {"gap_of_30": (30.0, 0.0, 0.0), "bfloat16_exact": (1.5, 0.25, -2.0)}
NORMALIZED = (
    "batch_norm",
    "micro_batches_batch_norm",
    "weight_decay_batch_norm",
    "bias_rate_batch_norm",
    "exponential_average",
)


def set_weights(model: keras.Model, row: str) -> None:
    """Weights by NumPy alone."""
    generator = np.random.default_rng(3)
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            continue
        fan_in = np.prod(variable.shape[:-1])
        scale = {"kernel": fan_in**-0.5, "bias": 0.1, "beta": 0.1}.get(variable.name, 0.0)
        offset = 1.0 if variable.name in ("gamma", "moving_variance") else 0.0
        values = offset + scale * generator.standard_normal(variable.shape)
        if row in LOGITS and variable.path.startswith("predictions_logits"):
            values = np.array(LOGITS[row]) if variable.name == "bias" else 0 * values
        variable.assign(values.astype("float32"))


def by_path(model: keras.Model) -> dict[str, np.ndarray]:
    """The trainable weights and the moving statistics."""
    return {
        variable.path: np.array(keras.ops.convert_to_numpy(variable))
        for variable in model.variables
        if variable.name != "seed_generator_state"
    }


def main() -> None:
    """Run the rows."""
    out, names = Path(sys.argv[1]), sys.argv[2:] or [*ROWS]
    for name in names:
        np.savez(out / f"{name}.npz", **run_row(name))
    ends = {"loss": diverged(out / "loss", None), "weight": diverged(out / "weight", 4)}
    (out / "diverged.json").write_text(json.dumps(ends))


def run_row(name: str) -> dict[str, np.ndarray]:
    """Take the steps of a row."""
    recipe = ROWS[name]
    spec = one_module_spec(aux=name == "aux", batch_norm=name in NORMALIZED)
    keras.backend.clear_session()
    steps = STEPS if recipe.base_learning_rate == SHORT.base_learning_rate else 1000
    trainer = make_trainer(spec, recipe, total_steps=steps)
    set_weights(trainer.model, name)
    saved: dict[str, np.ndarray] = {}

    def save(part: str, values: dict[str, np.ndarray]) -> None:
        saved.update({f"{part}/{path}": array for path, array in values.items()})

    save("before", by_path(trainer.model))
    metrics = []
    for number, batch in enumerate(islice(training_batches(noise().train, spec, recipe), STEPS), 1):
        # Without dropout and batch normalization, inference is training.
        save(f"logits_{number}", logits_of(trainer, batch[0]))
        saved[f"labels_{number}"] = batch[1]
        if number == 1:
            saved["images"] = batch[0]
        metrics.append([*trainer.step(trainer.put(batch))[0].values()])
        save(f"after_{number}", by_path(trainer.model))
    images, saved["held_out_labels"] = next(evaluation_batches(noise().test, spec, 100))
    with trainer.averaged(lambda *shard: training_batches(noise().train, spec, recipe)):
        save("averaged", by_path(trainer.model))
        save("held_out", logits_of(trainer, images))
        evaluation = trainer.evaluate(
            lambda *shard: padded_evaluation_batches(noise().test, spec, recipe.batch_size, *shard)
        )
    saved["evaluation"] = np.array([evaluation["loss"], evaluation["accuracy"]])
    return saved | {"metrics": np.array(metrics)}


def logits_of(trainer: Trainer, images: np.ndarray) -> dict[str, np.ndarray]:
    """The logits of each output, in inference mode."""
    outputs = trainer.model.predict_on_batch(images)
    return outputs if isinstance(outputs, dict) else {"main": outputs}


class Poison(keras.callbacks.Callback):
    """A weight becomes NaN after the fourth step."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if batch == 3:
            bias = self.model.trainable_weights[-1]
            bias.assign(np.full(bias.shape, np.nan))


def diverged(folder: Path, snapshot_steps: int | None) -> str:
    """The message of a run that meets NaN: in the loss of step 5, or in the snapshot of step 4."""
    kept = {"callbacks": [Poison()], "snapshot_steps": snapshot_steps, "verbose": 0}
    try:
        train(one_module_spec(aux=False), noise(), PLAIN, folder, **kept)
    except TrainingDivergedError as error:
        return str(error)
    return "trained on"


if __name__ == "__main__":
    main()
