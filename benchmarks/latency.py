"""Milliseconds per image at 224 x 224: this package's exports, other runtimes and other networks.

    pip install -e ".[cpu,test]" torch torchvision
    python benchmarks/latency.py            # writes results/latency.csv, under eight minutes
    python benchmarks/latency.py --quick    # a smoke test: two rounds, writes nothing

All networks are measured in one interleaved run: each makes one call per round, so background load
affects all of them alike. The table has medians. The arithmetic limit is the rate of a large
float32 matrix product on the same cores; `share` is the part of that rate that a network's
multiply-adds reach (it can exceed 1 in lower precision). torch runs in its own process and takes
turns with the others. Packages that are not installed are reported and skipped.
"""

import argparse
import csv
import datetime
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from machine import device

RESULTS = Path(__file__).parent / "results" / "latency.csv"
BATCHES = (1, 16)
TORCH_MACS = 1_498_376_192  # torchvision's googlenet, as `network_cost` counts it
COLUMNS = (
    *("network", "batch", "ms_an_image", "share_of_limit", "repetitions", "limit_gmacs"),
    *("device", "versions", "date"),
)
Run = Callable[[], Any]


def matrix_rate() -> float:
    """Return float32 multiply-adds per second of a large matrix product, the best of several."""
    import tensorflow as tf

    size = 2048
    matrix = tf.random.uniform((size, size))
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        tf.matmul(matrix, matrix).numpy()
        best = min(best, time.perf_counter() - started)
    return size**3 / best


class Torch:
    """torchvision's googlenet in its own process, called over pipes."""

    def __init__(self, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--torch-worker", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def milliseconds(self, way: str, batch: int) -> float | None:
        """Return the time of one forward pass, or None if this mode does not run here."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps([way, batch]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def export(self, path: Path) -> None:
        """Write torchvision's own ONNX export with a dynamic batch size."""
        self.milliseconds(f"export {path}", 1)

    def close(self) -> None:
        """End the process."""
        self._process.communicate(input="")


def torch_worker(threads: int) -> None:
    """Answer requests [mode, batch] with the time of one forward pass."""
    import warnings

    import torch
    import torchvision

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep torch's own output out of the answers
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    eager = torchvision.models.googlenet(weights=None, init_weights=False).eval()
    last = torchvision.models.googlenet(weights=None, init_weights=False).eval()
    last = last.to(memory_format=torch.channels_last)
    networks = {"eager": eager, "channels-last": last, "compiled": torch.compile(last)}
    for line in sys.stdin:
        way, batch = json.loads(line)
        taken: float | None = None
        try:
            with torch.inference_mode():
                if way.startswith("export "):
                    torch.onnx.export(
                        eager,
                        (torch.zeros(1, 3, 224, 224),),
                        way.removeprefix("export "),
                        dynamo=False,
                        input_names=["x"],
                        dynamic_axes={"x": {0: "n"}},
                    )
                else:
                    pixels = torch.rand(batch, 3, 224, 224)
                    if way != "eager":
                        pixels = pixels.to(memory_format=torch.channels_last)
                    started = time.perf_counter()
                    networks[way](pixels)
                    taken = (time.perf_counter() - started) * 1e3
        except Exception as error:  # for example, torch.compile without a C++ compiler
            print(f"torchvision {way}: {type(error).__name__}: {error}"[:300], file=sys.stderr)
        print(json.dumps(taken), file=answers, flush=True)


def our_runs(folder: Path, runs: dict[tuple[str, int], tuple[Run, int]]) -> None:
    """Add the exports of `bn` and of `torchvision` (the network that torchvision also has)."""
    import keras
    import tensorflow as tf

    import keras_inception

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    for variant in ("torchvision", "bn"):
        keras.utils.set_random_seed(0)
        model = keras_inception.GoogLeNet(weights=None, variant=variant)
        logits = model.get_layer("predictions_logits")
        # An untrained network's scores are almost equal. Without a clear first class, the check in
        # every export would compare rounding errors.
        logits.bias.assign(np.eye(1, logits.bias.shape[0])[0] * 50)
        macs = keras_inception.network_cost(keras_inception.VARIANTS[variant]).total.macs
        kinds = ["saved_model", "saved_model-bfloat16"]
        if variant == "torchvision":
            kinds += [
                kind
                for kind, package in (
                    ("onnx", "tf2onnx"),
                    ("openvino", "openvino"),
                    ("openvino-bfloat16", "openvino"),
                )
                if available(package)
            ] + ["litert", "litert-int8"]
        for row in keras_inception.export(model, folder / variant, kinds, images=images)[1:]:
            kind, path = row.kind, row.path
            started = time.perf_counter()
            network = keras_inception.load(path).network
            if kind.startswith("saved_model"):
                print(
                    f"{variant} {kind}: load to first answer {time.perf_counter() - started:.2f} s"
                )
            for batch in BATCHES:
                pixels = random.uniform(0, 255, (batch, 224, 224, 3)).astype(np.float32)
                # LiteRT plans its memory for one batch size, so each batch size needs its own
                # network.
                own = "litert" in kind
                scores = keras_inception.load(path).network.scores if own else network.scores
                runs[f"{variant}: {kind}", batch] = (lambda s=scores, p=pixels: s(p), macs)
        for batch in BATCHES:
            inputs = random.uniform(-1, 1, (batch, 224, 224, 3)).astype(np.float32)
            graph = tf.function(lambda x, m=model: m(x, training=False), autograph=False)
            tensor = tf.constant(inputs)
            runs[f"{variant}: keras graph", batch] = (lambda g=graph, t=tensor: g(t).numpy(), macs)
            runs[f"{variant}: keras predict", batch] = (
                lambda m=model, x=inputs: m.predict(x, batch_size=len(x), verbose=0),
                macs,
            )


def application_runs(runs: dict[tuple[str, int], tuple[Run, int]]) -> None:
    """Add networks of keras.applications in graph mode, at 224 x 224."""
    import keras
    import tensorflow as tf

    import keras_inception

    for name in ("ResNet50", "MobileNetV2", "InceptionV3"):
        model = getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3))
        macs = keras_inception.model_cost(model).macs
        for batch in BATCHES:
            tensor = tf.random.uniform((batch, 224, 224, 3))
            graph = tf.function(lambda x, m=model: m(x, training=False), autograph=False)
            runs[f"keras.applications: {name}", batch] = (
                lambda g=graph, t=tensor: g(t).numpy(),
                macs,
            )


