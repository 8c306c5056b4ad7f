"""A run under KERAS_BACKEND=jax, on one or several virtual CPU devices.

KERAS_BACKEND=jax python tests/jax_job.py DEVICES OUT
"""

import sys
from dataclasses import replace
from pathlib import Path

from training_steps import PLAIN, noise, one_module_spec

from keras_inception.training.keras_fit import distribute_over_cpus
from keras_inception.training.run import train


def main() -> None:
    """Train two epochs, batch normalization included."""
    devices, out = sys.argv[1:]
    distribute_over_cpus(int(devices))
    recipe = replace(PLAIN, base_learning_rate=0.1)
    train(one_module_spec(batch_norm=True), noise(held_out=20), recipe, Path(out))


if __name__ == "__main__":
    main()
