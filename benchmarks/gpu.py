"""Training and inference on one GPU under JAX, in one command of less than six minutes.

    KERAS_BACKEND=jax python benchmarks/gpu.py --data DATA [--parts PART ...] [--out CSV]

Needs jax for the card and Keras; torch and torchvision for the comparisons; nothing of TensorFlow.
DATA is Fashion-MNIST: an .npz with train_images, train_labels, test_images and test_labels, or the
folder of its prepared TensorFlow data set (.../fashion_mnist/3.0.1). Parts:

equality: one float32 step of `medium` on the card and on the CPU, without TF32.
resume: a run that is killed and resumed ends with the weights of an uninterrupted run.
fashion: all of Fashion-MNIST with `medium` and the recipe `modern`.
training, inference: images per second of `bn` and of torchvision's googlenet, in turns.

Each row has a result; a part that fails is one row and does not stop the others. The exit code is 1
if a row has failed. `--tiny` runs everything at tiny sizes, for the tests on a CPU.
"""

import argparse
import contextlib
import csv
import io
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
    # torch and the worker processes of `resume` use the same card.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import keras
import numpy as np
from machine import device
from PIL import Image

import keras_inception
from keras_inception import (
    RECIPES,
    VARIANTS,
    ImageData,
    Recipe,
    Split,
    build_network,
    make_trainer,
    open_data,
    train,
)

RESULTS = Path(__file__).parent / "results" / "gpu.csv"
COLUMNS = ("part", "what", "batch", "precision", "value", "unit", "result", "note")
ABOUT = ("card", "versions", "date")
# The part -> the share of all seconds after which it starts nothing more.
PARTS = {"equality": 0.1, "resume": 0.25, "fashion": 0.55, "training": 0.85, "inference": 1.0}
PREPARATION = 30  # seconds that a network may need until its first step has finished
# Largest relative differences between the card and the CPU; see `compared`.
TOLERANCES = {"loss": 1e-5, "change of all weights": 1e-4, "change of the worst tensor": 1e-3}
DETERMINISTIC = "--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0"
GOALS = {"training": 1.2, "seconds": 60.0, "accuracy": 0.948}
KILLED_AFTER, SNAPSHOT_STEPS = 15, 6
# A run in turns: takes that many steps and waits for the last.
Steps = Callable[[int], None]
# (what, precision) -> a function that prepares its steps, in the order of importance.
Makers = dict[tuple[str, str], Callable[[], Steps]]


@dataclass(frozen=True)
class Sizes:
    """What `--tiny` changes."""

    network: str = "bn"
    pixels: int = 224  # of torchvision's network
    batches: tuple[int, ...] = (1, 256)  # the last one trains
    rounds: int = 5
    steps: int = 10
    small: str = "medium"
    epochs: int = 30
    images: int | None = None
    compiler: str = "inductor"


TINY = Sizes("nano", 32, (1, 2), 2, 1, "nano", 1, 256, "eager")


class OutOfTimeError(Exception):
    """Nothing more is started, so that the whole run ends in time."""


class Table:
    """The CSV file, written row by row."""

    def __init__(self, path: Path) -> None:
        self.failed = False
        self._path = path
        self._about = (card(), versions(), date.today())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join((*COLUMNS, *ABOUT)) + "\n", encoding="utf-8")

    def add(self, part: str, what: str, result: str = "measured", **values: Any) -> None:
        """Write a row: `result` is measured, passed, goal reached, goal missed, failed or skipped.

        Args:
            part, what: see COLUMNS.
            result: as above.
            values: of the other columns.
        """
        self.failed |= result == "failed"
        row = {"part": part, "what": what, "result": result, **values}
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(
            (*(row.get(name, "") for name in COLUMNS), *self._about)
        )
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())
        print(*(row[name] for name in COLUMNS if row.get(name, "") != ""), sep="  ", flush=True)

    @contextlib.contextmanager
    def attempt(self, part: str, what: str, **values: Any) -> Iterator[None]:
        """Make a row of any exception within it."""
        try:
            yield
        except Exception as error:
            skipped = isinstance(error, OutOfTimeError | ModuleNotFoundError)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self.add(part, what, "skipped" if skipped else "failed", note=reason, **values)


