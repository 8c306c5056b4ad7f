"""`keras-inception export`: a trained model in the formats that serve it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from keras_inception.cli.common import console, model_path, usage_errors
from keras_inception.files import LABELS_FILE, RECIPE_FILE, SPEC_FILE


def export(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a .keras file.")],
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="saved_model (default), saved_model-bfloat16, onnx, openvino, litert, "
            "openvino-bfloat16, litert-float16, litert-int8; all; or fastest. May be given several "
            "times.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A new folder; default `export` beside the model.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="A folder of your images, for the check and for int8's calibration; folders in "
            "it named after the classes give the accuracy. Default: the embedded sample."
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option("--feature", help="Endpoints of the SavedModel's signature `features`."),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Branches that are one convolution each, as one: for small images, where it is "
            "the layers that take the time.",
        ),
    ] = False,
) -> None:
    """Write a model in formats that serve it, each checked against the model on real images."""
    with usage_errors():
        path = model_path(model)
    from keras_inception.exporters.calibration import folder_images, sample_images
    from keras_inception.exporters.formats import FORMATS
    from keras_inception.exporters.job import available_formats, export_model
    from keras_inception.runtimes.keras_model import image_shape, load_keras

    wanted = kinds or ["saved_model"]
    fastest = wanted == ["fastest"]
    chosen: Any = wanted
    if fastest:
        chosen = available_formats()
    elif wanted == ["all"]:
        chosen = FORMATS
    folder = out or path.with_name("export")
    labels_file = path.with_name(LABELS_FILE)
    documents = {
        file.name: file.read_text(encoding="utf-8")
        for file in (path.with_name(name) for name in (SPEC_FILE, RECIPE_FILE))
        if file.is_file()
    }
    with usage_errors():
        network = load_keras(path)
        labels = None
        if labels_file.is_file():
            labels = labels_file.read_text(encoding="utf-8").splitlines()
        shape = image_shape(network)
        found = folder_images(images, shape, labels) if images else sample_images(shape, labels)
        rows = export_model(
            network,
            folder,
            chosen,
            images=found,
            labels=labels,
            features=features or ["avg_pool"],
            documents=documents,
            fastest=fastest,
            merge=merge,
        )
    console.print(_table(rows))
    kept = ", ".join(row.path.name for row in rows if row.path)
    console.print(f"[bold]{escape(str(folder))}[/] holds {escape(kept)}.")


def _table(rows: list[Any]) -> Table:
    table = Table()
    table.add_column("format")
    for column in ("MB", "largest\ndifference", "same\nfirst", "accuracy", "ms an\nimage", "speed"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.kind,
            f"{row.size / 1e6:.1f}" if row.size else "",
            f"{row.agreement.largest_difference:.1e}",
            f"{row.agreement.same_first:.1%}",
            "" if row.accuracy is None else f"{row.accuracy:.1%}",
            f"{row.milliseconds:.2f}",
            f"{rows[0].milliseconds / row.milliseconds:.2f}x",
        )
    return table
