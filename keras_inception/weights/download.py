"""Download of a public file, with time-outs, a bound on its size, and no way back from https."""

from __future__ import annotations

import queue
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import keras

from keras_inception.bounded import LEAST_BYTES

# Without a byte, for the headers of an answer, and for the whole file.
SILENCE_SECONDS = 30.0
HEADER_SECONDS = 120.0
MOST_SECONDS = 3600.0
_BLOCK = 1 << 16


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, and from http to http."""

    def redirect_request(self, request: Any, *others: Any) -> Any:
        target, scheme = others[-1], urlsplit(request.full_url).scheme
        if urlsplit(target).scheme not in (scheme, "https"):
            raise OSError(f"a redirect from {scheme} to {target}")
        return super().redirect_request(request, *others)


def download(url: str, path: Path) -> str | None:
    """Write the body of a URL to a file, with a progress bar.

    Returns:
        None if the body has the length that the server announces; otherwise what is wrong with it.

    Raises:
        OSError: no connection, an error of the server, a time-out, or more bytes than the weights
            of this family have.
    """
    try:
        with _opened(url) as response, path.open("wb") as file:
            header = response.headers.get("Content-Length", "")
            announced = int(header) if header.isdecimal() and len(header) < 20 else None
            received = _copy(response, file, announced)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise
    except TimeoutError as error:
        raise TimeoutError(f"no data for {SILENCE_SECONDS:g} seconds") from error
    except (HTTPException, ValueError) as error:  # ValueError: a URL that is none
        raise OSError(f"an answer that is not of HTTP ({type(error).__name__}: {error})") from error
    if announced is None:
        return f"{received:,} bytes, of which the server announced no length"
    return None if received == announced else f"{received:,} of {announced:,} announced bytes"


def _opened(url: str) -> Any:
    """Return the response to a request; its headers are read in a thread, within a limit.

    The time-out of a connection begins again with each byte.
    """
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            opener = urllib.request.build_opener(_Redirects)
            answer.put(opener.open(url, timeout=SILENCE_SECONDS))
        except BaseException as error:
            answer.put(error)

    threading.Thread(target=ask, name="download", daemon=True).start()
    try:
        response = answer.get(timeout=HEADER_SECONDS)
    except queue.Empty:
        raise OSError(f"incomplete headers after {HEADER_SECONDS:g} seconds, too slow") from None
    if isinstance(response, BaseException):
        raise response
    return response


def _copy(response: Any, file: Any, announced: int | None) -> int:
    started, received = time.monotonic(), 0
    bar = keras.utils.Progbar(announced, unit_name="byte")
    _require_within(announced or 0)
    while block := response.read1(_BLOCK):
        received += len(block)
        _require_within(received)
        if time.monotonic() - started > MOST_SECONDS:
            raise OSError(f"{received:,} bytes after {MOST_SECONDS:g} seconds, too slow")
        file.write(block)
        bar.update(received)
    return received


def _require_within(size: int) -> None:
    if size > LEAST_BYTES:
        raise OSError(f"more than {LEAST_BYTES:,} bytes, which no set of weights has")
