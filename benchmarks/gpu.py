"""Training and inference on one GPU under JAX, in one command of less than ten minutes.

    KERAS_BACKEND=jax python benchmarks/gpu.py --data fashion_mnist.npz

Needs jax for the card and Keras; torch and torchvision for the comparisons; nothing of TensorFlow.
The .npz is all of Fashion-MNIST: train_images, train_labels, test_images and test_labels; without
it the bundled sample is used. Parts, which --parts chooses:

equality: one float32 step of `medium` on the card and on the CPU, without TF32.
resume: a run that is killed and resumed ends with the weights of an uninterrupted run.
fashion: all of Fashion-MNIST with `medium` and the recipe `modern`.
training, inference: images per second of `bn` and of torchvision's googlenet, in turns.

Each row of the CSV has a result; a part that fails is one row and does not stop the others. The
exit code is 1 if a row has failed. Rows of parts that are not chosen stay in the file. `--tiny`
runs everything at tiny sizes, for the tests on a CPU.
"""

import argparse
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
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
from machine import jax_device

from keras_inception import RECIPES, VARIANTS, ImageData, Recipe, Split, make_trainer, open_data
from keras_inception import train as train_run

RESULTS = Path(__file__).parent / "results" / "gpu.csv"
COLUMNS = ("part", "what", "batch", "precision", "value", "unit", "result", "note")
ABOUT = ("card", "versions", "date")
PREPARATION = 30  # seconds that a network may need until its first step has finished
# Largest relative differences between the card and the CPU; see `compared`.
TOLERANCES = {"loss": 1e-5, "change of all weights": 1e-4, "change of the worst tensor": 1e-3}
DETERMINISTIC = "--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0"
SPEED_GOAL, SECONDS_GOAL, ACCURACY_GOAL = 1.2, 60.0, 0.948
KILLED_AFTER, SNAPSHOT_STEPS = 7, 5  # of 12 steps

# Takes that many steps, and waits for the last.
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
    compiler: str = "inductor"


TINY = Sizes("nano", 32, (1, 2), 2, 1, "nano", 1, "eager")


class Table:
    """The CSV file, written row by row.

    Args:
        path: the file; rows of other parts than `parts` are kept.
        parts: what is measured anew.
        about: values of the columns `ABOUT`, which all new rows have.
    """

    def __init__(self, path: Path, parts: Collection[str], about: dict[str, Any]) -> None:
        self.failed = False
        self._about = about
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in rows_of(path) if row["part"] not in parts]
        self._path = path
        with self._rows("w") as rows:
            rows.writeheader()
            rows.writerows(kept)

    @contextmanager
    def _rows(self, mode: str) -> Iterator[Any]:
        with self._path.open(mode, encoding="utf-8", newline="") as file:
            yield csv.DictWriter(file, (*COLUMNS, *ABOUT), lineterminator="\n")

    def add(self, part: str, what: str, result: str = "measured", **values: Any) -> None:
        """Write a row: `result` is measured, passed, goal reached, goal missed, failed, skipped."""
        self.failed |= result == "failed"
        row = {"part": part, "what": what, **values, "result": result}
        with self._rows("a") as rows:
            rows.writerow(row | self._about)
        print(*row.values(), sep="  ", flush=True)

    @contextmanager
    def attempt(self, part: str, what: str, **values: Any) -> Iterator[None]:
        """Make a row of any exception within it."""
        try:
            yield
        except Exception as error:
            result = (
                "skipped" if isinstance(error, TimeoutError | ModuleNotFoundError) else "failed"
            )
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self.add(part, what, result, note=reason, **values)


