"""How often each exported format predicts the same class as the trained model, on a whole test set.

    TFDS_DATA_DIR=... python benchmarks/agreement.py RUN

RUN is the folder of a run on Fashion-MNIST (see fashion_mnist.py). The script exports each format
as `keras-inception export` does, with int8 calibrated on 200 training images, and predicts the
10,000 test images. Writes benchmarks/results/agreement.csv.
"""

import csv
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from keras_inception.data.sources import open_data
from keras_inception.exporters.calibration import Images
from keras_inception.exporters.job import available_formats, export_model
from keras_inception.runtimes.keras_model import Scores, load_keras
from keras_inception.runtimes.load import load_network

RESULTS = Path(__file__).parent / "results" / "agreement.csv"
COLUMNS = ("format", "same_first_class", "accuracy", "largest_difference", "images", "bytes")


def main(run: Path) -> None:
    """Export, predict, compare, write the table."""
    data = open_data("tfds:fashion_mnist")
    pixels, truth = data.test.images, np.asarray(data.test.labels)
    images = Images(calibration=data.train.images[:200], check=pixels[:500], truth=truth[:500])
    model = load_keras(run / "model.keras")
    with tempfile.TemporaryDirectory() as folder:
        exported = export_model(model, Path(folder), available_formats(), images=images)
        scores = {"keras": all_scores(load_network(run).scores, pixels)}
        for row in exported[1:]:
            scores[row.kind] = all_scores(load_network(row.path).scores, pixels)
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


def all_scores(scores: Scores, pixels: np.ndarray) -> np.ndarray:
    """Return the scores of all images, computed in batches of 100."""
    batches = (pixels[start : start + 100] for start in range(0, len(pixels), 100))
    return np.concatenate([scores(batch.astype(np.float32)) for batch in batches])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
