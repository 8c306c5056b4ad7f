"""`keras-inception serve`: a local page and JSON endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_inception.cli.common import console, usage_errors


def serve(
    model: Annotated[
        Path,
        typer.Argument(
            help="A run's folder, a .keras file, a SavedModel, or a .tflite, .onnx or .xml file."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default answers this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    upload_megabytes: Annotated[float, typer.Option(help="Largest image file.")] = 10.0,
    megapixels: Annotated[float, typer.Option(help="Largest picture.")] = 50.0,
    seconds: Annotated[float, typer.Option(help="Longest wait for an answer.")] = 30.0,
) -> None:
    """A page to drop images on, and POST /predict for programs."""
    with usage_errors():
        if not model.exists():
            raise ValueError(f"Expected a model. Received, and not found: {str(model)!r}")
    from keras_inception.inference.server import Limits, build_app
    from keras_inception.packages import require_package

    with usage_errors():
        require_package("uvicorn")
        app = build_app(
            model,
            Limits(
                upload_bytes=round(upload_megabytes * 1e6),
                pixels=round(megapixels * 1e6),
                seconds=seconds,
            ),
        )
    import uvicorn

    console.print(f"http://{host}:{port} (stop with Ctrl-C)")
    uvicorn.run(app, host=host, port=port, log_level="warning")
