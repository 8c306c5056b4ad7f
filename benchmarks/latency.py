"""Milliseconds per image at 224 x 224: this package's exports beside other runtimes' own ways.

    pip install -e ".[cpu,test]" torch torchvision
    python benchmarks/latency.py               # writes results/latency*.csv, about five minutes
    python benchmarks/latency.py --rounds 2    # a smoke test, writes nothing

One network, torchvision's googlenet with one set of weights, runs as this package exports it, and
as others do from torchvision's own ONNX file (onnxruntime, OpenVINO, NNCF), from torch
(torch.compile) and from a plain Keras model (graph mode, TensorFlow's converter to LiteRT). All use
every core, and OpenVINO its latency hint.

In each round every network makes two calls in turn and the second is timed, so that background load
affects all alike and no runtime meets the spinning threads of the one before. The tables have the
medians, and how often the first class is the model's in float32.

`choice` is the fastest of this package's formats that agree, as `export --format fastest
--batch-size N` chooses it by calls of its own. Its ratio is to the best of the others that agree;
the goal is 0.9.
"""

import argparse
import csv
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from machine import device
from PIL import Image

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 16)
ROUNDS = 25
COLUMNS = ("network", "precision", "batch", "ms_an_image", "same_first", "repetitions")
CHOICE_COLUMNS = ("batch", "choice", "ms_an_image", "best_other", "best_other_ms", "ratio")
LEAST_SAME = {"float32": 1.0, "bfloat16": 0.99, "float16": 0.99, "int8": 0.98}
Scores = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Contestant:
    """A network in one runtime.

    Attributes:
        seconds: of one call with so many images.
        first: the first class of each checked image.
    """

    name: str
    precision: str
    seconds: Callable[[int], float]
    first: np.ndarray