class Compilation:
    """Seconds that XLA compiled in this process."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            self._seconds.append(seconds)

    def add_to(self, table: Table, part: str) -> None:
        """Write a row of what was compiled since the last one."""
        if self._seconds:
            note = f"{len(self._seconds)} programs, the longest {max(self._seconds):.1f} s"
            table.add(part, "compilation", value=round(sum(self._seconds), 1), unit="s", note=note)
        self._seconds.clear()


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def versions() -> str:
    """Return the versions of what computes."""
    found = []
    for name in ("keras-inception", "keras", "jax", "jaxlib", "torch", "torchvision"):
        with suppress(PackageNotFoundError):
            found.append(f"{name}={version(name)}")
    platform = " ".join(str(jax.devices()[0].client.platform_version).split())
    return " ".join([*found, platform])


def fashion_mnist(path: Path | None) -> ImageData:
    """Load all of Fashion-MNIST from `path`, or the bundled sample of it."""
    sample = open_data("sample")
    if path is None:
        return sample
    with np.load(path) as arrays:
        splits = [
            Split(arrays[f"{part}_images"].reshape(-1, 28, 28, 1), arrays[f"{part}_labels"])
            for part in ("train", "test")
        ]
    return ImageData("fashion_mnist", *splits, class_names=sample.class_names)


def first_images(data: ImageData, count: int) -> ImageData:
    """Return the first images of the training part as both parts."""
    part = Split(data.train.images[:count], data.train.labels[:count])
    return replace(data, train=part, test=part)


# equality


def equality(table: Table, sizes: Sizes, data: ImageData, deadline: float) -> None:
    """Compare a step on the card with the CPU's: same weights, same batch, no dropout."""
    spec = replace(VARIANTS[sizes.small], dropout_rate=0.0)
    recipe = Recipe(name="equality", epochs=1, optimizer="sgd", warmup=0.0, label_smoothing=0.1)
    size, chosen = recipe.batch_size, jax.devices()[0]
    images = data.train.images[:size].astype(np.float32) / 127.5 - 1
    batch = (images, data.train.labels[:size].astype(np.int32))
    start, *expected = step_on(jax.devices("cpu")[0], spec, recipe, batch)
    _, *received = step_on(chosen, spec, recipe, batch, start)
    for what, value in compared(start, expected, received).items():
        table.add(
            *("equality", what, "passed" if value <= TOLERANCES[what] else "failed"),
            batch=size,
            precision="float32",
            value=f"{value:.1e}",
            note=f"relative difference {chosen.platform} to cpu, matmul precision highest, "
            f"tolerance {TOLERANCES[what]}",
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
        run_worker(whole)
        run_worker(killed, KILLED_AFTER)
        newest = max(path.name for path in (killed / "snapshots").glob("step-*.npz"))
        run_worker(killed)
        for name in ("model.keras", "unaveraged.keras"):
            one, two = (
                keras.saving.load_model(run / name, compile=False).get_weights()
                for run in (whole, killed)
            )
            value = max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))
            table.add(
                *("resume", name, "failed" if value else "passed"),
                precision="mixed_bfloat16",
                value=value,
                note="largest difference of a weight to the run that was not killed, expected 0; "
                f"SIGKILL in step {KILLED_AFTER}, resumed from {newest}",
            )


def run_worker(folder: Path, kill_after: int = 0) -> None:
    """Run this file as a worker, and check how it ends."""
    # The workers run the same programs, so that one compiles them for all.
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "programs")}
    if jax.default_backend() != "cpu":
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {DETERMINISTIC}"
    command = [sys.executable, __file__, "--worker", str(folder), "--kill-after", str(kill_after)]
    ended = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    if ended.returncode != (-signal.SIGKILL if kill_after else 0):
        last = (ended.stderr.splitlines() or ["no message"])[-1]
        raise RuntimeError(f"Received the exit code {ended.returncode} of a worker: {last}")


def worker(folder: Path, kill_after: int) -> None:
    """Train `nano` with dropout, averages and bfloat16; kill this process after a step."""
    steps = iter(range(1, 1000))

    def count(batch: int, logs: Any = None) -> None:
        if next(steps) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    callback = keras.callbacks.LambdaCallback()
    callback.on_train_batch_end = count
    recipe = replace(RECIPES["modern"], epochs=3, batch_size=64, precision="mixed_bfloat16")
    others: dict[str, Any] = {"callbacks": [callback], "verbose": 0}
    data = first_images(open_data("sample"), 256)
    train_run(VARIANTS["nano"], data, recipe, folder, snapshot_steps=SNAPSHOT_STEPS, **others)


# fashion


