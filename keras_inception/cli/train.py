"""`keras-inception train`: train a network and write its folder."""

from __future__ import annotations

import glob
import importlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from keras_inception.cli.choices import chosen_recipe, chosen_spec, cost_line
from keras_inception.cli.common import (
    INTERRUPTED,
    RUNS,
    console,
    errors,
    print_error,
    print_missing_pictures,
    print_warning,
    usage_errors,
    waiting,
)
from keras_inception.cli.data import (
    chosen_data,
    fitted_spec,
    lowered_batch_size,
    print_data,
    quoted,
    with_channels,
)
from keras_inception.cli.display import TrainingDisplay
from keras_inception.cli.options import (
    BatchSize,
    Channels,
    DataName,
    Epochs,
    InputSize,
    Patience,
    RecipeChanges,
    RecipeName,
    Seed,
    SpecFile,
    StrategyName,
    Strict,
    Variant,
)
from keras_inception.files import METRICS_FILE, MODEL_FILE, SNAPSHOT_FOLDER, keras_file, printable
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.wording import counted

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData

# Classes up to which each one's images are counted.
_LISTED_CLASSES = 20
# Seconds after a second Ctrl-C in which the process may still end by itself.
_GRACE_SECONDS = 2.0

RunFolder = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of the run; default saved_models/ and a name of its own."),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Resume the run in --out, or the unfinished run of this network and data that was "
        "saved last.",
    ),
]
InitialWeights = Annotated[
    Path | None, typer.Option(help="Initial weights: a run's folder, or a .keras file.")
]
FreezeUntil = Annotated[
    str | None, typer.Option(help="Do not train this endpoint and the layers below it.")
]
Callbacks = Annotated[
    list[str] | None,
    typer.Option(
        "--callback",
        help="A Keras callback as package.module:Class, made without arguments; repeatable.",
    ),
]
SnapshotSteps = Annotated[
    int | None,
    typer.Option(min=1, help="Steps between snapshots; default none beside --snapshot-minutes."),
]
SnapshotMinutes = Annotated[
    float,
    typer.Option(min=0, help="Minutes between snapshots; 0 only after each epoch."),
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write curves and images for TensorBoard.")
]
Profile = Annotated[
    bool, typer.Option("--profile", help="Like --tensorboard, with a profile of steps 10 to 20.")
]


def train(
    variant: Variant = "small",
    spec_file: SpecFile = None,
    recipe_name: RecipeName = "quick",
    data_name: DataName = None,
    strict: Strict = False,
    out: RunFolder = None,
    resume: Resume = False,
    input_size: InputSize = None,
    channels: Channels = None,
    strategy: StrategyName = "auto",
    init: InitialWeights = None,
    freeze_until: FreezeUntil = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    patience: Patience = None,
    changes: RecipeChanges = None,
    snapshot_steps: SnapshotSteps = None,
    snapshot_minutes: SnapshotMinutes = 10.0,
    tensorboard: TensorBoard = False,
    profile: Profile = False,
    callback: Callbacks = None,
) -> None:
    """Train a network, evaluate it, and write it as .keras and SavedModel to a folder.

    Without arguments: the small network on the bundled sample of Fashion-MNIST, in minutes on
    two CPU cores. The same command with the same --out resumes a run that was stopped.

    Exit codes: 0; 2 for a usage error; 1 after Ctrl-C; 75 if SIGTERM or SIGHUP stopped the run
    or another worker was lost: the same command resumes it.
    """
    with usage_errors():
        spec = chosen_spec(variant, spec_file)
        fields = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "patience": patience}
        recipe = chosen_recipe(recipe_name, changes, **fields, freeze_until=freeze_until)
        init = None if init is None else keras_file(init)
        with waiting("Loading Keras and its backend"):
            devices = _devices(strategy)
        data = chosen_data(
            data_name, beside=spec_file and spec_file.parent, folder=out, strict=strict
        )
        data = with_channels(data, channels, init)
        spec = fitted_spec(spec, data, input_size)
        replicas = _device_count(devices)
        recipe = lowered_batch_size(recipe, len(data.train), batch_size, changes, replicas)
        folder = _folder(out, spec, data, resume)
        initial = _initialization(spec, recipe, init)
        callbacks = _prepared(spec, data, recipe, folder, devices, (tensorboard, profile))
        callbacks += map(_callback, callback or [])
    _print_job(spec, data, recipe, initial)
    _print_resume(folder)
    console.on_broken_pipe = _without_output  # type: ignore[method-assign]
    from keras_inception.training.run import train as run

    kept = {"snapshot_steps": snapshot_steps, "snapshot_minutes": snapshot_minutes or None}
    others: dict[str, Any] = {"strategy": devices, "init": init, "verbose": 0, **kept}
    with _ends(folder), TrainingDisplay() as display:
        callbacks = [display.callback, *callbacks]
        others |= {"report": display.report, "acknowledge": _acknowledge}
        result = run(spec, data, recipe, folder, callbacks=callbacks, **others)
    _print_result(folder, result.metrics)


