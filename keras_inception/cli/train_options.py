"""The options that only `keras-inception train` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder of the run; default saved_models/ and a name with the time."
    ),
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
