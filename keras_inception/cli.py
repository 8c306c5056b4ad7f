"""The command line: the only room that prints. `keras-inception --help` lists the commands.

Exit codes: 0; 2 for a mistake in what was asked (one line, no traceback); 1 for anything else.
TensorFlow is imported inside the commands, so that help and mistakes answer at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from keras_inception.cost import network_cost, table_1
from keras_inception.recipe import RECIPES, Recipe
from keras_inception.spec import NetworkSpec
from keras_inception.variants import VARIANTS, variant_spec

app = typer.Typer(
    help="GoogLeNet and the Inception v1 family: count, train, predict.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Variant = Annotated[str, typer.Option(help="A named network; `summary --list` shows them all.")]
SpecFile = Annotated[
    Path | None, typer.Option("--spec", help="A spec.json, in the place of --variant.")
]


def main() -> None:
    """Entry point of the console script."""
    # TensorFlow's C++ side logs to stderr as it starts; the user asked for none of it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app()


@app.command()
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
    with _mistakes():
        spec, recipe = _spec(variant, spec_file), _recipe(recipe_name)
        given = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
        recipe = replace(recipe, **{key: value for key, value in given.items() if value is not None})
    from keras_inception.data import load_sample
    from keras_inception.train import check_run, fitted_to_data
    from keras_inception.train import train as run

    with _mistakes():
        data = load_sample()
        spec = fitted_to_data(spec, data)
        folder = out or _new_folder(f"{spec.name}-{data.name}")
        check_run(spec, data, recipe, folder)
        console.print(_cost_line(spec))
    console.print(
        f"{len(data.train):,} training and {len(data.test):,} held-out images of "
        f"{data.name!r}, {recipe.epochs} epochs of recipe {recipe.name!r}."
    )
    try:
        with _TrainingDisplay() as display:
            result = run(spec, data, recipe, folder, callbacks=[display.callback])
    except KeyboardInterrupt:
        _tell_interrupted(folder)
        raise typer.Exit(1) from None
    console.print(
        f"Held-out accuracy [bold]{result.metrics['top_1']:.2%}[/] "
        f"(top-5 {result.metrics['top_5']:.2%}) after {result.metrics['seconds']:.0f} s."
    )
    console.print(f"Everything is in [bold]{escape(str(folder))}[/]:")
    for path in sorted(folder.iterdir()):
        console.print(f"  {escape(path.name)}{'/' if path.is_dir() else ''}")


@app.command()
def summary(
    variant: Variant = "paper",
    spec_file: SpecFile = None,
    by_layer: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show the whole family.")] = False,
    input_size: Annotated[
        int | None, typer.Option(help="Height and width in pixels, in the place of the variant's.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="In the place of the variant's.")] = None,
) -> None:
    """Parameters and multiply-adds of a network, beside the paper's Table 1."""
    if list_all:
        console.print(_family_table())
        return
    with _mistakes():
        spec = _spec(variant, spec_file)
        if input_size is not None:
            spec = replace(spec, input_shape=(input_size, input_size, spec.input_shape[2]))
        if classes is not None:
            spec = replace(spec, classes=classes)
        table = _layer_table(spec) if by_layer else _table_1(spec)
        line = _cost_line(spec)
    console.print(table)
    console.print(line)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a .keras file.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(min=1, help="Labels for each image.")] = 5,
) -> None:
    """The most probable labels of images."""
    with _mistakes():
        path = model / "model.keras" if model.is_dir() else model
        if path.suffix != ".keras" or not path.is_file():
            raise ValueError(
                "Expected a folder that holds model.keras, or a .keras file. "
                f"Received: {str(model)!r}"
            )
        missing = [str(image) for image in images if not image.is_file()]
        if missing:
            raise ValueError(f"Expected image files. Received, and not found: {missing}")
    from keras_inception.predict import Predictor

    with _mistakes():
        predictor = Predictor.load(path)
    table = Table()
    for column in ("image", "label", "score"):
        table.add_column(column, justify="right" if column == "score" else "left")
    for image in images:
        with _mistakes():
            answers = predictor.predict(image, top)
        for rank, (label, score) in enumerate(answers):
            name = escape(str(image)) if rank == 0 else ""
            table.add_row(name, escape(label), f"{score:.4f}", end_section=rank == len(answers) - 1)
    console.print(table)


