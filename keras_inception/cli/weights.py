"""`keras-inception weights`: the public sets of weights, their conversion, their check."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from keras_inception.cli.command import Command, Group
from keras_inception.cli.common import console, usage_errors
from keras_inception.cli.endings import ended_by_signals
from keras_inception.files import LABELS_FILE, aside, write_labels

if TYPE_CHECKING:
    from keras_inception.weights.manifest import Digest, WeightsEntry

app = typer.Typer(
    cls=Group, help="Public weights: list, convert, verify.", rich_markup_mode="markdown"
)


@app.command("list", cls=Command)
def list_sets() -> None:
    """Every public set: what it is, where it is, how it is checked."""
    from keras_inception.weights.manifest import MANIFEST

    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in ("name", "variant", "pixels", "classes", "top-1 / top-5"):
        table.add_column(column)
    for entry in MANIFEST:
        accuracy = "not published" if entry.top_1 is None else f"{entry.top_1} / {entry.top_5}"
        table.add_row(entry.name, entry.variant, entry.pixels, str(entry.classes), accuracy)
    console.print(table)
    for entry in MANIFEST:
        digest = entry.digest
        check = _check(digest) if digest else "sha256 recorded at the first use"
        default = ', weights="imagenet" of its variant' if entry.default else ""
        console.print(f"{entry.name}: {entry.url}\n  {check}, licence {entry.licence}{default}")


def _check(digest: Digest) -> str:
    note = "" if digest.is_complete else " and more digits, recorded at the first use"
    return f"{digest.algorithm} {digest.value}{note}"


@app.command("convert", cls=Command)
@ended_by_signals()
def convert(
    source: Annotated[Path, typer.Argument(help="A file of any public format, or our own.")],
    to: Annotated[Path, typer.Option(help="The file to write: .weights.h5 or .keras.")],
    variant: Annotated[
        str | None, typer.Option(help="The network; default the one that the file holds.")
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(help="Default the file's own; 1001 keeps the background of TF-Slim's."),
    ] = None,
    auxiliary: Annotated[
        bool, typer.Option("--auxiliary", help="Keep the auxiliary classifiers.")
    ] = False,
    include_preprocessing: Annotated[
        bool,
        typer.Option(
            "--include-preprocessing",
            help="Let the model take RGB pixels in [0, 255]: its pixel convention becomes a part "
            "of it. For .keras files.",
        ),
    ] = False,
) -> None:
    """Public weights into a file of this package.

    Beside a .keras file of ImageNet's classes, their names are left in labels.txt, which `predict`
    and `export` read; a labels.txt that is there stays as it is.
    """
    with usage_errors():
        if not to.name.endswith((".weights.h5", ".keras")):
            raise ValueError(f"Expected --to FILE.weights.h5 or FILE.keras. Received: {str(to)!r}")
        if to.exists():
            raise ValueError(f"Expected a new file. Received: --to {str(to)!r}, which exists.")
        if not to.resolve().parent.is_dir():
            raise ValueError(f"Expected a folder that exists. Received: --to {str(to)!r}")
        from keras_inception.images.conventions import model_preprocessing
        from keras_inception.network.googlenet import GoogLeNet
        from keras_inception.network.imagenet import class_names

        model = GoogLeNet(
            weights=source,
            variant=variant,
            auxiliary=auxiliary,
            classes=classes,
            include_preprocessing=include_preprocessing,
        )
        with aside(to) as partial:
            if to.suffix == ".keras":
                model.save(partial)
            else:
                model.save_weights(partial)
        names = class_names(model.get_layer("predictions").output.shape[-1])
        labels_file = to.with_name(LABELS_FILE)
        if to.suffix == ".keras" and names and not labels_file.exists():
            write_labels(labels_file, names)
    console.print(
        f"{escape(str(to))}: {model.count_params():,} numbers, pixels in the convention "
        f"{model_preprocessing(model)!r}."
    )


@app.command("verify", cls=Command)
@ended_by_signals()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Sets of `weights list`; default all.")
    ] = None,
) -> None:
    """Fetch each public set, convert it, and print its top 5 of three bundled photos."""
    from keras_inception.weights.manifest import MANIFEST

    known = [entry.name for entry in MANIFEST]
    with usage_errors():
        unknown = [name for name in names or [] if name not in known]
        if unknown:
            raise ValueError(f"Expected names among {', '.join(known)}. Received: {unknown}")
    failed = []
    for entry in MANIFEST:
        if names and entry.name not in names:
            continue
        try:
            console.print(_verified(entry))
        except (ValueError, OSError, ImportError) as error:
            failed.append(entry.name)
            console.print(f"[bold red]{entry.name}:[/] {escape(str(error))}")
    if failed:
        console.print(f"Not verified: {', '.join(failed)}")
        raise typer.Exit(1)


def _verified(entry: WeightsEntry) -> Table:
    from keras_inception.inference.predictor import Predictor
    from keras_inception.network.googlenet import GoogLeNet
    from keras_inception.network.imagenet import class_names
    from keras_inception.runtimes.keras_model import keras_network
    from keras_inception.weights.cache import fetch, pin_digest

    model = GoogLeNet(weights=fetch(entry))
    pin_digest(entry)
    classes = model.output_shape[-1]
    # inception5h has an order of its own.
    labels = class_names(classes) or tuple(f"class {index}" for index in range(classes))
    predictor = Predictor(keras_network(model, labels))
    table = Table(title=f"{entry.name} ({entry.variant})")
    for column in ("photo", "class", "score"):
        table.add_column(column, justify="right" if column == "score" else "left")
    photos = resources.files("keras_inception") / "assets" / "photos"
    for photo in sorted(photos.iterdir(), key=lambda photo: photo.name):
        with resources.as_file(photo) as path:
            labels = predictor(path).labels
        for rank, (label, score) in enumerate(labels):
            last = rank == len(labels) - 1
            name = "" if rank else photo.name
            table.add_row(name, escape(label), f"{score:.4f}", end_section=last)
    return table
