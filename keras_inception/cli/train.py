"""`keras-inception train`: the main job."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from keras_inception.cli.common import (
    INTERRUPTED,
    RUNS,
    DataName,
    RecipeChanges,
    RecipeName,
    SpecFile,
    Variant,
    chosen_data,
    chosen_recipe,
    chosen_spec,
    console,
    cost_line,
    errors,
    model_path,
    print_error,
    print_unreadable,
    usage_errors,
)
from keras_inception.cli.display import TrainingDisplay
from keras_inception.files import METRICS_FILE, MODEL_FILE, SNAPSHOT_FOLDER


def train(
    variant: Variant = "small",
    spec_file: SpecFile = None,
    recipe_name: RecipeName = "quick",
    data_name: DataName = "sample",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse data with files that cannot be read.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; default saved_models/ and a name of its own."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, or the newest run of this network and data that did "
            "not end.",
        ),
    ] = False,
    input_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Height and width in pixels; default those of the images if all have one size, "
            "otherwise the variant's.",
        ),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(help="auto, cpu:N, mirrored, multi-worker, tpu or tpu:NAME."),
    ] = "auto",
    init: Annotated[
        Path | None, typer.Option(help="Begin with the weights of this run, or .keras file.")
    ] = None,
    freeze_until: Annotated[
        str | None, typer.Option(help="Leave every layer below this endpoint as it is.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="In the place of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="In the place of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="In the place of the recipe's.")] = None,
    changes: RecipeChanges = None,
    snapshot_steps: Annotated[
        int | None, typer.Option(min=1, help="Write a snapshot every so many steps.")
    ] = None,
    snapshot_minutes: Annotated[
        float, typer.Option(min=0, help="And every so many minutes, and after each epoch.")
    ] = 10.0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write curves and images for TensorBoard.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="And a profile of steps 10 to 20.")
    ] = False,
) -> None:
    """Train a network, evaluate it, and leave it as .keras and SavedModel in a folder.

    Without arguments: the small network on the embedded sample of Fashion-MNIST, in minutes on
    two CPU cores. The same command with the same --out goes on with a run that was stopped.

    Exit codes: 0; 2 for a mistake; 1 after Ctrl-C; 75 if SIGTERM stopped the run or another worker
    was lost: the same command goes on.
    """
    with usage_errors():
        spec = chosen_spec(variant, spec_file)
        recipe = chosen_recipe(
            recipe_name,
            changes,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            freeze_until=freeze_until,
        )
        init = None if init is None else model_path(init)
    with usage_errors():
        devices = _devices(strategy)
        from keras_inception.training.run import fitted_to_data, prepare_run
        from keras_inception.training.run import train as run

        data = chosen_data(data_name, strict=strict)
        spec = fitted_to_data(spec, data)
        if input_size is not None:
            spec = replace(spec, input_shape=(input_size, input_size, spec.input_shape[2]))
        folder = _folder(out, _run_name(spec.name, data.name), resume)
        prepare_run(spec, data, recipe, folder, strategy=devices)
        callbacks = []
        if tensorboard or profile:
            from keras_inception.training.tensorboard import tensorboard_callbacks

            callbacks = tensorboard_callbacks(folder, spec, data, recipe, profile=profile)
    console.print(cost_line(spec))
    print_unreadable(data)
    console.print(
        f"{len(data.train):,} training and {len(data.test):,} held-out images of "
        f"{escape(data.name)}; {recipe.epochs} epochs by the recipe {escape(recipe.name)}."
    )
    with _ends(folder), TrainingDisplay() as display:
        result = run(
            spec,
            data,
            recipe,
            folder,
            strategy=devices,
            init=init,
            snapshot_steps=snapshot_steps,
            snapshot_minutes=snapshot_minutes or None,
            callbacks=[display.callback, *callbacks],
        )
    if "top_1" in result.metrics:  # what the chief alone knows
        _tell_result(folder, result.metrics)


def _tell_result(folder: Path, metrics: dict[str, Any]) -> None:
    console.print(
        f"Held-out accuracy [bold]{metrics['top_1']:.2%}[/] "
        f"(top-5 {metrics['top_5']:.2%}) after {metrics['seconds']:.0f} s."
    )
    console.print(f"Everything is in [bold]{escape(str(folder))}[/]:")
    for path in sorted(folder.iterdir()):
        console.print(f"  {escape(path.name)}{'/' if path.is_dir() else ''}")
    console.print(f"Try it on a picture: keras-inception predict {escape(str(folder))} IMAGE")


def _devices(name: str) -> Any:
    """The strategy of a name; under JAX, Keras's own distribution over CPU devices."""
    import keras

    if keras.backend.backend() == "tensorflow":
        from keras_inception.training.strategy import make_strategy

        return make_strategy(name)
    cpus = re.fullmatch(r"cpu:([1-9]\d*)", name)
    if cpus is None and name != "auto":
        raise ValueError(
            "Expected the strategy auto or cpu:N with this KERAS_BACKEND. "
            f"Received: strategy={name!r}, KERAS_BACKEND={keras.backend.backend()!r}"
        )
    if cpus:
        from keras_inception.training.keras_fit import distribute_over_cpus

        distribute_over_cpus(int(cpus[1]))
    return None


def _run_name(network: str, data: str) -> str:
    """One folder's name: "dir:/my/images" is "dir-my-images" in it."""
    plain = re.sub(r"[^\w.]+", "-", data).strip("-")
    return f"{network}-{plain}"


def _folder(out: Path | None, name: str, resume: bool) -> Path:
    if not resume:
        return out or RUNS / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    stamped = re.compile(re.escape(name) + r"-\d{8}-\d{6}")
    found = sorted(run for run in RUNS.glob(f"{name}-*") if stamped.fullmatch(run.name))
    runs = [out] if out else [run for run in found if not (run / METRICS_FILE).exists()]
    # The folder of snapshots goes when a run is finished. What ended before the first one, by a
    # mistake in the arguments, has nothing to go on with.
    unfinished = [run for run in runs if any((run / SNAPSHOT_FOLDER).glob("*")) or run == out]
    if not unfinished:
        where = str(out) if out else f"{RUNS / name}-*"
        raise ValueError(f"Expected a run that did not end. Received: none in {where!r}")
    return unfinished[-1]


@contextmanager
def _ends(folder: Path) -> Iterator[None]:
    """What to say when a run ends before its end, and with which code."""
    from keras_inception.training.loop import TrainingInterruptedError

    try:
        with usage_errors():
            yield
    except TrainingInterruptedError as error:
        errors.print(
            f"{escape(str(error))} {escape(_kept(folder))} The same command with "
            f"[bold]--out {escape(str(folder))}[/] goes on."
        )
        raise typer.Exit(1 if error.by_hand else INTERRUPTED) from None
    except KeyboardInterrupt:
        errors.print(f"Stopped. {escape(_kept(folder))}")
        raise typer.Exit(1) from None
    except FloatingPointError as error:
        print_error(f"{error} {_kept(folder)} Begin again in another folder.")
        raise typer.Exit(2) from None


def _kept(folder: Path) -> str:
    model = folder / MODEL_FILE
    if model.exists():
        return f"The model of the last complete epoch is in {model}."
    return f"{folder} holds no model yet."