def _initialization(spec: NetworkSpec, recipe: Recipe, init: Path | None) -> str | None:
    """What is loaded, reinitialized and trained, before anything is written."""
    if init is None:
        if recipe.freeze_until:
            print_warning(
                f"--freeze-until {recipe.freeze_until} without --init: the layers below keep "
                "random weights."
            )
        return None
    from keras_inception.training.fine_tune import describe_initialization

    return describe_initialization(spec, init, recipe.freeze_until)


def _prepared(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    devices: Any,
    tensorboard_profile: tuple[bool, bool],
) -> list[Any]:
    """Check the run before anything is built or printed; return the callbacks of TensorBoard."""
    from keras_inception.training.run import prepare_run

    prepare_run(spec, data, recipe, folder, strategy=devices)
    tensorboard, profile = tensorboard_profile
    if not (tensorboard or profile):
        return []
    from keras_inception.training.tensorboard import tensorboard_callbacks

    return tensorboard_callbacks(folder, spec, data, recipe, profile=profile)


def _print_job(spec: NetworkSpec, data: ImageData, recipe: Recipe, initial: str | None) -> None:
    from keras_inception.training.preparation import augmentation, size_hint

    console.print(cost_line(spec))
    print_data(data)
    if initial is not None:
        console.print(escape(printable(initial)))
    console.print(_class_counts(data))
    console.print(
        f"{counted(recipe.epochs, 'epoch')} by the recipe {escape(recipe.name)}. "
        f"{augmentation(recipe)}"
    )
    if (hint := size_hint(spec, data)) is not None:
        errors.print(f"[bold]Hint:[/] {hint}")


def _class_counts(data: ImageData) -> str:
    """Training images of each class; of many classes, the fewest and the most."""
    counts = [int((data.train.labels == label).sum()) for label in range(len(data.class_names))]
    pairs = sorted(zip(counts, data.class_names, strict=True))
    if len(pairs) > _LISTED_CLASSES:
        pairs = [pairs[0], pairs[-1]]
        return f"Training images a class: from {_count(*pairs[0])} to {_count(*pairs[1])}."
    named = zip(counts, data.class_names, strict=True)
    return f"Training images a class: {', '.join(_count(*pair) for pair in named)}."


def _count(count: int, name: str) -> str:
    return f"{count:,} {escape(printable(name))}"


def _print_result(folder: Path, metrics: dict[str, Any]) -> None:
    if "top_1" not in metrics:  # only the chief evaluates
        return
    print_missing_pictures()
    top_5 = f"(top-5 {metrics['top_5']:.2%}) " if len(metrics["per_class"]) > 5 else ""
    console.print(
        f"Held-out accuracy [bold]{metrics['top_1']:.2%}[/] {top_5}"
        f"after {metrics['seconds']:.0f} s."
    )
    console.print(f"Everything is in [bold]{escape(str(folder))}[/]:")
    for path in sorted(folder.iterdir()):
        console.print(f"  {escape(path.name)}{'/' if path.is_dir() else ''}")
    console.print(f"Try it on a picture: keras-inception predict {escape(quoted(folder))} IMAGE")


def _devices(name: str) -> Any:
    from keras_inception.training.strategy import make_strategy

    return make_strategy(name)


def _device_count(devices: Any) -> int:
    from keras_inception.training.strategy import device_count

    return device_count(devices)


