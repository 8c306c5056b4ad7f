"""How often each exported format predicts the same class as the trained model, on a whole test set.

    TFDS_DATA_DIR=... python benchmarks/agreement.py RUN

RUN is the folder of a run on Fashion-MNIST (see fashion_mnist.py). The script exports each format
as `keras-inception export` does, with int8 calibrated on 200 training images, and predicts the
10,000 test images. Writes benchmarks/results/agreement.csv.
"""

import csv
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from keras_inception import available_formats, export, load, open_data

RESULTS = Path(__file__).parent / "results" / "agreement.csv"
COLUMNS = ("format", "same_first_class", "accuracy", "largest_difference", "images", "bytes")


def main(run: Path) -> None:
    """Export, predict, compare, write the table."""
    data = open_data("tfds:fashion_mnist")
    pixels, truth = data.test.images, np.asarray(data.test.labels)
    with tempfile.TemporaryDirectory() as folder:
        images = data.train.images[:200]
        exported = export(run, Path(folder), available_formats(), images=images)
        scores = {"keras": all_scores(load(run).network.scores, pixels)}
        for row in exported[1:]:
            scores[row.kind] = all_scores(load(row.path).network.scores, pixels)
    sizes = {row.kind: row.size for row in exported}
    about = (version("tensorflow-cpu"), version("openvino"), date.today().isoformat())
    with RESULTS.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow((*COLUMNS, "tensorflow", "openvino", "date"))
        for kind, found in scores.items():
            same = np.mean(found.argmax(1) == scores["keras"].argmax(1))
            accuracy = np.mean(found.argmax(1) == truth)
            difference = np.abs(found - scores["keras"]).max()
            row = (f"{same:.4f}", f"{accuracy:.4f}", f"{difference:.1e}", len(pixels))
            rows.writerow((kind, *row, sizes[kind], *about))
            print(f"{kind}: {same:.2%} the same, accuracy {accuracy:.2%}")


def all_scores(scores: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Return the scores of all images, computed in batches of 100."""
    batches = (pixels[start : start + 100] for start in range(0, len(pixels), 100))
    return np.concatenate([scores(batch.astype(np.float32)) for batch in batches])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
