"""A small local page and JSON endpoint around one network: drop an image, see what it sees.

FastAPI comes with the extra `serve`. Limits hold before an image is decoded: bytes of the upload,
pixels of the picture (decompression bombs), images waiting, and seconds until an answer.
"""

import asyncio
import base64
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_inception.evaluation.visualize import branch_names
from keras_inception.images.decode import read_image
from keras_inception.inference.predictor import load
from keras_inception.network.endpoints import feature_extractor
from keras_inception.packages import require_package
from keras_inception.runtimes.keras_model import is_channels_first, network_input

PAGE = Path(__file__).with_name("page.html")
_MAP_PIXELS = 64  # an activation map is shown at least this large


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server refuses.

    Attributes:
        upload_bytes: of one image; more is 413.
        pixels: width x height of one image; more is 400, as read from its header.
        seconds: until an answer; later is 503.
        waiting: requests at a time; more are 503 at once.
    """

    upload_bytes: int = 10_000_000
    pixels: int = 50_000_000
    seconds: float = 30.0
    waiting: int = 256


class Model:
    """What the server answers with: labels, and of a `.keras` file also the branches' maps."""

    def __init__(self, path: Path) -> None:
        self._predictor = load(path)
        self._features = None
        if (model := self._predictor.network.model) is not None:
            self._features = feature_extractor(model, branch_names(model))

    def answer(self, contents: bytes, top: int, limits: Limits, *, maps: bool) -> dict[str, Any]:
        """Labels of an image file, and of its branches the mean activation over channels.

        Raises:
            ValueError: no image, or one of more pixels than the limit.
        """
        height, width, channels = self._predictor.network.input_shape
        pixels = read_image(
            contents, height=height, width=width, channels=channels, limit=limits.pixels
        )
        labels = self._predictor.answers(pixels[None], top)[0]
        found = {"labels": [{"label": label, "score": score} for label, score in labels]}
        if maps and self._features is not None:
            tensors = self._features.predict_on_batch(network_input(self._features, pixels[None]))
            first = is_channels_first(self._features)
            found["branches"] = [
                {"name": name, "png": _as_png(np.asarray(tensor)[0].mean(axis=0 if first else -1))}
                for name, tensor in tensors.items()
            ]
        return found


def build_app(path: Path, limits: Limits | None = None) -> Any:
    """A FastAPI application: `GET /` is the page, `POST /predict` takes an image and gives JSON.

    `POST /predict?top=5&maps=false` takes the bytes of an image file as its body. It gives
    {"labels": [{"label", "score"}, ...]} and with `maps` also {"branches": [{"name", "png"}]}.
    400 for data that is not an image, 413 for an upload that is too large, 503 when busy: each
    {"detail": why}.

    Args:
        path: what `load_network` loads. Branch activations need a `.keras` file.
        limits: of uploads.

    Raises:
        MissingPackageError: FastAPI is not installed.
        ValueError: the model cannot be loaded.
    """
    require_package("fastapi")
    from fastapi import FastAPI, HTTPException, Query, Request
    from fastapi.responses import HTMLResponse

    limits = limits or Limits()
    model = Model(path)
    app = FastAPI(title="keras-inception", docs_url=None, redoc_url=None, openapi_url=None)
    workers = ThreadPoolExecutor(max_workers=2)
    waiting = 0

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    @app.post("/predict")
    async def predict(
        request: Request, top: int = Query(5, ge=1), maps: bool = False
    ) -> dict[str, Any]:
        nonlocal waiting
        if waiting >= limits.waiting:
            raise HTTPException(503, f"Busy: {waiting} images are waiting. Try again later.")
        waiting += 1
        try:
            async with asyncio.timeout(limits.seconds):
                contents = await _uploaded(request, limits.upload_bytes)
                call = asyncio.get_running_loop().run_in_executor(
                    workers, lambda: model.answer(contents, top, limits, maps=maps)
                )
                return await call
        except _TooLargeError as error:
            raise HTTPException(413, str(error)) from None
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        except TimeoutError:
            raise HTTPException(503, f"No answer within {limits.seconds:g} s.") from None
        finally:
            waiting -= 1

    return app


class _TooLargeError(Exception):
    """An upload beyond the limit."""


async def _uploaded(request: Any, most: int) -> bytes:
    """The body, an image file as it is, read no further than the limit."""
    contents = bytearray()
    async for chunk in request.stream():
        contents += chunk
        if len(contents) > most:
            raise _TooLargeError(f"Expected an image of at most {most:,} bytes.")
    return bytes(contents)


def _as_png(activation: np.ndarray) -> str:
    """h x w floats as a grey PNG, lowest black and highest white, in base64."""
    low, high = float(activation.min()), float(activation.max())
    grey = np.round((activation - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    factor = -(-_MAP_PIXELS // grey.shape[0])
    file = io.BytesIO()
    Image.fromarray(grey.repeat(factor, 0).repeat(factor, 1)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