@contextmanager
def _mistakes() -> Iterator[None]:
    """Turn what the user can mend into one line and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from None


def _spec(variant: str, path: Path | None) -> NetworkSpec:
    if path is None:
        return variant_spec(variant)
    return NetworkSpec.from_json(path.read_text(encoding="utf-8"))


def _recipe(name: str) -> Recipe:
    if name in RECIPES:
        return RECIPES[name]
    if name.endswith(".json"):
        return Recipe.from_json(Path(name).read_text(encoding="utf-8"))
    raise ValueError(
        f"Expected a recipe among {', '.join(RECIPES)}, or a recipe.json. Received: {name!r}"
    )


def _new_folder(name: str) -> Path:
    return Path("saved_models") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _cost_line(spec: NetworkSpec) -> str:
    total = network_cost(spec).total
    height, width, channels = spec.input_shape
    return (
        f"[bold]{escape(spec.name)}[/] on {height} x {width} x {channels}, {spec.classes} classes: "
        f"{total.params:,} parameters, {total.macs:,} multiply-adds, "
        f"{total.activation_bytes() / 1e6:.1f} MB of activations an image."
    )


def _table_1(spec: NetworkSpec) -> Table:
    rows = table_1(spec)
    branches = list(dict.fromkeys(column for row in rows for column in row.filters))
    branches.sort(key="1x1".__ne__)  # conv2's row comes first, without a 1x1 branch
    if "pool proj" in branches:
        branches.append(branches.pop(branches.index("pool proj")))
    table = Table(title=f"Table 1 of the paper, for {spec.name!r} (1K = 1024)")
    table.add_column("type")
    for column in ("patch", "output", *branches, "params", "multiply-adds"):
        table.add_column(column, justify="right")
    for column in ("printed params", "printed ops"):
        table.add_column(column, justify="right", style="dim")
    for row in rows:
        widths = [row.filters.get(column, "") for column in branches]
        table.add_row(
            row.type,
            row.patch,
            "x".join(str(size) for size in row.output_shape),
            *("none" if width is None else str(width) for width in widths),
            f"{row.weights / 1024:,.1f}K",
            f"{row.macs / 1e6:,.1f}M",
            row.printed_params,
            row.printed_ops,
        )
    weights, macs = sum(row.weights for row in rows), sum(row.macs for row in rows)
    table.add_section()
    sums = (f"{weights / 1024:,.1f}K", f"{macs / 1e6:,.1f}M", "6,798K", "1,502M")
    table.add_row("sum", "", "", *[""] * len(branches), *sums)
    return table


def _layer_table(spec: NetworkSpec) -> Table:
    table = Table(title=f"Every layer of {spec.name!r}")
    for column in ("layer", "kind", "output", "params", "multiply-adds", "activations"):
        table.add_column(column, justify="left" if column in ("layer", "kind") else "right")
    for layer in network_cost(spec, auxiliary=bool(spec.aux)).layers:
        output = "x".join(str(size) for size in layer.output_shape)
        counts = (f"{count:,}" for count in (layer.params, layer.macs, layer.activations))
        table.add_row(layer.name, layer.kind, output, *counts)
    return table


def _family_table() -> Table:
    table = Table(title="The family")
    for column in ("variant", "input", "classes", "parameters", "multiply-adds"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, spec in VARIANTS.items():
        total = network_cost(spec).total
        size = "x".join(str(n) for n in spec.input_shape)
        table.add_row(name, size, str(spec.classes), f"{total.params:,}", f"{total.macs:,}")
    return table


def _tell_interrupted(folder: Path) -> None:
    if (folder / "model.keras").exists():
        errors.print(
            "Stopped. The model of the last complete epoch is in "
            f"[bold]{escape(str(folder / 'model.keras'))}[/]."
        )
    else:
        errors.print(
            f"Stopped before the end of the first epoch. {escape(str(folder))} holds no model yet."
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
                prefix = "main_" if "main_accuracy" in logs else ""
                progress.console.print(
                    f"epoch {epoch + 1:>3}/{self.params['epochs']}  "
                    f"loss {logs['loss']:.3f}  accuracy {logs[prefix + 'accuracy']:.3f}  "
                    f"held out: loss {logs['val_loss']:.3f}  "
                    f"accuracy {logs['val_' + prefix + 'accuracy']:.3f}"
                )

            def on_train_end(self, logs: Any = None) -> None:
                progress.update(self.task, description="evaluating and exporting")

        return Feed()
