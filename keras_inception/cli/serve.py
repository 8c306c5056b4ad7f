"""`keras-inception serve`: a local page and JSON endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_inception.cli.common import console, usage_errors
from keras_inception.cli.options import Threads
from keras_inception.cli.waits import LOADING_MODEL, waiting

if TYPE_CHECKING:
    from keras_inception.inference.server_limits import Limits

_MOST = 1e6  # of any limit


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
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which requests may address the server, such as that of a proxy in front "
            "of it, with a port or for any; repeat it for more. Default the address itself."
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=1024, help="Maximum images in one call of the network.")
    ] = 16,
    threads: Threads = None,
    upload_megabytes: Annotated[
        float, typer.Option(min=0, max=_MOST, help="Maximum size of an image file, in megabytes.")
    ] = 10.0,
    megapixels: Annotated[
        float, typer.Option(min=0, max=_MOST, help="Maximum size of an image, in megapixels.")
    ] = 50.0,
    seconds: Annotated[
        float, typer.Option(min=0, max=_MOST, help="Maximum seconds to answer a request.")
    ] = 30.0,
) -> None:
    """A page to drop images on, and POST /predict for programs."""
    from keras_inception.inference.server_limits import Limits
    from keras_inception.packages import require_package

    with usage_errors():
        if not model.exists():
            raise ValueError(f"Expected a model. Received, and not found: {str(model)!r}")
        for package in ("fastapi", "uvicorn", "python_multipart"):
            require_package(package)
        upload_bytes = round(upload_megabytes * 1e6)
        limits = Limits(
            upload_bytes=upload_bytes,
            pixels=round(megapixels * 1e6),
            seconds=seconds,
            waiting_bytes=max(Limits.waiting_bytes, 4 * upload_bytes),
        )
    _serve(model, limits, host, port, allow_host or [], batch_size, threads)


def _serve(
    model: Path,
    limits: Limits,
    host: str,
    port: int,
    names: list[str],
    batch_size: int,
    threads: int | None,
) -> None:
    from keras_inception.inference.server_connections import listening_socket, make_server

    with usage_errors():
        listening = listening_socket(host, port)
    with listening:
        with usage_errors(), waiting(LOADING_MODEL):
            from keras_inception.inference.server import build_app

            own = f"{host}:{port}"
            app = build_app(
                model,
                limits,
                allowed_hosts=[own, *names],
                batch_size=batch_size,
                threads=threads,
            )
        address = f"[{host}]" if ":" in host else host
        console.print(f"http://{address}:{port} (stop with Ctrl-C)")
        make_server(app, limits).run(sockets=[listening])
