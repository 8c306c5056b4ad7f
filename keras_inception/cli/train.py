"""`keras-inception train`: train a network and write its folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from keras_inception.cli.choices import chosen_recipe, chosen_spec, cost_line
from keras_inception.cli.common import (
    console,
    errors,
    print_missing_pictures,
    print_warning,
    usage_errors,
)
from keras_inception.cli.data import (
    chosen_data,
    fitted_spec,
    lowered_batch_size,
    next_data,
    print_data,
    quoted,
    with_channels,
)
from keras_inception.cli.display import TrainingDisplay
from keras_inception.cli.endings import (
    acknowledging,
    early_ends,
    ended_by_signals,
    go_on_without_readers,
)
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
from keras_inception.cli.run_folder import print_resume, run_folder
from keras_inception.cli.train_options import (
    Callbacks,
    FreezeUntil,
    InitialWeights,
    Profile,
    Resume,
    RunFolder,
    SnapshotMinutes,
    SnapshotSteps,
    TensorBoard,
)
from keras_inception.cli.waits import LOADING, waiting
from keras_inception.files import keras_file, printable
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.wording import counted, has_top_5

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData

# Classes up to which each one's images are counted.
_LISTED_CLASSES = 20


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
    go_on_without_readers()
    with ended_by_signals(), usage_errors():
        spec = chosen_spec(variant, spec_file)
        fields = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "patience": patience}
        recipe = chosen_recipe(recipe_name, changes, **fields, freeze_until=freeze_until)
        init = None if init is None else keras_file(init)
        with waiting(LOADING):
            devices = _devices(strategy)
        data = chosen_data(
            data_name, beside=spec_file and spec_file.parent, folder=out, strict=strict
        )
        data = with_channels(data, channels, init)
        spec = fitted_spec(spec, data, input_size)
        replicas = _device_count(devices)
        recipe = lowered_batch_size(recipe, len(data.train), batch_size, changes, replicas)
        with waiting("Checking the run"):
            folder = run_folder(out, spec, data, resume=resume)
            initial = _initialization(spec, init, recipe.freeze_until)
            callbacks = _prepared(spec, data, recipe, folder, devices, (tensorboard, profile))
            callbacks += map(_callback, callback or [])
    _print_job(spec, data, recipe, initial)
    print_resume(folder)
    from keras_inception.training.run import train as run

    kept = {"snapshot_steps": snapshot_steps, "snapshot_minutes": snapshot_minutes or None}
    others: dict[str, Any] = {"strategy": devices, "init": init, "verbose": 0, **kept}
    with early_ends(folder), ended_by_signals(), TrainingDisplay() as display:
        callbacks = [display.callback, *callbacks]
        others |= {"report": display.report, "acknowledge": acknowledging(display, folder)}
        result = run(spec, data, recipe, folder, callbacks=callbacks, **others)
    _print_result(folder, result.metrics, data.source)


def _initialization(spec: NetworkSpec, init: Path | None, frozen: str | None) -> str | None:
    """What is loaded, reinitialized and trained, before anything is written."""
    if init is None:
        return None
    from keras_inception.training.fine_tune import describe_initialization

    return describe_initialization(spec, init, frozen)


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
    elif recipe.freeze_until:
        print_warning(
            f"--freeze-until {recipe.freeze_until} without --init: the layers below keep random "
            "weights."
        )
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
        return f"Training images per class: from {_count(*pairs[0])} to {_count(*pairs[1])}."
    named = zip(counts, data.class_names, strict=True)
    return f"Training images per class: {', '.join(_count(*pair) for pair in named)}."


def _count(count: int, name: str) -> str:
    return f"{count:,} {escape(printable(name))}"


def _print_result(folder: Path, metrics: dict[str, Any], source: str) -> None:
    if "top_1" not in metrics:  # only the chief evaluates
        return
    print_missing_pictures()
    with_top_5 = has_top_5(len(metrics["per_class"]))
    top_5 = f"(top-5 {metrics['top_5']:.2%}) " if with_top_5 else ""
    console.print(
        f"Held-out accuracy [bold]{metrics['top_1']:.2%}[/] {top_5}"
        f"after {metrics['seconds']:.0f} s."
    )
    console.print(f"Everything is in [bold]{escape(str(folder))}[/]:")
    for path in sorted(folder.iterdir()):
        console.print(f"  {escape(path.name)}{'/' if path.is_dir() else ''}")
    run = escape(quoted(folder))
    console.print(f"Try it on a picture: keras-inception predict {run} IMAGE")
    console.print(f"Evaluate it: keras-inception evaluate {run}{next_data(source)}")
    console.print(f"Write other formats of it: keras-inception export {run} --format all")


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
