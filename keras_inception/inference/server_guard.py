"""Which requests the server answers at all, and the headers of every answer. No framework."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

_HTTP_PORT = 80
Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """An ASGI application around another: foreign hosts and origins get 403.

    A page of another site can make a browser send requests here, also under a name of its own that
    it points to this address. Such requests name that site in `Host` or `Origin`.

    Args:
        app: the application.
        allowed_hosts: names beside the address that a request came to, each with a port or for any.
        page: HTML whose own scripts and styles the browser may use.
        seconds: in which the body of a request must be complete.
    """

    def __init__(self, app: Any, allowed_hosts: Iterable[str], page: str, seconds: float) -> None:
        self.app = app
        self._seconds = seconds
        self._allowed = {re.sub(r"[\[\]]", "", host.lower()) for host in allowed_hosts}
        self.headers = answer_headers(page)

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        body = _Body(scope, receive, self._seconds)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.discard()
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        reason = self._refusal(scope)
        if reason is None:
            await self.app(scope, body.receive, send_with_headers)
        else:
            await _refuse(reason, send_with_headers)

    def _refusal(self, scope: Message) -> str | None:
        """Why a request is not answered; None: it is."""
        hosts = _values(scope, b"host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if not self._is_allowed(host, scope.get("server")):
            return (
                "Expected this server's address as Host, or a name of --allow-host. "
                f"Received: {', '.join(hosts) or 'none'}"
            )
        for origin in _values(scope, b"origin"):
            if origin.lower() not in (f"http://{host}", f"https://{host}"):
                return f"Expected a request of this server's own page. Received: Origin {origin}"
        return None

    def _is_allowed(self, host: str, server: tuple[str, int | None] | None) -> bool:
        name, port = _name_and_port(host)
        if not name:
            return False
        if name in self._allowed or f"{name}:{port}" in self._allowed:
            return True
        return server is not None and port == server[1] and name in _names(server[0])


class _Body:
    """What a client sends after the headers of a request.

    Most clients read an answer only after they have sent all. Of one that is answered before, what
    it still sends is read and dropped, or a closed connection would be all that it sees.
    """

    def __init__(self, scope: Message, receive: Any, seconds: float) -> None:
        self._receive = receive
        self._deadline = asyncio.get_running_loop().time() + seconds
        # A client that expects an answer first sends nothing.
        self._has_ended = bool(_values(scope, b"expect"))

    async def receive(self) -> Message:
        """The next part."""
        message: Message = await self._receive()
        self._has_ended = not message.get("more_body", False)
        return message

    async def discard(self) -> None:
        """Read it to its end, or until the time has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._deadline):
                while not self._has_ended:
                    await self.receive()


def answer_headers(page: str) -> list[tuple[bytes, bytes]]:
    """The headers by which a browser protects a page and the answers of its server."""
    return [
        (b"content-security-policy", content_policy(page).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    ]


def content_policy(page: str) -> str:
    """A Content-Security-Policy that allows a page its own scripts and styles, and no others'."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_digests('script', page)}",
            f"style-src {_digests('style', page)}",
            "img-src 'self' blob: data:",
            "connect-src 'self' https: http:",  # images by their address, read by the browser
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _digests(element: str, page: str) -> str:
    """The digest of each inline script or style."""
    texts = re.findall(rf"<{element}[^>]*>(.*?)</{element}>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in texts]
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests) or "'none'"


def _values(scope: Message, header: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == header]


def _name_and_port(host: str) -> tuple[str, int | None]:
    """The parts of a Host header; ("", None): it has none."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]/@\s]+)(?::(\d{1,5}))?", host)
    if found is None:
        return "", None
    return found[1].strip("[]"), int(found[2] or _HTTP_PORT)


def _names(address: str) -> tuple[str, ...]:
    """What a browser may call the address that a connection came to."""
    try:
        is_loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name: there is no network in between, as in tests
        is_loopback = False
    return (address.lower(), "localhost") if is_loopback else (address.lower(),)


async def _refuse(reason: str, send: Send) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