def card() -> str:
    """Return the accelerator's name, or the processor's."""
    first = jax.devices()[0]
    return device() if first.platform == "cpu" else str(first.device_kind)


def versions() -> str:
    """Return the versions of what computes."""
    found = [f"keras-inception={keras_inception.__version__}"]
    for name in ("keras", "jax", "jaxlib", "torch", "torchvision"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name}={version(name)}")
    platform = " ".join(str(jax.devices()[0].client.platform_version).split())
    return " ".join([*found, platform])


# Fashion-MNIST without TensorFlow.


def fashion_mnist(path: Path | None, sizes: Sizes) -> ImageData:
    """Load all of Fashion-MNIST from `path`, or the bundled sample of it."""
    sample = open_data("sample")
    if path is None:
        data = sample
    else:
        splits = _npz(path) if path.suffix == ".npz" else _records_of(path)
        data = ImageData("fashion_mnist", *splits, class_names=sample.class_names)
    train_part, test_part = (
        Split(split.images[: sizes.images], split.labels[: sizes.images])
        for split in (data.train, data.test)
    )
    return replace(data, train=train_part, test=test_part)


def _npz(path: Path) -> list[Split]:
    with np.load(path) as arrays:
        return [
            Split(arrays[f"{part}_images"].reshape(-1, 28, 28, 1), arrays[f"{part}_labels"])
            for part in ("train", "test")
        ]


def _records_of(folder: Path) -> list[Split]:
    splits = []
    for part in ("train", "test"):
        files = sorted(folder.glob(f"fashion_mnist-{part}.tfrecord*"))
        if not files:
            raise FileNotFoundError(f"Expected fashion_mnist-{part}.tfrecord* in {str(folder)!r}.")
        examples = [example(record) for file in files for record in records(file.read_bytes())]
        images = [np.asarray(Image.open(io.BytesIO(found["image"]))) for found in examples]
        labels = [_varint(found["label"], 0)[0] for found in examples]
        splits.append(Split(np.stack(images)[..., None], np.array(labels)))
    return splits


def records(data: bytes) -> Iterator[bytes]:
    """Split a TFRecord file: length (8 bytes), checksum (4), the record, checksum (4)."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        yield data[at + 12 : at + 12 + length]
        at += length + 16


def example(record: bytes) -> dict[str, bytes]:
    """Return the first value of each feature of a tf.train.Example; an integer as its varint."""
    found = {}
    for _, entry in _fields(dict(_fields(record))[1]):
        pair = dict(_fields(entry))
        ((_, values),) = _fields(pair[2])
        found[pair[1].decode()] = dict(_fields(values))[1]
    return found


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message, which are all that these files have."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 != 2:
            raise ValueError(f"Expected length-delimited fields. Received: wire type {key & 7}")
        length, at = _varint(message, at)
        yield key >> 3, message[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


# equality


def equality(table: Table, sizes: Sizes, data: ImageData, deadline: float) -> None:
    """Compare a step on the card with the CPU's: same weights, same batch, no dropout."""
    spec = replace(VARIANTS[sizes.small], dropout_rate=0.0)
    recipe = Recipe(
        name="equality",
        epochs=1,
        optimizer="sgd",
        schedule="staircase",
        warmup=0.0,
        label_smoothing=0.1,
    )
    images = data.train.images[: recipe.batch_size].astype(np.float32) / 127.5 - 1
    batch = (images, data.train.labels[: recipe.batch_size].astype(np.int32))
    processor, chosen = jax.devices("cpu")[0], jax.devices()[0]
    start, *expected = step_on(processor, spec, recipe, batch)
    _, *received = step_on(chosen, spec, recipe, batch, start)
    note = f"relative difference {chosen.platform} to cpu, matmul precision highest"
    for what, value in compared(start, expected, received).items():
        tolerance = TOLERANCES[what]
        table.add(
            "equality",
            what,
            "passed" if value <= tolerance else "failed",
            batch=recipe.batch_size,
            precision="float32",
            value=f"{value:.1e}",
            note=f"{note}, tolerance {tolerance}",
        )


