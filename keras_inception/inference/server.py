"""A small local page and JSON endpoint around one network: drop an image, see what it sees.

FastAPI comes with the extra `serve`. Images are decoded in other processes (`server_decode`), those
that wait at the same time share a call of the network (`server_batch`), and every request passes
`server_guard`. docs/serving.md lists the errors.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from keras_inception.files import MODEL_FILE
from keras_inception.inference.predictor import best_labels, load
from keras_inception.inference.server_batch import MOST_IN_A_CALL, Batcher
from keras_inception.inference.server_decode import Decoder, UnusableImageError
from keras_inception.inference.server_guard import Guard
from keras_inception.inference.server_limits import Limits
from keras_inception.inference.server_maps import Maps
from keras_inception.packages import require_package
from keras_inception.wording import counted

PAGE = Path(__file__).with_name("page.html")
PACKAGES = ("fastapi", "uvicorn", "python_multipart")
_GET = ["GET", "HEAD"]
_EXAMPLES = 20  # classes that the page names
_MULTIPART_BYTES = 64_000  # of a form, around its file


class Model:
    """What the server answers with: labels, and of a `.keras` file also the branches' maps.

    Args:
        path: what `load_network` loads.
        limits: of an image.
        batch_size: the most images in one call of the network.
        threads: that compute.
    """

    def __init__(
        self, path: Path, limits: Limits, batch_size: int, threads: int | None = None
    ) -> None:
        network = load(path, threads=threads).network
        self._labels = network.labels
        self._shape = network.input_shape
        self.decoder = Decoder(network.input_shape, limits)
        self._batcher = Batcher(network.scores, batch_size)
        self._maps = None if network.model is None else Maps(network.model, network.labels)
        whole = path.resolve()
        self._name = whole.parent.name if whole.name == MODEL_FILE else whole.name

    async def answer(self, contents: bytes, top: int, *, maps: bool) -> dict[str, Any]:
        """Labels of an image file, and what the network sees in it (`Maps.of`).

        Raises:
            UnusableImageError: no image, or one that passes a limit.
        """
        pixels = await self.decoder.pixels(contents)
        scores = await self._batcher.scores(pixels)
        labels = best_labels(scores[None], self._labels, top)[0]
        found: dict[str, Any] = {
            "labels": [{"label": label, "score": score} for label, score in labels]
        }
        if maps and self._maps is not None:
            best = int(scores.argmax())
            found |= await self._batcher.in_thread(self._maps.of, pixels, best)
        return found

    def facts(self) -> dict[str, Any]:
        """What the page says of the model."""
        height, width, channels = self._shape
        return {
            "name": self._name,
            "classes": len(self._labels),
            "examples": list(self._labels[:_EXAMPLES]),
            "height": height,
            "width": width,
            "channels": channels,
            "maps": self._maps is not None,
            "class_map": self._maps is not None and self._maps.has_class_map,
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start what the first request would wait for; end it after the last."""
        await self.decoder.start()
        await self._batcher.in_thread(self._batcher.warm_up, self._shape)
        try:
            yield
        finally:
            await self.decoder.stop()
            self._batcher.close()


def build_app(
    path: Path,
    limits: Limits | None = None,
    *,
    allowed_hosts: Sequence[str] = (),
    batch_size: int = MOST_IN_A_CALL,
    threads: int | None = None,
) -> Guard:
    """An ASGI application: `GET /` is the page, `POST /predict` takes an image and gives JSON.

    `POST /predict?top=5&maps=false` takes an image file as its body, or as the one file of a form.
    It gives {"labels": [{"label", "score"}, ...]} and with `maps`, of a `.keras` file, also what
    the network sees: {"image": png, "branches": [{"name", "module", "png"}], "class_map":
    {"label", "png"} or null}. `GET /model` gives its name, classes and size, `GET /health`
    {"status": "ok"}. Errors are {"detail": why}, a string.

    Args:
        path: what `load_network` loads. Branch activations need a `.keras` file.
        limits: of uploads.
        allowed_hosts: names of the server beside the address that a request came to.
        batch_size: the most images in one call of the network.
        threads: that compute; default one for each core.

    Raises:
        MissingPackageError: a package of the extra `serve` is not installed.
        ValueError: the model cannot be loaded.
    """
    for package in PACKAGES:
        require_package(package)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what clients send is no event
    if batch_size < 1:
        raise ValueError(f"Expected a batch size of 1 or more. Received: {batch_size}")
    limits = limits or Limits()
    page = PAGE.read_text(encoding="utf-8")
    app = _application(Model(path, limits, batch_size, threads), limits, page)
    return Guard(app, allowed_hosts, page, limits.seconds)


