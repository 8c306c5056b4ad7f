"""Where the time of a SavedModel goes: oneDNN's log of its primitives, compared with the wall time.

    python benchmarks/onednn_profile.py

Calls the float32 SavedModel of `bn` 30 times at batch 1 and 16 in a process with ONEDNN_VERBOSE=1,
which logs each primitive with its duration. The rest of the wall time is TensorFlow's own:
operations outside oneDNN, and dispatch. Writes benchmarks/results/onednn_profile.csv. Run it on an
idle machine.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

import numpy as np
from machine import device

RESULTS = Path(__file__).parent / "results" / "onednn_profile.csv"
CALLS, WARM_UP = 30, 10
_BEGIN, _END = "calls begin", "calls end"


def answer(folder: str, batch: int) -> None:
    """Run the measured calls, and mark their begin and end in the log."""
    import tensorflow as tf

    serve = tf.saved_model.load(folder).signatures["images"]
    pixels = tf.constant(np.random.default_rng(0).uniform(0, 255, (batch, 224, 224, 3)), tf.float32)
    for _ in range(WARM_UP):
        serve(pixels=pixels)["scores"].numpy()
    print(_BEGIN, flush=True)
    started = time.perf_counter()
    for _ in range(CALLS):
        serve(pixels=pixels)["scores"].numpy()
    seconds = time.perf_counter() - started
    print(f"{_END} {seconds}", flush=True)


def profile(folder: str, batch: int) -> dict[str, tuple[float, int]]:
    """Return primitive -> (milliseconds, runs) per call; "the clock" is the wall time."""
    log = subprocess.run(
        [sys.executable, __file__, folder, str(batch)],
        env=os.environ | {"ONEDNN_VERBOSE": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    counted, end = log.partition(_BEGIN)[2].split(_END)
    times: dict[str, float] = defaultdict(float)
    runs: dict[str, int] = defaultdict(int)
    for line in counted.splitlines():
        fields = line.split(",")
        if len(fields) > 7 and "exec" in fields[:5]:
            kind = fields[fields.index("exec") + 2]
            times[kind] += float(fields[-1]) / CALLS
            runs[kind] += 1
    clock = float(end.split()[0]) * 1e3 / CALLS
    found = {kind: (times[kind], runs[kind] // CALLS) for kind in times}
    outside = clock - sum(times.values())
    return found | {"outside of oneDNN": (outside, 0), "the clock": (clock, 1)}


def main() -> None:
    """Export, profile and write the table."""
    from importlib.metadata import version

    from keras_inception import GoogLeNet, export

    about = (device(), version("tensorflow-cpu"), date.today().isoformat())
    with tempfile.TemporaryDirectory() as parent, RESULTS.open("w", newline="") as file:
        folder = Path(parent) / "saved_model"
        samples = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
        export(GoogLeNet(weights=None, variant="bn"), parent, images=samples)
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("batch", "what", "ms_a_call", "runs_a_call", "device", "tensorflow", "date"))
        for batch in (1, 16):
            for what, (milliseconds, runs) in profile(str(folder), batch).items():
                rows.writerow((batch, what, f"{milliseconds:.2f}", runs, *about))
                print(f"batch {batch}: {what} {milliseconds:.2f} ms, {runs} runs")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        answer(sys.argv[1], int(sys.argv[2]))
    else:
        main()