def step_on(device: Any, spec: Any, recipe: Recipe, batch: Any, start: Any = None) -> Any:
    """Return the state before a step (`start` if given), the loss, and the state after it."""
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        keras.utils.set_random_seed(0)
        trainer = make_trainer(spec, recipe, total_steps=100)
        if start is not None:
            trainer.restore(start)
        start = trainer.state()
        metrics, _ = trainer.step(trainer.put(batch))
        used = trainer.model.trainable_variables[0].value.devices()
        if used != {device}:
            raise RuntimeError(f"Expected a step on {device}. Received: one on {used}")
        return start, metrics["loss"], trainer.state()


def compared(start: dict[str, Any], expected: Any, received: Any) -> dict[str, float]:
    """Return relative differences of (loss, state) after a step from `start`.

    Changes of the model's variables, not the variables, are compared. A tensor's difference is
    relative to its own change, but to no less than a thousandth of the whole.
    """
    (loss, state), (other_loss, other_state) = expected, received
    names = [name for name in start if name.startswith("model/") and start[name].dtype.kind == "f"]
    changes = {name: np.linalg.norm(state[name] - start[name]) for name in names}
    errors = {name: np.linalg.norm(other_state[name] - state[name]) for name in names}
    whole = np.linalg.norm(list(changes.values()))
    worst = max(errors[name] / max(changes[name], whole / 1000) for name in names)
    values = (abs(other_loss - loss) / loss, np.linalg.norm(list(errors.values())) / whole, worst)
    return dict(zip(TOLERANCES, map(float, values), strict=True))


# resume


def resume(table: Table, sizes: Sizes, data: ImageData, deadline: float) -> None:
    """Kill a run by SIGKILL after a snapshot, resume it, and compare it with another one."""
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        first, other = start_worker(killed, KILLED_AFTER), start_worker(whole)
        finish_worker(first, -signal.SIGKILL)
        finish_worker(other)
        snapshots = [path.name for path in sorted((killed / "snapshots").glob("step-*.npz"))]
        if not snapshots:
            raise RuntimeError("Expected a snapshot of the killed run. Received: none")
        finish_worker(start_worker(killed))
        for name in ("model.keras", "unaveraged.keras"):
            one, two = (weights_of(run / name) for run in (whole, killed))
            value = max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))
            table.add(
                "resume",
                f"{name} of a killed and resumed run",
                "passed" if value == 0 else "failed",
                batch=64,
                precision="mixed_bfloat16",
                value=value,
                note=f"largest difference, expected 0; SIGKILL in step {KILLED_AFTER} or later, "
                f"newest snapshot {snapshots[-1]}",
            )


