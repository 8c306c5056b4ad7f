"""Count the threads that compute in each saved network: `runtime_threads.py THREADS FILE...`."""

import json
import os
import sys
from pathlib import Path

import numpy as np

from keras_inception.runtimes.load import load_network

TICKS = os.sysconf("SC_CLK_TCK")


def seconds() -> dict[str, float]:
    """Processor seconds of each thread of this process."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        found[task.name] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


def main() -> None:
    """Print, by file, how many threads did at least a tenth of the work."""
    threads, *files = sys.argv[1:]
    counts = {}
    for file in files:
        network = load_network(file, threads=int(threads))
        images = np.random.default_rng(0).uniform(0, 255, (16, *network.input_shape))
        network.scores(images.astype(np.float32))  # Keras compiles in the first call
        before = seconds()
        while True:
            network.scores(images.astype(np.float32))
            now = seconds()
            spent = [now[task] - before.get(task, 0) for task in now]
            if sum(spent) > 1:
                break
        counts[Path(file).name] = sum(one > 0.1 * sum(spent) for one in spent)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