def other_runtimes(path: Path, runs: dict[tuple[str, int], tuple[Run, int]]) -> None:
    """Add onnxruntime and OpenVINO on torchvision's own export."""
    random = np.random.default_rng(0)
    inputs = {
        batch: random.uniform(-1, 1, (batch, 3, 224, 224)).astype(np.float32) for batch in BATCHES
    }
    if available("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for batch, pixels in inputs.items():
            call: Run = lambda p=pixels: session.run(None, {"x": p})  # noqa: E731
            runs["torchvision's export: onnxruntime", batch] = (call, TORCH_MACS)
    if available("openvino"):
        import openvino

        for precision in ("f32", "bf16"):
            compiled = openvino.Core().compile_model(
                path, "CPU", {"INFERENCE_PRECISION_HINT": precision}
            )
            for batch, pixels in inputs.items():
                call = lambda c=compiled, p=pixels: c(p)[0]  # noqa: E731
                runs[f"torchvision's export: openvino {precision}", batch] = (call, TORCH_MACS)


def available(package: str) -> bool:
    """Return whether a package is installed; print a line if it is not."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"{package} is not installed: skipped")
    return found


def measure(quick: bool) -> tuple[list[list[Any]], float]:
    """Return rows (network, batch, ms per image, share of the arithmetic limit) and the limit."""
    runs: dict[tuple[str, int], tuple[Run, int]] = {}
    threads = os.cpu_count() or 1
    torch = Torch(threads) if available("torchvision") else None
    with tempfile.TemporaryDirectory() as folder:
        our_runs(Path(folder), runs)
        application_runs(runs)
        torch_runs = []
        if torch:
            torch.export(Path(folder, "torchvision.onnx"))
            other_runtimes(Path(folder, "torchvision.onnx"), runs)
            torch_runs = [
                (way, batch)
                for way in ("eager", "channels-last", "compiled")
                for batch in BATCHES
                if torch.milliseconds(way, batch) is not None
            ]
        times, limit = rounds(runs, torch, torch_runs, seconds=5 if quick else 240, quick=quick)
        macs = {key: count for key, (_, count) in runs.items()}
    if torch:
        torch.close()
    rows = []
    for (name, batch), values in times.items():
        per_image = statistics.median(values) / batch
        rate = macs.get((name, batch), TORCH_MACS) / (per_image / 1e3)
        rows.append([name, batch, round(per_image, 2), round(rate / limit, 3), len(values)])
    return sorted(rows, key=lambda row: (row[1], row[2])), limit


def rounds(
    runs: dict[tuple[str, int], tuple[Run, int]],
    torch: Torch | None,
    torch_runs: list[tuple[str, int]],
    *,
    seconds: float,
    quick: bool,
) -> tuple[dict[tuple[str, int], list[float]], float]:
    """Call each network once per round until the time is up, after two warm-up rounds."""
    times: dict[tuple[str, int], list[float]] = {}
    limit = 0.0
    ends = 0.0
    least = 2 if quick else 15
    count = -2
    while count < least or time.monotonic() < ends:
        if count == 0:
            ends = time.monotonic() + seconds
        limit = max(limit, matrix_rate())
        for key, (call, _) in runs.items():
            started = time.perf_counter()
            call()
            taken = (time.perf_counter() - started) * 1e3
            if count >= 0:
                times.setdefault(key, []).append(taken)
        for way, batch in torch_runs:
            assert torch
            answer = torch.milliseconds(way, batch)
            if count >= 0 and answer is not None:
                times.setdefault((f"torchvision: {way}", batch), []).append(answer)
        count += 1
    return times, limit


def main() -> None:
    """Measure, print and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds, write nothing")
    parser.add_argument("--torch-worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torch_worker:
        torch_worker(arguments.torch_worker)
        return
    rows, limit = measure(arguments.quick)
    print(f"arithmetic limit: {limit / 1e9:.0f} G float32 multiply-adds per second")
    for name, batch, milliseconds, share, count in rows:
        print(f"{batch:>3}  {milliseconds:>8.2f} ms  {share:>6.1%}  {count:>3}x  {name}")
    if arguments.quick:
        return
    packages = ("tensorflow-cpu", "tensorflow", "keras", "onnxruntime", "openvino", "torch")
    versions = " ".join(f"{name} {version(name)}" for name in packages if _installed(name))
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            date = datetime.date.today().isoformat()
            writer.writerow([*row, round(limit / 1e9, 1), device(), versions, date])


def _installed(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
