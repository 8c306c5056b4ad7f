"""A server of the tests in a thread of its own, and its clients."""

import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_inception.inference.server import build_app
from keras_inception.inference.server_connections import listening_socket, make_server
from keras_inception.inference.server_limits import Limits

LABELS = ("a", "b", "<script>", "d", "e")


@contextmanager
def running(model_file: Path, limits: Limits, **options: Any) -> Iterator[str]:
    with listening_socket("127.0.0.1", 0) as listening:
        server = make_server(build_app(model_file, limits, **options), limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            assert post(url, None, path="/health")[0] == 200  # it accepts connections
            yield url
        finally:
            server.should_exit = True
            thread.join()


def png(width: int = 32, height: int = 32, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def post(
    url: str, contents: bytes | None, query: str = "", path: str = "/predict", **headers: str
) -> tuple[int, Any]:
    """Post contents; None: get."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{url}{path}{query}", contents, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
