"""`keras-inception train`: the main job."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from keras_inception.cli.common import (
    SpecFile,
    Variant,
    chosen_spec,
    console,
    cost_line,
    errors,
    file_text,
    mistakes,
)
from keras_inception.recipe import RECIPES, Recipe


def train(
    variant: Variant = "small",
    spec_file: SpecFile = None,
    recipe_name: Annotated[
        str, typer.Option("--recipe", help="A named recipe, or a recipe.json.")
    ] = "quick",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; default saved_models/ and a name of its own."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="In the place of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="In the place of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="In the place of the recipe's.")] = None,
) -> None:
    """Train a network, evaluate it, and leave it as .keras and SavedModel in a folder.

    Without arguments: the small network on the embedded sample of Fashion-MNIST, in minutes on
    two CPU cores.
    """
    with mistakes():
        spec, recipe = chosen_spec(variant, spec_file), _recipe(recipe_name)
        given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
        recipe = replace(
            recipe, **{key: value for key, value in given.items() if value is not None}
        )
    from keras_inception.data import load_sample
    from keras_inception.train import fitted_to_data, prepare_run
    from keras_inception.train import train as run

    with mistakes():
        data = load_sample()
        spec = fitted_to_data(spec, data)
        folder = out or _new_folder(f"{spec.name}-{data.name}")
        prepare_run(spec, data, recipe, folder)
    console.print(cost_line(spec))
    console.print(
        f"{len(data.train):,} training and {len(data.test):,} held-out images of "
        f"{escape(data.name)}; {recipe.epochs} epochs by the recipe {escape(recipe.name)}."
    )
    try:
        with _TrainingDisplay() as display:
            result = run(spec, data, recipe, folder, callbacks=[display.callback])
    except KeyboardInterrupt:
        _tell_interrupted(folder)
        raise typer.Exit(1) from None
    except FloatingPointError as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}")
        raise typer.Exit(2) from None
    console.print(
        f"Held-out accuracy [bold]{result.metrics['top_1']:.2%}[/] "
        f"(top-5 {result.metrics['top_5']:.2%}) after {result.metrics['seconds']:.0f} s."
    )
    console.print(f"Everything is in [bold]{escape(str(folder))}[/]:")
    for path in sorted(folder.iterdir()):
        console.print(f"  {escape(path.name)}{'/' if path.is_dir() else ''}")
    console.print(f"Try it on a picture: keras-inception predict {escape(str(folder))} IMAGE")


def _recipe(name: str) -> Recipe:
    if name in RECIPES:
        return RECIPES[name]
    if name.endswith(".json"):
        return Recipe.from_json(file_text(Path(name)))
    raise ValueError(
        f"Expected a recipe among {', '.join(RECIPES)}, or a recipe.json. Received: {name!r}"
    )


def _new_folder(name: str) -> Path:
    return Path("saved_models") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _tell_interrupted(folder: Path) -> None:
    if (folder / "model.keras").exists():
        errors.print(
            "Stopped. The model of the last complete epoch is in "
            f"[bold]{escape(str(folder / 'model.keras'))}[/]."
        )
    else:
        errors.print(
            "Stopped before the end of the first epoch: "
            f"[bold]{escape(str(folder))}[/] holds spec and recipe, but no model yet."
        )


class _TrainingDisplay:
    """A bar over all steps of a run with the time left, and a line for each epoch."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,  # in a log, the lines of the epochs are enough
        )

    def __enter__(self) -> _TrainingDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @property
    def callback(self) -> Any:
        """A Keras callback that feeds the display."""
        import keras

        progress = self._progress

        class Feed(keras.callbacks.Callback):
            def on_train_begin(self, logs: Any = None) -> None:
                self.task = progress.add_task(
                    "training", total=self.params["epochs"] * self.params["steps"]
                )

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                loss = float(logs["loss"])
                progress.update(self.task, advance=1, description=f"loss {loss:.3f}")

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                main = "main_" if "main_loss" in logs else ""
                progress.console.print(
                    f"epoch {epoch + 1:>3}/{self.params['epochs']}  "
                    f"loss {logs[main + 'loss']:.3f}  accuracy {logs[main + 'accuracy']:.3f}  "
                    f"held out: loss {logs['val_' + main + 'loss']:.3f}  "
                    f"accuracy {logs['val_' + main + 'accuracy']:.3f}"
                )

            def on_train_end(self, logs: Any = None) -> None:
                progress.update(self.task, description="evaluating and exporting")

        return Feed()