def pictures(count: int, seed: int) -> np.ndarray:
    """Return smooth random pictures, uint8 N x 224 x 224 x 3."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 7, 7, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((224, 224))) for one in small])


def contestant(name: str, precision: str, scores: Scores, images: np.ndarray) -> Contestant:
    """Wrap scores of float32 pixels in [0, 255], N x 224 x 224 x 3."""
    pixels = {batch: np.resize(images, (batch, *images.shape[1:])) for batch in BATCHES}
    prepared = {batch: some.astype(np.float32) for batch, some in pixels.items()}

    def seconds(batch: int) -> float:
        scores(prepared[batch])
        started = time.perf_counter()
        scores(prepared[batch])
        return time.perf_counter() - started

    step = max(BATCHES)
    batches = [images[start : start + step] for start in range(0, len(images), step)]
    found = [scores(batch.astype(np.float32)).argmax(axis=1) for batch in batches]
    return Contestant(name, precision, seconds, np.concatenate(found))


class Torch:
    """The process of `latency_torch.py`."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, Path(__file__).with_name("latency_torch.py"), folder]
        self._process = subprocess.Popen(
            [*map(str, command), str(os.cpu_count())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The process of torch has ended; its message is above.")
        return line

    def ask(self, way: str, batch: int) -> Any:
        """The milliseconds of a call, or with a batch of 0 the first classes."""
        assert self._process.stdin
        print(json.dumps([way, batch]), file=self._process.stdin, flush=True)
        return json.loads(self._answer())

    def contestants(self, checked: int) -> Iterator[Contestant]:
        """torch.compile in both precisions, where it runs, on the first images."""
        for way in ("float32", "bfloat16"):
            first = self.ask(way, 0)
            if first is not None and self.ask(way, 1) is not None:
                first = np.array(first[:checked])
                yield Contestant("torch.compile", way, partial(self._seconds, way), first)

    def _seconds(self, way: str, batch: int) -> float:
        return self.ask(way, batch) / 1e3

    def close(self) -> None:
        """End the process."""
        self._process.communicate(input="")


def others(folder: Path, images: np.ndarray, calibration: np.ndarray) -> Iterator[Contestant]:
    """onnxruntime and OpenVINO on torchvision's own export."""
    path = folder / "torchvision.onnx"
    if installed("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        run = prepared(lambda x: session.run(None, {"x": x})[0])
        yield contestant("onnxruntime", "float32", run, images)
    if installed("openvino"):
        import openvino

        plain = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": os.cpu_count()}
        model = openvino.Core().read_model(path)
        forms = [("float32", "f32", model), ("bfloat16", "bf16", model)]
        if installed("nncf"):
            forms.append(("int8", "f32", quantized(model, calibration)))
        for precision, hint, form in forms:
            settings = plain | {"INFERENCE_PRECISION_HINT": hint}
            compiled = openvino.compile_model(form, "CPU", settings)
            run = prepared(partial(_first_output, compiled))
            yield contestant("OpenVINO", precision, run, images)


def _first_output(compiled: Any, inputs: np.ndarray) -> np.ndarray:
    return compiled(inputs)[0]


def quantized(model: Any, calibration: np.ndarray) -> Any:
    """NNCF's post-training quantization with its defaults."""
    import nncf

    items = [to_inputs(image[None].astype(np.float32)) for image in calibration]
    return nncf.quantize(model, nncf.Dataset(items), subset_size=len(items))


def to_inputs(pixels: np.ndarray) -> np.ndarray:
    """N x 3 x h x w in [-1, 1]."""
    return np.ascontiguousarray((pixels / np.float32(127.5) - 1).transpose(0, 3, 1, 2))


def prepared(run: Scores) -> Scores:
    """Keep the last inputs: the pixels' preparation is not part of these networks."""
    kept: list[np.ndarray] = [np.empty(0), np.empty(0)]

    def scores(pixels: np.ndarray) -> np.ndarray:
        if kept[0] is not pixels:
            kept[:] = [pixels, to_inputs(pixels)]
        return run(kept[1])

    return scores


def plain_keras(model: Any, images: np.ndarray, calibration: np.ndarray) -> Iterator[Contestant]:
    """The Keras model as TensorFlow runs and converts it, without this package's export."""
    import keras
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    shape = tf.TensorSpec((None, 224, 224, 3), tf.float32)
    graph = tf.function(lambda x: model(x / 127.5 - 1, training=False), input_signature=[shape])
    yield contestant("Keras in graph mode", "float32", lambda x: graph(x).numpy(), images)
    scaling = keras.layers.Rescaling(1 / 127.5, -1)
    plain = keras.Sequential([keras.Input((224, 224, 3)), scaling, model])
    for precision in ("float32", "int8"):
        converter = tf.lite.TFLiteConverter.from_keras_model(plain)
        if precision == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                [image[None].astype(np.float32)] for image in calibration
            )
        content = converter.convert()
        runs = {}
        for batch in BATCHES:  # memory is planned for one batch size
            runner = Interpreter(model_content=content, num_threads=os.cpu_count())
            source = runner.get_input_details()[0]["index"]
            runner.resize_tensor_input(source, (batch, 224, 224, 3))
            runner.allocate_tensors()
            runs[batch] = runner

        def scores(x: np.ndarray, runs: dict[int, Any] = runs) -> np.ndarray:
            runner = runs[len(x)]
            runner.set_tensor(runner.get_input_details()[0]["index"], x)
            runner.invoke()
            return runner.get_tensor(runner.get_output_details()[0]["index"])

        yield contestant("LiteRT of plain Keras", precision, scores, images)


def ours(folder: Path, model: Any, data: Any) -> list[Contestant]:
    """Every format that agrees with the model."""
    from keras_inception import available_formats, export, load

    found = []
    for kind in (kind for kind in available_formats() if kind != "litert-uint8"):
        try:
            row = export(model, folder / kind, [kind], images=data)[1]
        except ValueError as error:  # it does not agree
            print(error)
            continue
        assert row.path
        loaded = {batch: load(row.path).network.scores for batch in BATCHES}
        precision = kind.partition("-")[2] or "float32"
        scores = partial(_by_batch_size, loaded)
        found.append(contestant(kind, precision, scores, data.check))
        print(f"{kind} is written", flush=True)
    return found


def _by_batch_size(loaded: dict[int, Scores], pixels: np.ndarray) -> np.ndarray:
    return loaded[len(pixels)](pixels)


def measure(rounds: int) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return the rows of both tables."""
    from keras_inception import GoogLeNet, Images

    images, calibration = pictures(64, seed=0), pictures(100, seed=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Each is a class of its own, or int8 would leave layers in float32 for unclear images.
        np.save(folder / "images.npy", np.concatenate([images, calibration]))
        torch = Torch(folder)
        model = GoogLeNet(weights=folder / "network.pth")
        own = ours(folder, model, Images(calibration, images))
        rivals = [*torch.contestants(len(images)), *others(folder, images, calibration)]
        rivals += plain_keras(model, images, calibration)
        expected = model.predict(images / np.float32(127.5) - 1, verbose=0).argmax(axis=1)
        times = timed([*own, *rivals], rounds)
        torch.close()
    rows = [
        {
            "network": one.name,
            "precision": one.precision,
            "batch": batch,
            "ms_an_image": round(statistics.median(taken) * 1e3 / batch, 2),
            "same_first": round(float(np.mean(one.first == expected)), 3),
            "repetitions": len(taken),
        }
        for one in (*own, *rivals)
        for batch, taken in times[one.name, one.precision].items()
    ]
    rows.sort(key=lambda row: (row["precision"], row["batch"], row["ms_an_image"]))
    names = {one.name for one in rivals}
    return rows, [choice_row(rows, batch, names) for batch in BATCHES]


def timed(
    contestants: list[Contestant], rounds: int
) -> dict[tuple[str, str], dict[int, list[float]]]:
    """The seconds of each call, in turns; the first round is not counted."""
    times: dict[tuple[str, str], dict[int, list[float]]] = {}
    for turn in range(rounds + 1):
        for batch in BATCHES:
            for one in contestants:
                taken = one.seconds(batch)
                if turn:
                    own = times.setdefault((one.name, one.precision), {})
                    own.setdefault(batch, []).append(taken)
    return times


def choice_row(rows: list[dict[str, Any]], batch: int, rivals: set[str]) -> dict[str, object]:
    """The fastest format beside the best of the others that agree."""
    at = [row for row in rows if row["batch"] == batch]
    able = [row for row in at if row["same_first"] >= LEAST_SAME[row["precision"]]]
    chosen, best = (
        min(
            (row for row in able if (row["network"] in rivals) == others),
            key=lambda row: row["ms_an_image"],
        )
        for others in (False, True)
    )
    return {
        "batch": batch,
        "choice": chosen["network"],
        "ms_an_image": chosen["ms_an_image"],
        "best_other": f"{best['network']}, {best['precision']}",
        "best_other_ms": best["ms_an_image"],
        "ratio": round(chosen["ms_an_image"] / best["ms_an_image"], 2),
    }


def installed(package: str) -> bool:
    """Return whether a package is installed; print a line if it is not."""
    found = find_spec(package) is not None
    if not found:
        print(f"{package} is not installed: skipped")
    return found


def write(name: str, columns: tuple[str, ...], rows: list[dict[str, object]]) -> None:
    """Write rows with what they were measured on."""
    packages = ("tensorflow-cpu", "onnxruntime", "openvino", "nncf", "ai-edge-litert", "torch")
    versions = " ".join(f"{package} {version(package)}" for package in packages)
    facts = {"device": device(), "versions": versions, "date": str(datetime.date.today())}
    with (RESULTS / name).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [*columns, *facts], lineterminator="\n")
        table.writeheader()
        table.writerows(row | facts for row in rows)


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="fewer write nothing")
    rounds = parser.parse_args().rounds
    rows, choices = measure(rounds)
    print(device())
    for row in [*rows, *choices]:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    if rounds >= ROUNDS:
        write("latency.csv", COLUMNS, rows)
        write("latency_choice.csv", CHOICE_COLUMNS, choices)


if __name__ == "__main__":
    main()
