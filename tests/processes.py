"""Start scripts of the tests as separate processes, and read their results."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

TESTS = Path(__file__).parent
# The scripts import the same packages as the tests; TensorFlow's log messages are hidden.
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(sys.path)}


def start(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start tests/SCRIPT; its standard error and output are read by `communicate`."""
    return subprocess.Popen(
        [sys.executable, str(TESTS / script), *map(str, arguments)],
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_workers(script: str, *arguments: object) -> list[subprocess.Popen[str]]:
    """Start tests/SCRIPT twice, as two workers that find each other on 127.0.0.1."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return [
        start(
            script,
            *arguments,
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            ),
        )
        for index in range(2)
    ]


def start_jax_workers(script: str, *arguments: object) -> list[subprocess.Popen[str]]:
    """Start tests/SCRIPT twice under JAX, as Keras's `distribution.initialize` finds them."""
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    return [
        start(
            script,
            *arguments,
            KERAS_BACKEND="jax",
            JAX_PLATFORMS="cpu",
            KERAS_DISTRIBUTION_JOB_ADDRESSES=addresses,
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]


def wait_for_all(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for processes that must succeed."""
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]


def run(script: str, *arguments: object) -> None:
    """Run tests/SCRIPT, which must succeed."""
    wait_for_all([start(script, *arguments)])


def saved_weights(folder: Path, name: str = "model.keras") -> np.ndarray:
    """Return all weights of a run's model as one vector."""
    weights = keras.saving.load_model(folder / name, compile=False).get_weights()
    return np.concatenate([weight.ravel() for weight in weights])


def free_ports(count: int) -> list[int]:
    """Return free ports."""
    sockets = [socket.socket() for _ in range(count)]
    for unused in sockets:
        unused.bind(("127.0.0.1", 0))
    ports = [unused.getsockname()[1] for unused in sockets]
    for unused in sockets:
        unused.close()
    return ports