def _application(model: Model, limits: Limits, page: str) -> Any:
    from fastapi import FastAPI, Query, Request
    from fastapi.responses import HTMLResponse

    app = FastAPI(
        title="keras-inception",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lambda _: model.running(),
    )
    _add_error_handlers(app)
    places = _Places(limits)

    @app.api_route("/", methods=_GET, response_class=HTMLResponse)
    async def show_page() -> str:
        return page

    @app.api_route("/health", methods=_GET)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.api_route("/model", methods=_GET)
    async def facts() -> dict[str, Any]:
        return model.facts()

    @app.post("/predict")
    async def predict(
        request: Request, top: int = Query(5, ge=1), maps: bool = False
    ) -> dict[str, Any]:
        contents = await _uploaded(request, limits)
        with places.taken(len(contents)):
            try:
                async with asyncio.timeout(limits.seconds):
                    return await model.answer(contents, top, maps=maps)
            except UnusableImageError as error:
                raise _error(400, str(error)) from None
            except TimeoutError:
                raise _error(503, f"No answer within {limits.seconds:g} s.") from None

    return app


class _Places:
    """Complete uploads that wait for their answers; the server holds a limited number."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._count = 0
        self._bytes = 0

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        if self._count >= self._limits.waiting or self._bytes + size > self._limits.waiting_bytes:
            raise _error(503, f"Busy: {counted(self._count, 'image')} waiting. Try again later.")
        self._count += 1
        self._bytes += size
        try:
            yield
        finally:
            self._count -= 1
            self._bytes -= size


def _error(status: int, reason: str, **headers: str) -> Exception:
    from fastapi import HTTPException

    return HTTPException(status, reason, headers=headers or None)


def _add_error_handlers(app: Any) -> None:
    """Bring the errors that are not `_error`'s to the same form."""
    from fastapi import Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    @app.exception_handler(RequestValidationError)
    async def refused(_: Request, error: RequestValidationError) -> JSONResponse:
        reasons = [
            f"{item['loc'][-1]}: {item['msg']}. Received: {item['input']!r}"
            for item in error.errors()
        ]
        return JSONResponse({"detail": "; ".join(reasons)}, 422)

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"detail": "The server failed; its log has the reason."}, 500)


async def _uploaded(request: Any, limits: Limits) -> bytes:
    """The image file of a request: its body, or the one file of a form.

    Raises:
        HTTPException: too large, too slow, a form without a file, or the client has gone.
    """
    from starlette.requests import ClientDisconnect

    is_form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    try:
        async with asyncio.timeout(limits.seconds):
            if is_form:
                return await _file_of_form(request, limits.upload_bytes)
            return b"".join([chunk async for chunk in _bounded(request, limits.upload_bytes)])
    except TimeoutError:
        message = f"The upload was not complete within {limits.seconds:g} s."
        raise _error(408, message, Connection="close") from None
    except ClientDisconnect:  # nobody receives this
        raise _error(400, "The client closed the connection.") from None


def _too_large(most: int) -> Exception:
    return _error(413, f"Expected an image of at most {most:,} bytes.")


async def _bounded(request: Any, most: int, around: int = 0) -> AsyncGenerator[bytes, None]:
    """The body, read no further than the limit of an image and what may be around it."""
    received = int(request.headers.get("content-length", 0))
    if received <= most + around:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > most + around:
                break
            yield chunk
    if received > most + around:
        raise _too_large(most)


async def _file_of_form(request: Any, most: int) -> bytes:
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    body = _bounded(request, most, _MULTIPART_BYTES)
    try:
        form = await MultiPartParser(request.headers, body, max_files=1, max_fields=10).parse()
    except (MultiPartException, KeyError) as error:
        raise _error(400, f"Expected a form with one image file. Received: {error}") from None
    try:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if not files:
            raise _error(400, "Expected a form with one image file. Received: one without files")
        if (files[0].size or 0) > most:
            raise _too_large(most)
        return await files[0].read()
    finally:
        await form.close()
