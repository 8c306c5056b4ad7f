"""Run by test_step_table.py under each backend: one step and ten from given weights and batches.

    KERAS_BACKEND=jax python tests/step_rows.py OUT

Writes OUT/ROW.npz: the weights before, after one step and after ten (by path), the logits and the
targets of the first batch, and the metrics of each step.
"""

import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import keras
import numpy as np
from training_steps import noise, one_module_spec

from keras_inception.data.stream import training_batches
from keras_inception.spec.recipe import Recipe
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
ROWS = {
    "plain": PLAIN,
    "aux": PLAIN,
    "clipping": replace(PLAIN, clip_norm=0.05),
    "smoothing": replace(PLAIN, label_smoothing=0.3),
    "mixup": replace(PLAIN, mixup=1.0),
    "class_weights": replace(PLAIN, class_weights=CLASS_WEIGHTS),
    "frozen": replace(PLAIN, freeze_until="3a"),
    "micro_batches": replace(PLAIN, micro_batches=4),
    "weight_decay": replace(PLAIN, weight_decay=0.1),
    "bias_rate": replace(PLAIN, bias_rate=2.0),
    "batch_norm": PLAIN,
    "gap_of_30": PLAIN,
    "bfloat16": replace(PLAIN, precision="mixed_bfloat16"),
}


def set_weights(model: keras.Model, row: str) -> None:
    """Weights by NumPy alone; in "gap_of_30" every image gets the logits 30, 0, 0."""
    generator = np.random.default_rng(3)
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            continue
        fan_in = np.prod(variable.shape[:-1])
        scale = {"kernel": fan_in**-0.5, "bias": 0.1}.get(variable.name, 0.0)
        offset = 1.0 if variable.name in ("gamma", "moving_variance") else 0.0
        values = offset + scale * generator.standard_normal(variable.shape)
        if row == "gap_of_30" and variable.path.startswith("predictions_logits"):
            values = np.array([30.0, 0, 0]) if variable.name == "bias" else 0 * values
        variable.assign(values.astype("float32"))


def by_path(model: keras.Model) -> dict[str, np.ndarray]:
    """The trainable weights and the moving statistics."""
    return {
        variable.path: np.array(keras.ops.convert_to_numpy(variable))
        for variable in model.variables
        if variable.name != "seed_generator_state"
    }


def main() -> None:
    """Run every row."""
    out = Path(sys.argv[1])
    for row, recipe in ROWS.items():
        spec = one_module_spec(aux=row == "aux", batch_norm=row == "batch_norm")
        keras.backend.clear_session()
        trainer = make_trainer(spec, recipe, total_steps=1000)
        set_weights(trainer.model, row)
        batches = [*islice(training_batches(noise().train, spec, recipe), STEPS)]
        saved = {f"before/{path}": values for path, values in by_path(trainer.model).items()}
        # Without dropout and batch normalization, inference is training.
        outputs = trainer.model.predict_on_batch(batches[0][0])
        outputs = outputs if isinstance(outputs, dict) else {"main": outputs}
        saved |= {f"logits/{name}": values for name, values in outputs.items()}
        saved["labels"] = batches[0][1]
        metrics = []
        for number, batch in enumerate(batches, start=1):
            values, _ = trainer.step(trainer.put(batch))
            metrics.append([*values.values()])
            if number in (1, STEPS):
                weights = by_path(trainer.model)
                saved |= {f"after_{number}/{path}": w for path, w in weights.items()}
        np.savez(out / f"{row}.npz", metrics=metrics, **saved)


if __name__ == "__main__":
    main()
