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

from keras_inception.inference.server_limits import Limits

# A connection gives way to new ones when it has not completed a request in this time.
_PATIENCE_SECONDS = 1.0
# After the time in which an upload must be complete, for an answer that says so.
_GRACE_SECONDS = 2.0
_GRACEFUL_SECONDS = 5


def make_server(app: Any, limits: Limits, **options: Any) -> Server:
    """A uvicorn server of an application, which holds `limits` of connections.

    Args:
        app: of `build_app`.
        limits: seconds and numbers of connections.
        options: of `uvicorn.Config`.
    """
    protocol = type("LimitedProtocol", (_LimitedProtocol,), {"open": _Incomplete(limits)})
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
        """Note bytes of an incomplete request."""
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
        if too_many or self._bytes > self.limits.waiting_bytes:
            oldest, since = next(iter(self._since.items()))
            if now - since > _PATIENCE_SECONDS:
                oldest.give_up()


class _LimitedProtocol(H11Protocol):
    """uvicorn's protocol, with a deadline for the headers and the body of each request."""

    open: _Incomplete  # of the server; `make_server` sets it
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
        self._end_phase()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
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
        headers = [("content-type", "application/json"), ("connection", "close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
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
        self._end_phase()
        self.transport.abort()

    def _follow(self) -> None:
        """Set the deadline of what the client has to send next, once for each phase."""
        phase = self.conn.their_state
        if self.transport.is_closing() or phase not in (h11.IDLE, h11.SEND_BODY):
            self._end_phase()
        elif phase is not self._phase:
            limits = self.open.limits
            seconds = (
                limits.header_seconds if phase is h11.IDLE else limits.seconds + _GRACE_SECONDS
            )
            self._end_deadline()
            self._phase = phase
            self._deadline = self.loop.call_later(seconds, self.give_up)
            self.open.add(self)

    def _end_phase(self) -> None:
        self._end_deadline()
        self._phase = None
        self.open.discard(self)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