def start_worker(folder: Path, kill_after: int = 0) -> subprocess.Popen[str]:
    """Start this file as a worker."""
    environment = dict(os.environ)
    if jax.default_backend() != "cpu":
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {DETERMINISTIC}"
    command = [sys.executable, __file__, "--worker", str(folder), "--kill-after", str(kill_after)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish_worker(process: subprocess.Popen[str], expected: int = 0) -> None:
    """Wait for a worker's exit code."""
    _, errors = process.communicate()
    if process.returncode != expected:
        last = (errors.splitlines() or ["no message"])[-1]
        raise RuntimeError(f"Expected exit code {expected}. Received: {process.returncode}: {last}")


def worker(folder: Path, kill_after: int) -> None:
    """Train `nano` with dropout, averages and bfloat16; kill this process after a step."""
    sample = open_data("sample")
    part = Split(sample.train.images[:640], sample.train.labels[:640])
    data = replace(sample, train=part, test=part)
    recipe = replace(
        RECIPES["modern"], name="resume", epochs=3, batch_size=64, precision="mixed_bfloat16"
    )
    steps = iter(range(1, 1000))

    def count(step: int, logs: Any = None) -> None:
        if next(steps) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    callback = keras.callbacks.Callback()
    callback.on_train_batch_end = count
    spec = VARIANTS["nano"]
    train(
        spec, data, recipe, folder, snapshot_steps=SNAPSHOT_STEPS, callbacks=[callback], verbose=0
    )


def weights_of(path: Path) -> list[np.ndarray]:
    """Return all weights of a saved model."""
    return list(keras.saving.load_model(path, compile=False).get_weights())


# fashion


def fashion(table: Table, sizes: Sizes, data: ImageData, deadline: float) -> None:
    """Train by the package's own `train`, which holds the images on an accelerator."""
    recipe = replace(RECIPES["modern"], epochs=sizes.epochs)
    late = keras.callbacks.Callback()

    def stop_if_late(epoch: int, logs: Any = None) -> None:
        late.model.stop_training |= time.monotonic() > deadline

    late.on_epoch_end = stop_if_late
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        spec = VARIANTS[sizes.small]
        metrics = train(spec, data, recipe, Path(folder) / "run", callbacks=[late], verbose=0)
        seconds = time.monotonic() - started
    done = len(metrics.metrics["history"]["loss"])
    complete = done == RECIPES["modern"].epochs and len(data.train) == 60_000
    where = "copied batch by batch" if jax.default_backend() == "cpu" else "held on the device"
    for what, value, reached in (
        ("seconds", seconds, seconds < GOALS["seconds"]),
        ("accuracy", metrics.metrics["top_1"], metrics.metrics["top_1"] >= GOALS["accuracy"]),
    ):
        table.add(
            "fashion",
            f"{spec.name}, {what}",
            ("goal reached" if reached else "goal missed") if complete else "measured",
            batch=recipe.batch_size,
            precision=recipe.precision,
            value=round(value, 4),
            unit="s" if what == "seconds" else "share",
            note=f"{data.name}, {len(data.train)} images, {done} of {recipe.epochs} epochs, with "
            f"compilation, evaluation and files; images {where}; goal {GOALS[what]}"
            + ("" if complete else ", not applied"),
        )


# training and inference


def training(table: Table, sizes: Sizes, data: ImageData, deadline: float) -> None:
    """Images per second of a training step with SGD and momentum."""
    batch = sizes.batches[-1]
    ours, compiled = f"{sizes.network}, no auxiliary", "googlenet, compiled, aux off"
    torchs = partial(torch_run, sizes, batch)
    makers: Makers = {
        (ours, "mixed_bfloat16"): partial(own_training, sizes, batch, "mixed_bfloat16"),
        (compiled, "autocast"): partial(torchs, compiled=True),
        ("googlenet, eager, aux off", "autocast"): torchs,
        (ours, "float32"): partial(own_training, sizes, batch, "float32"),
        ("googlenet, eager, aux on", "autocast"): partial(torchs, aux=True),
        ("googlenet, compiled, aux on", "autocast"): partial(torchs, aux=True, compiled=True),
    }
    in_turns(table, "training", sizes, batch, makers, deadline)


def inference(table: Table, sizes: Sizes, data: ImageData, deadline: float) -> None:
    """Images per second of the scores, the images on the device."""
    begin, share = time.monotonic(), (deadline - time.monotonic()) / len(sizes.batches)
    ours, torchs = partial(own_inference, sizes), partial(torch_run, sizes, training=False)
    for number, batch in enumerate(sizes.batches, 1):
        makers: Makers = {
            (sizes.network, "mixed_bfloat16"): partial(ours, batch, "mixed_bfloat16"),
            ("googlenet, compiled, aux off", "autocast"): partial(torchs, batch, compiled=True),
            ("googlenet, eager, aux off", "autocast"): partial(torchs, batch),
            (sizes.network, "float32"): partial(ours, batch, "float32"),
        }
        in_turns(table, "inference", sizes, batch, makers, begin + number * share)


def in_turns(
    table: Table,
    part: str,
    sizes: Sizes,
    batch: int,
    makers: Makers,
    deadline: float,
) -> None:
    """Prepare each network, then measure all in turns."""
    runs: dict[tuple[str, str], Steps] = {}
    for key, make in makers.items():
        with table.attempt(part, key[0], batch=batch, precision=key[1]):
            if time.monotonic() > deadline - PREPARATION:
                raise OutOfTimeError("not started, so that the whole run ends in time")
            steps = make()
            steps(2)
            runs[key] = steps
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(sizes.rounds):
        for key, steps in runs.items():
            started = time.perf_counter()
            steps(sizes.steps)
            rates[key].append(batch * sizes.steps / (time.perf_counter() - started))
    medians = {key: statistics.median(values) for key, values in rates.items()}
    for key, median in medians.items():
        table.add(
            part,
            key[0],
            batch=batch,
            precision=key[1],
            value=round(median, 1),
            unit="images/s",
            note=f"median of {sizes.rounds} turns, {min(rates[key]):.1f} to {max(rates[key]):.1f}",
        )
    first, second = list(makers)[:2]
    if first in medians and second in medians:
        ratio = medians[first] / medians[second]
        goal = GOALS.get(part) if sizes != TINY else None
        table.add(
            part,
            f"{first[0]} / {second[0]}",
            "measured" if goal is None else "goal reached" if ratio >= goal else "goal missed",
            batch=batch,
            precision=first[1],
            value=round(ratio, 3),
            note=f"goal {goal}" if goal else "",
        )


def own_training(sizes: Sizes, batch: int, precision: str) -> Steps:
    """Return this package's training steps on one batch that stays on the device."""
    spec = replace(VARIANTS[sizes.network], aux=())
    recipe = Recipe(
        name="throughput",
        epochs=1,
        batch_size=batch,
        optimizer="sgd",
        weight_decay=0.0,
        precision=precision,
    )
    trainer = make_trainer(spec, recipe, total_steps=1000)
    labels = np.random.default_rng(1).integers(0, spec.classes, batch).astype(np.int32)
    on_device = trainer.put((noise((batch, *spec.input_shape)), labels))

    def steps(count: int) -> None:
        for _ in range(count):
            started = trainer.start_step(on_device)
        trainer.finish_step(started)

    return steps


def own_inference(sizes: Sizes, batch: int, precision: str) -> Steps:
    """Return this package's network, jitted."""
    spec = VARIANTS[sizes.network]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = build_network(spec)
    finally:
        keras.config.set_dtype_policy(before)
    values = [
        [variable.value for variable in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]
    scores = jax.jit(lambda own, images: model.stateless_call(*own, images, training=False)[0])
    images = jax.device_put(noise((batch, *spec.input_shape)))

    def steps(count: int) -> None:
        for _ in range(count):
            result = scores(values, images)
        result.block_until_ready()

    return steps


def torch_run(
    sizes: Sizes, batch: int, *, aux: bool = False, compiled: bool = False, training: bool = True
) -> Steps:
    """Return steps of torchvision's googlenet: channels last, bfloat16 autocast."""
    import torch
    import torchvision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cuda" and jax.default_backend() != "cpu":
        raise ModuleNotFoundError("torch finds no card, which JAX does")
    torch.backends.cudnn.benchmark = True
    model = torchvision.models.googlenet(weights=None, aux_logits=aux, init_weights=False)
    model = model.to(device, memory_format=torch.channels_last).train(training)
    call = torch.compile(model, backend=sizes.compiler, dynamic=False) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images = torch.from_numpy(noise((batch, 3, sizes.pixels, sizes.pixels))).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch,), device=device)

    def losses() -> Any:
        outputs: Iterable[Any] = call(images)
        outputs = outputs if aux else (outputs,)
        one, *others = (torch.nn.functional.cross_entropy(found, labels) for found in outputs)
        return one + 0.3 * sum(others)

    def steps(count: int) -> None:
        for _ in range(count):
            with torch.autocast(device, torch.bfloat16), torch.set_grad_enabled(training):
                result = losses() if training else call(images)
            if training:
                optimizer.zero_grad()
                result.backward()
                optimizer.step()
        result.sum().item()  # waits for the device

    return steps


def noise(shape: tuple[Any, ...]) -> np.ndarray:
    """Return random pixels."""
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def main() -> int:
    """Run the parts and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="Fashion-MNIST; default the bundled sample")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the CSV file")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=330, help="to start nothing later")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, for tests on a CPU")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill-after", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if keras.backend.backend() != "jax":
        parser.error(f"Expected KERAS_BACKEND=jax. Received: {keras.backend.backend()!r}")
    if options.worker:
        worker(options.worker, options.kill_after)
        return 0
    sizes = TINY if options.tiny else Sizes()
    table, begin = Table(options.out), time.monotonic()
    data = fashion_mnist(None, sizes)
    with table.attempt("data", "Fashion-MNIST"):
        data = fashion_mnist(options.data, sizes)
    for part in options.parts:
        with table.attempt(part, "whole part"):
            globals()[part](table, sizes, data, begin + options.seconds * PARTS[part])
    return int(table.failed)


if __name__ == "__main__":
    sys.exit(main())
