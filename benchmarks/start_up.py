"""Start-up time in seconds: import, build, and a SavedModel from load to first prediction.

    python benchmarks/start_up.py

Each measurement runs in its own process. The measurements take turns; the table has medians. Writes
benchmarks/results/start_up.csv. Run it on an idle machine.
"""

import csv
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from machine import device

from keras_inception import GoogLeNet, export

RESULTS = Path(__file__).parent / "results" / "start_up.csv"
ROUNDS = 7
CLOCK = "from time import perf_counter as now\nstarted = now()\n"
SCRIPTS = {
    "import keras": CLOCK + "import keras\nprint(now() - started)",
    "import keras_inception, beyond keras": (
        "import keras\n" + CLOCK + "import keras_inception\nprint(now() - started)"
    ),
    "GoogLeNet(weights=None)": (
        "from keras_inception import GoogLeNet\n"
        + CLOCK
        + "GoogLeNet(weights=None)\nprint(now() - started)"
    ),
    "SavedModel, load to first answer": (
        "import sys\nimport tensorflow as tf\n"
        + CLOCK
        + "loaded = tf.saved_model.load(sys.argv[1])\n"
        "answer = loaded.signatures['images'](pixels=tf.zeros((1, 224, 224, 3)))\n"
        "answer['scores'].numpy()\nprint(now() - started)"
    ),
}


def main() -> None:
    """Measure in turns, print and write the table."""
    seconds: dict[str, list[float]] = {what: [] for what in SCRIPTS}
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "saved_model"
        model = GoogLeNet(weights=None, variant="bn")
        samples = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
        export(model, parent, images=samples)
        for _ in range(ROUNDS):
            for what, script in SCRIPTS.items():
                command = [sys.executable, "-c", script, str(folder)]
                run = subprocess.run(command, check=True, capture_output=True, text=True)
                seconds[what].append(float(run.stdout))
    about = (ROUNDS, device(), keras.__version__, tf.__version__, date.today().isoformat())
    with RESULTS.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("what", "seconds", "rounds", "device", "keras", "tensorflow", "date"))
        for what, taken in seconds.items():
            rows.writerow((what, f"{statistics.median(taken):.3f}", *about))
            print(f"{what}: {statistics.median(taken):.3f} s")


if __name__ == "__main__":
    main()