def fashion(table: Table, sizes: Sizes, data: ImageData, deadline: float) -> None:
    """Train by the package's own `train`, which holds the images on an accelerator."""
    recipe, spec = replace(RECIPES["modern"], epochs=sizes.epochs), VARIANTS[sizes.small]
    late, ends = keras.callbacks.Callback(), []

    def stop_if_late(epoch: int, logs: Any = None) -> None:
        ends.append(time.monotonic())
        late.model.stop_training |= ends[-1] > deadline

    late.on_epoch_end = stop_if_late
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        run = train_run(spec, data, recipe, Path(folder) / "run", callbacks=[late], verbose=0)
        seconds = time.monotonic() - started
    spans = [("first epoch", ends[0] - started, "from the call of train")]
    if len(ends) > 1:
        spans.append(("median of later epochs", float(statistics.median(np.diff(ends))), ""))
    for what, span, note in spans:
        table.add(
            *("fashion", f"{spec.name}, {what}"),
            batch=recipe.batch_size,
            precision=recipe.precision,
            value=round(span, 2),
            unit="s",
            note=note,
        )
    accuracy, done = run.metrics["top_1"], len(run.metrics["history"]["loss"])
    whole = done == RECIPES["modern"].epochs and len(data.train) == 60_000
    for what, value, unit, reached, goal in (
        ("seconds", seconds, "s", seconds < SECONDS_GOAL, SECONDS_GOAL),
        ("accuracy", accuracy, "share", accuracy >= ACCURACY_GOAL, ACCURACY_GOAL),
    ):
        result = ("goal reached" if reached else "goal missed") if whole else "measured"
        table.add(
            *("fashion", f"{spec.name}, {what}", result),
            batch=recipe.batch_size,
            precision=recipe.precision,
            value=round(value, 4),
            unit=unit,
            note=f"{data.name}, {len(data.train)} images, {done} of {recipe.epochs} epochs, with "
            f"compilation, evaluation and files; goal {goal}{'' if whole else ', not applied'}",
        )


# training and inference


def training(table: Table, sizes: Sizes, data: ImageData, deadline: float) -> None:
    """Images per second of a training step with SGD and momentum."""
    batch, ours = sizes.batches[-1], f"{sizes.network}, no auxiliary"
    theirs = partial(torch_steps, batch, sizes.pixels)
    makers: Makers = {
        (ours, "mixed_bfloat16"): partial(own_training, sizes, batch, "mixed_bfloat16"),
        ("googlenet, compiled", "autocast"): partial(theirs, compiler=sizes.compiler),
        ("googlenet, eager", "autocast"): theirs,
        (ours, "float32"): partial(own_training, sizes, batch, "float32"),
        ("googlenet, eager, auxiliary", "autocast"): partial(theirs, aux=True),
    }
    in_turns(table, "training", sizes, batch, makers, deadline)


def inference(table: Table, sizes: Sizes, data: ImageData, deadline: float) -> None:
    """Images per second of the logits, the images on the device."""
    for left, batch in enumerate(sizes.batches, 1 - len(sizes.batches)):
        theirs = partial(torch_steps, batch, sizes.pixels, training=False)
        makers: Makers = {
            (sizes.network, "mixed_bfloat16"): partial(
                own_inference, sizes, batch, "mixed_bfloat16"
            ),
            ("googlenet, compiled", "autocast"): partial(theirs, compiler=sizes.compiler),
            ("googlenet, eager", "autocast"): theirs,
            (sizes.network, "float32"): partial(own_inference, sizes, batch, "float32"),
        }
        in_turns(table, "inference", sizes, batch, makers, deadline + left * PREPARATION)


