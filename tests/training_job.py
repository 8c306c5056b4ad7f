"""A run of a tiny network with dropout, batch normalization and averages, for tests that kill it.

    python tests/training_job.py STRATEGY OUT [RECIPE_FIELD=JSON ...]

It writes a snapshot after every step. The same command resumes the run in OUT.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from training_steps import noise, one_module_spec

from keras_inception.spec.recipe import Recipe
from keras_inception.training.run import train
from keras_inception.training.strategy import make_strategy

RECIPE = Recipe(
    name="job",
    epochs=4,
    batch_size=8,
    base_learning_rate=0.1,
    average="exponential",
    clip_norm=1.0,
)


def main() -> None:
    """Train; errors end the process with a traceback."""
    strategy_name, out, *changes = sys.argv[1:]
    fields = {name: json.loads(value) for name, value in (item.split("=") for item in changes)}
    strategy = make_strategy(strategy_name)
    spec = one_module_spec(batch_norm=True, dropout_rate=0.4)
    print("ready", flush=True)
    recipe = replace(RECIPE, **fields)
    train(spec, noise(), recipe, Path(out), strategy=strategy, snapshot_steps=1, verbose=0)


if __name__ == "__main__":
    main()
