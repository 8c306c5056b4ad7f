"""Training steps of a tiny network under a strategy, in a separate process.

    python tests/training_steps.py STRATEGY OUT SCENARIO...

TensorFlow fixes its devices once per process, so the tests of strategies start this script. Writes
OUT/SCENARIO.npz: the metrics of each step, the evaluation, and the weights and averages after.
"""

import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from keras_inception.data.splits import ImageData, Split
from keras_inception.data.stream import padded_evaluation_batches, training_batches
from keras_inception.spec.network import (
    AuxSpec,
    BatchNormSpec,
    BranchSpec,
    ConvSpec,
    ModuleSpec,
    NetworkSpec,
    PoolSpec,
    StageSpec,
)
from keras_inception.spec.recipe import Recipe
from keras_inception.training.strategy import is_chief, make_strategy, make_trainer

STEPS = 12
BATCH_SIZE = 8
# Rates at which a wrong sum over devices is visible immediately and no step diverges.
PLAIN = Recipe(
    name="plain", epochs=2, batch_size=BATCH_SIZE, optimizer="sgd", base_learning_rate=1.0
)
SCENARIOS = {
    "plain": PLAIN,
    # The gradient's norm is near 1: a limit of .1 clips every step.
    "clipped": replace(PLAIN, clip_norm=0.1),
    "accumulated": replace(PLAIN, micro_batches=2),
    "everything": replace(
        PLAIN,
        clip_norm=0.1,
        micro_batches=2,
        average="uniform",
        label_smoothing=0.1,
        class_weights=(1.0, 2.0, 0.5),
    ),
    "normalized": PLAIN,
}


def one_module_spec(
    *, batch_norm: bool = False, aux: bool = True, dropout_rate: float = 0.0
) -> NetworkSpec:
    """A stem of one convolution and one module, on 12 x 12 grey images of three classes."""
    module = ModuleSpec(
        name="3a",
        filters_1x1=4,
        spatial=(BranchSpec(kernel_size=3, reduce=4, filters=4),),
        filters_pool_proj=4,
    )
    head = AuxSpec(
        name="aux_1", after="3a", pool_size=3, filters=4, units=8, dropout_rate=dropout_rate
    )
    return NetworkSpec(
        name="one_module",
        input_shape=(12, 12, 1),
        stem=(ConvSpec(name="conv1", filters=4, kernel_size=3), PoolSpec(name="pool1")),
        stages=(StageSpec(name="3", downsample=None, modules=(module,)),),
        aux=(head,) if aux else (),
        batch_norm=BatchNormSpec(momentum=0.9) if batch_norm else None,
        dropout_rate=dropout_rate,
        classes=3,
    )


def noise(training: int = 50, held_out: int = 21) -> ImageData:
    """Random images; the 21 held-out ones have a last batch of 5, which is odd for two devices."""
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = generator.integers(0, 256, (count, 12, 12, 1), dtype=np.uint8)
        return Split(images, generator.integers(0, 3, count))

    return ImageData("noise", split(training), split(held_out), ("a", "b", "c"))


def main() -> None:
    """Run the scenarios and write their results."""
    strategy_name, out, *scenarios = sys.argv[1:]
    strategy = make_strategy(strategy_name)
    data = noise()
    for scenario in scenarios:
        recipe = SCENARIOS[scenario]
        spec = one_module_spec(batch_norm=scenario == "normalized")
        keras.utils.set_random_seed(recipe.seed)
        trainer = make_trainer(spec, recipe, strategy, total_steps=STEPS)

        def training(index: int, count: int, recipe=recipe, spec=spec):
            return training_batches(data.train, spec, recipe, shard_index=index, shard_count=count)

        def held_out(index: int, count: int, spec=spec):
            return padded_evaluation_batches(data.test, spec, BATCH_SIZE, index, count)

        batches = trainer.batches(training)
        metrics = [list(trainer.step(next(batches))[0].values()) for _ in range(STEPS)]
        with trainer.averaged(training):
            evaluation = list(trainer.evaluate(held_out).values())
            averages = trainer.deployed().get_weights()
        weights = trainer.deployed().get_weights()
        if is_chief(strategy):
            np.savez(
                Path(out) / f"{scenario}.npz",
                metrics=metrics,
                evaluation=evaluation,
                weights=np.concatenate([w.ravel() for w in weights]),
                averages=np.concatenate([w.ravel() for w in averages]),
            )


if __name__ == "__main__":
    main()