def in_turns(
    table: Table, part: str, sizes: Sizes, batch: int, makers: Makers, deadline: float
) -> None:
    """Prepare each network, then measure all in turns, and compare the first two."""
    runs: dict[tuple[str, str], Steps] = {}
    for (what, precision), make in makers.items():
        with table.attempt(part, what, batch=batch, precision=precision):
            if time.monotonic() > deadline - PREPARATION:
                raise TimeoutError("not started, so that the whole run ends in time")
            steps = make()
            steps(2)
            runs[what, precision] = steps
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(sizes.rounds):
        for key, steps in runs.items():
            started = time.perf_counter()
            steps(sizes.steps)
            rates[key].append(batch * sizes.steps / (time.perf_counter() - started))
    for (what, precision), found in rates.items():
        table.add(
            *(part, what),
            batch=batch,
            precision=precision,
            value=round(statistics.median(found), 1),
            unit="images/s",
            note=f"median of {sizes.rounds} turns, {min(found):.1f} to {max(found):.1f}",
        )
    first, second = list(makers)[:2]
    if first in rates and second in rates:
        ratio = statistics.median(rates[first]) / statistics.median(rates[second])
        judged = sizes != TINY and part == "training"
        result = "goal reached" if ratio >= SPEED_GOAL else "goal missed"
        table.add(
            *(part, f"{first[0]} / {second[0]}", result if judged else "measured"),
            batch=batch,
            precision=first[1],
            value=round(ratio, 3),
            note=f"goal {SPEED_GOAL}" if judged else "",
        )


def own_training(sizes: Sizes, batch: int, precision: str) -> Steps:
    """Return this package's training steps on one batch that stays on the device."""
    trainer, on_device = own_trainer(sizes, batch, precision)

    def steps(count: int) -> None:
        for _ in range(count):
            started = trainer.start_step(on_device)
        trainer.finish_step(started)

    return steps


def own_inference(sizes: Sizes, batch: int, precision: str) -> Steps:
    """Return this package's network, jitted."""
    trainer, (images, _) = own_trainer(sizes, batch, precision)
    model = trainer.model
    groups = (model.trainable_variables, model.non_trainable_variables)
    values = [[variable.value for variable in group] for group in groups]
    logits = jax.jit(lambda own, images: model.stateless_call(*own, images, training=False)[0])

    def steps(count: int) -> None:
        for _ in range(count):
            result = logits(values, images)
        result.block_until_ready()

    return steps


def own_trainer(sizes: Sizes, batch: int, precision: str) -> Any:
    """Return a trainer without auxiliary classifiers, and a random batch on the device."""
    spec = replace(VARIANTS[sizes.network], aux=())
    plain: dict[str, Any] = {"optimizer": "sgd", "weight_decay": 0.0, "epochs": 1}
    recipe = Recipe(name="throughput", batch_size=batch, precision=precision, **plain)
    trainer = make_trainer(spec, recipe, total_steps=1000)
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, (batch, *spec.input_shape)).astype(np.float32)
    return trainer, trainer.put((images, random.integers(0, spec.classes, batch, np.int32)))


def torch_steps(*sizes: int, **options: Any) -> Steps:
    """Return steps of torchvision's googlenet under bfloat16 autocast."""
    import torch
    from torchvision_steps import googlenet_steps

    if jax.default_backend() != "cpu" and not torch.cuda.is_available():
        raise ModuleNotFoundError("torch finds no card, which JAX does")
    return googlenet_steps(*sizes, **options)


# Each with the share of all seconds after which it starts nothing more.
PARTS = {equality: 0.1, resume: 0.25, fashion: 0.55, training: 0.85, inference: 1.0}


def main() -> int:
    """Run the parts and write the table."""
    names = [part.__name__ for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="Fashion-MNIST; default the bundled sample")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the CSV file")
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", type=float, default=560, help="to start nothing later")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, for tests on a CPU")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill-after", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if keras.backend.backend() != "jax":
        parser.error(f"Expected KERAS_BACKEND=jax. Received: {keras.backend.backend()!r}")
    if options.worker:
        worker(options.worker, options.kill_after)
        return 0
    begin = time.monotonic()
    about = dict(zip(ABOUT, (jax_device(), versions(), date.today()), strict=True))
    table = Table(options.out, options.parts, about)
    compilation = Compilation()
    data = fashion_mnist(options.data)
    sizes, data = (TINY, first_images(data, 256)) if options.tiny else (Sizes(), data)
    for part, share in PARTS.items():
        if part.__name__ in options.parts:
            with table.attempt(part.__name__, "whole part"):
                part(table, sizes, data, begin + options.seconds * share)
            compilation.add_to(table, part.__name__)
    return int(table.failed)


if __name__ == "__main__":
    sys.exit(main())
