"""Connections of the server: those that never complete a request are closed.

uvicorn has no limits for them. This module alone uses its protocol class.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import h11
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from keras_inception.inference.server_guard import Guard
from keras_inception.inference.server_limits import Limits

# A connection gives way to new ones when it has not completed a request in this time.
_PATIENCE_SECONDS = 1.0
# After the time in which an upload must be complete or an answer made, for an answer that says so.
_GRACE_SECONDS = 2.0
_GRACEFUL_SECONDS = 5
_INCOMPLETE_PHASES = (h11.IDLE, h11.SEND_BODY)  # of a client


def make_server(app: Guard, limits: Limits, **options: Any) -> Server:
    """A uvicorn server of an application, which holds `limits` of connections.

    Args:
        app: of `build_app`.
        limits: seconds and numbers of connections.
        options: of `uvicorn.Config`.
    """
    shared = {"open": _Incomplete(limits), "error_headers": app.headers}
    protocol = type("LimitedProtocol", (_LimitedProtocol,), shared)
    settings: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "ws": "none",
        "timeout_graceful_shutdown": _GRACEFUL_SECONDS,
    }
    return Server(Config(app, http=protocol, **settings | options))


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        ValueError: no address of this machine, or the port is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise ValueError(
            "Expected an address of this machine and a free port. Received: "
            f"{host}:{port} ({error.strerror or error}). Choose another one by --host or --port."
        ) from None
    # asyncio sets it only for sockets made with IPPROTO_TCP, which `create_server` does not name.
    # Without it the body of an answer waits 40 ms for the client to acknowledge the headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class _Incomplete:
    """The connections of a server that have not completed a request, oldest first."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._since: dict[_LimitedProtocol, float] = {}
        self._bytes = 0

    def add(self, connection: _LimitedProtocol) -> None:
        """Note that a connection has to complete a request."""
        self._since.setdefault(connection, connection.loop.time())
        self._make_way(connection.loop.time())

    def receive(self, connection: _LimitedProtocol, count: int) -> None:
        """Note bytes of an incomplete request; those beyond the limit of an upload are dropped."""
        count = min(count, self.limits.upload_bytes - connection.held)
        connection.held += count
        self._bytes += count
        self._make_way(connection.loop.time())

    def discard(self, connection: _LimitedProtocol) -> None:
        """Note that a request is complete, or its connection closed."""
        self._since.pop(connection, None)
        self._bytes -= connection.held
        connection.held = 0

    def _make_way(self, now: float) -> None:
        too_many = len(self._since) > self.limits.connections
        if self._since and (too_many or self._bytes > self.limits.waiting_bytes):
            oldest, since = next(iter(self._since.items()))
            if now - since > _PATIENCE_SECONDS:
                oldest.give_up()


class _LimitedProtocol(H11Protocol):
    """uvicorn's protocol, with a deadline for each phase of a request: headers, body, answer."""

    # `make_server` sets these.
    open: _Incomplete
    error_headers: list[tuple[bytes, bytes]]
    held = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._phase: Any = None
        self._deadline: asyncio.TimerHandle | None = None
        self._follow()

    def data_received(self, data: bytes) -> None:
        self.open.receive(self, len(data))
        super().data_received(data)
        self._follow()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        self.open.discard(self)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._phase not in _INCOMPLETE_PHASES:  # the next request may be complete already
            self._phase = None
        self._follow()

    def shutdown(self) -> None:
        """End the connection, after its answer if a request is complete."""
        if self._phase is h11.SEND_BODY:
            self.give_up()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the form of all errors."""
        body = json.dumps({"detail": msg}).encode()
        own = [(b"content-type", b"application/json"), (b"connection", b"close")]
        for event in (
            h11.Response(
                status_code=400, headers=[*own, *self.error_headers], reason=b"Bad Request"
            ),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _get_upgrade(self) -> bytes | None:
        """Upgrade to no other protocol, as HTTP allows; uvicorn would log advice on WebSockets."""
        return None

    def give_up(self) -> None:
        """Close the connection at once."""
        self._end_deadline()
        self.open.discard(self)
        self.transport.abort()

    def _follow(self) -> None:
        """Set the deadline of what the client has to do next, once for each phase."""
        phase = self.conn.their_state
        if phase is self._phase:
            return
        self._phase = phase
        if phase in _INCOMPLETE_PHASES:
            self.open.add(self)
        else:
            self.open.discard(self)
        self._end_deadline()
        self._deadline = self.loop.call_later(self._seconds_of(phase), self.give_up)

    def _seconds_of(self, phase: Any) -> float:
        limits = self.open.limits
        if phase is h11.IDLE:
            return limits.header_seconds
        # A complete request has time for its answer, and for the client to read it.
        return limits.seconds * (1 if phase is h11.SEND_BODY else 2) + _GRACE_SECONDS

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