def _callback(name: str) -> Any:
    """An instance of the callback that package.module:Class names; the working folder counts."""
    import keras

    module, _, cls = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module), cls)()
    except Exception as error:  # whatever the user's module raises
        raise ValueError(
            f"Expected --callback package.module:Class. Received: {name!r} ({error})"
        ) from error
    if not isinstance(made, keras.callbacks.Callback):
        raise ValueError(
            f"Expected a class of keras.callbacks.Callback. Received: {name!r}, {type(made)}"
        )
    return made


def _acknowledge(count: int) -> None:
    """Answer a signal at once, in the thread that watches for them."""
    with suppress(OSError):  # the terminal may be gone
        if count == 1:
            errors.print("Stopping after this step; again to stop now.")
    if count == 2:
        # Where the main thread compiles in C++, the exception for Ctrl-C waits.
        timer = threading.Timer(_GRACE_SECONDS, os._exit, (1,))
        timer.daemon = True
        timer.start()


def _without_output() -> None:
    """Train on when the reader of the output is gone, as in `train | head`."""
    console.quiet = True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_resume(folder: Path) -> None:
    """Where a run is resumed from."""
    from keras_inception.training.snapshot import Snapshots

    document = Snapshots(folder / SNAPSHOT_FOLDER).newest_document()
    progress = document and document.get("progress")
    finished = (folder / METRICS_FILE).exists()
    if document is None or progress is None or finished:
        return
    saved = datetime.fromtimestamp(document.get("saved_at", 0.0))
    console.print(
        f"Resuming [bold]{escape(str(folder))}[/] from step {progress['step']:,}, after epoch "
        f"{progress['epoch']}; saved {saved:%Y-%m-%d %H:%M:%S}."
    )


def _run_name(network: str, data: str) -> str:
    """Name a run's folder; "dir:/my/images" becomes "dir-my-images"."""
    plain = re.sub(r"[^\w.]+", "-", data).strip("-")
    return f"{network}-{plain}"


def _folder(out: Path | None, spec: NetworkSpec, data: ImageData, resume: bool) -> Path:
    name = _run_name(spec.name, data.name)
    if not resume:
        return out or RUNS / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    found = [] if out else _runs_of(spec, data)
    runs = [out] if out else [run for run in found if not (run / METRICS_FILE).exists()]
    # A finished run has no snapshots; a run that failed before the first one cannot be resumed.
    unfinished = [run for run in runs if any((run / SNAPSHOT_FOLDER).glob("*")) or run == out]
    if not unfinished:
        where = str(out) if out else f"{RUNS / name}-*"
        raise ValueError(f"Expected an unfinished run. Received: none in {where!r}")
    return max(unfinished, key=_saved_at)


def _saved_at(run: Path) -> float:
    """When a run was last saved, by its own record."""
    from keras_inception.training.snapshot import Snapshots

    document = Snapshots(run / SNAPSHOT_FOLDER).newest_document()
    return 0.0 if document is None else float(document.get("saved_at", 0.0))


def _runs_of(spec: NetworkSpec, data: ImageData) -> list[Path]:
    """The runs of a network and of data with the same contents, the oldest first."""
    from keras_inception.data.record import fingerprint, recorded_fingerprint

    contents = fingerprint(data)
    stamp = re.compile(r"-(\d{8}-\d{6})$")
    found = [
        (match[1], run)
        for run in RUNS.glob(f"{glob.escape(spec.name)}-*")
        if (match := stamp.search(run.name)) and recorded_fingerprint(run) == contents
    ]
    return [run for _, run in sorted(found)]


@contextmanager
def _ends(folder: Path) -> Iterator[None]:
    """Print why a run stopped early, and exit with the code for it."""
    from keras_inception.training.progress import TrainingInterruptedError

    try:
        with usage_errors():
            yield
    except TrainingInterruptedError as error:
        errors.print(
            f"{escape(str(error))} {escape(_kept(folder))} The same command with "
            f"[bold]--out {escape(str(folder))}[/] resumes it."
        )
        raise typer.Exit(1 if error.by_hand else INTERRUPTED) from None
    except KeyboardInterrupt:
        errors.print(f"Stopped. {escape(_kept(folder))}")
        raise typer.Exit(1) from None
    except FloatingPointError as error:
        print_error(f"{error} {_kept(folder)} Start again in another folder.")
        raise typer.Exit(2) from None


def _kept(folder: Path) -> str:
    model = folder / MODEL_FILE
    if model.exists():
        return f"The model of the last complete epoch is in {model}."
    return f"{folder} holds no model yet."
