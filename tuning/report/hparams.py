"""A search for TensorBoard's HParams tab. Needs `tensorboard`."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import api

from tuning.trials import read_trials

HPARAMS_FOLDER = "hparams"


def write_hparams(folder: Path) -> Path:
    """Write each completed trial's hyperparameters and numbers.

    Returns:
        The folder for `tensorboard --logdir`.
    """
    logs = folder / HPARAMS_FOLDER
    for trial in read_trials(folder):
        if trial.status != "COMPLETED" or (logs / str(trial.number)).exists():
            continue
        with tf.summary.create_file_writer(str(logs / str(trial.number))).as_default():
            api.hparams(trial.values, trial_id=f"trial {trial.number}")
            for name in ("val_accuracy", "val_loss", "seconds"):
                tf.summary.scalar(name, trial.metrics[name], step=0)
            tf.summary.scalar("macs", trial.macs, step=0)
            tf.summary.scalar("params", trial.params, step=0)
    return logs
