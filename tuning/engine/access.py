"""Who may call the chief of a search: a secret for every call, TLS where there are certificates.

They reach the processes of a search by environment variables, as KerasTuner's address does.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from keras_inception.bounded import read_text, require_file

SECRET_VARIABLE = "KERAS_INCEPTION_TUNING_SECRET"
CERTIFICATE_VARIABLE = "KERAS_INCEPTION_TUNING_CERTIFICATE"
KEY_VARIABLE = "KERAS_INCEPTION_TUNING_KEY"
_METADATA_KEY = "keras-inception-secret"
_FEWEST_CHARACTERS = 16
_MOST_CHARACTERS = 1_000  # gRPC refuses metadata of more than 8 kB
Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Access:
    """What chief and workers of a search share.

    Attributes:
        secret: sent with every call.
        certificate: a PEM file: of the chief its certificate; of a worker this one, or that of the
            authority which signed it. None: calls are not encrypted.
        key: a PEM file, of the chief.

    Raises:
        ValueError: a secret that cannot be sent or is short, or a key without a certificate.
    """

    secret: str = field(repr=False)
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        count = len(self.secret)
        if not _FEWEST_CHARACTERS <= count <= _MOST_CHARACTERS or not _is_sendable(self.secret):
            raise ValueError(
                f"Expected a secret of at least {_FEWEST_CHARACTERS} printable ASCII characters "
                f"without blanks, and at most {_MOST_CHARACTERS}. Received: {count} characters"
            )
        if self.key and not self.certificate:
            raise ValueError("Expected a certificate with the key. Received: the key alone")

    @classmethod
    def from_environment(cls) -> Access:
        """Read what `to_environment` made.

        Raises:
            ValueError: there is no secret.
        """
        secret = os.environ.get(SECRET_VARIABLE)
        if not secret:
            raise ValueError(
                f"Expected the secret of the search in {SECRET_VARIABLE}. Received: none. Use "
                "`keras-inception tune`, or set it to the same value for chief and workers."
            )
        certificate, key = os.environ.get(CERTIFICATE_VARIABLE), os.environ.get(KEY_VARIABLE)
        return cls(
            secret=secret,
            certificate=Path(certificate) if certificate else None,
            key=Path(key) if key else None,
        )

    def to_environment(self) -> dict[str, str]:
        """As environment variables of the processes."""
        values = {CERTIFICATE_VARIABLE: self.certificate, KEY_VARIABLE: self.key}
        paths = {name: str(path.resolve()) for name, path in values.items() if path}
        return {SECRET_VARIABLE: self.secret, **paths}

    def bind(self, server: grpc.Server, address: str) -> None:
        """Let the chief's server listen on HOST:PORT.

        Raises:
            ValueError: the port is taken, or a certificate without a key.
            OSError: a file cannot be read.
        """
        try:
            if self.certificate is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, self._server_credentials())
        except RuntimeError as error:
            raise ValueError(
                f"Expected a free port. Received: {address}, which another process uses: perhaps "
                "another search. Choose another port."
            ) from error

    def _server_credentials(self) -> grpc.ServerCredentials:
        assert self.certificate is not None
        if self.key is None:
            raise ValueError("Expected the key of the chief's certificate. Received: none")
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        return grpc.ssl_server_credentials([pair])

    def channel(self, address: str, metadata: Metadata) -> grpc.Channel:
        """A worker's channel to HOST:PORT, which sends the secret and other metadata."""
        if self.certificate is None:
            channel = grpc.insecure_channel(address)
        else:
            credentials = grpc.ssl_channel_credentials(self.certificate.read_bytes())
            channel = grpc.secure_channel(address, credentials)
        sent = [(_METADATA_KEY, self.secret), *metadata]
        return grpc.intercept_channel(channel, _WithMetadata(sent))


def chosen_secret(file: Path | None, *, may_create: bool) -> str:
    """The secret in a file; a new one if there is no file.

    Args:
        file: with the secret alone; None: nobody else needs to know it.
        may_create: write a new secret to a file that does not exist, for its owner alone.

    Raises:
        ValueError: no such file, one that is no text, or one that cannot be created.
    """
    if file is None:
        return secrets.token_urlsafe(32)
    try:
        if may_create and not file.exists():
            secret = secrets.token_urlsafe(32)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="ascii") as new:
                new.write(secret + "\n")
            return secret
        return read_text(file).strip()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a file with the secret of the search. Received: {str(file)!r} ({error})"
        ) from None


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT is reached from this machine alone."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host or None, None)}
    except OSError:
        return False
    return bool(host) and all(ipaddress.ip_address(str(one)).is_loopback for one in found)


def _is_sendable(secret: str) -> bool:
    return secret.isascii() and secret.isprintable() and not any(c.isspace() for c in secret)


def _require_pem(certificate: Path, key: Path | None) -> None:
    """Check files that gRPC would refuse as if the port were taken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        for file in filter(None, (certificate, key)):
            require_file(file)
        if key:
            context.load_cert_chain(certificate, key, password=lambda: "")  # or it asks for one
        else:
            context.load_verify_locations(certificate)
    except (OSError, ValueError) as error:
        expected = f"the key {str(key)!r} of it, without a password" if key else "no key"
        raise ValueError(
            f"Expected a certificate as a PEM file, and {expected}. "
            f"Received: {str(certificate)!r} ({error})"
        ) from None


class SecretRequired(grpc.ServerInterceptor):
    """Refuses every call without the secret, before its message is read."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        # Of one message, gRPC would keep the chief's only thread until it has come.
        self._refusal = grpc.stream_unary_rpc_method_handler(_refuse)

    def intercept_service(self, continuation: Callable[..., Any], handler_call_details: Any) -> Any:
        """Pass a call on, or refuse it."""
        sent = dict(handler_call_details.invocation_metadata).get(_METADATA_KEY, "")
        sent = sent if isinstance(sent, bytes) else sent.encode()
        if hmac.compare_digest(sent, self._secret):
            return continuation(handler_call_details)
        return self._refusal


def _refuse(_: Any, context: Any) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "another secret than this search's")


class _CallDetails(NamedTuple):
    """What `grpc.ClientCallDetails` lists."""

    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _WithMetadata(grpc.UnaryUnaryClientInterceptor):
    """Adds metadata to every call."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = list(metadata)

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """Make a call."""
        details = _CallDetails(
            client_call_details.method,
            client_call_details.timeout,
            [*(client_call_details.metadata or ()), *self._metadata],
            client_call_details.credentials,
            client_call_details.wait_for_ready,
            client_call_details.compression,
        )
        return continuation(details, request)


def access_for(
    secret_file: Path | None,
    certificate: Path | None,
    key: Path | None,
    *,
    address: str | None,
    join: str | None,
) -> Access:
    """The access that the options of a search ask for.

    Args:
        secret_file, certificate, key: as for `chosen_secret` and `Access`.
        address: HOST:PORT on which the chief listens for other machines, or a database's, which
            has an access of its own.
        join: that of a chief elsewhere.

    Raises:
        ValueError: other machines may reach the chief and have no secret, or files do not fit.
    """
    if "://" in (address or join or ""):
        return Access(secret=chosen_secret(None, may_create=False))
    if join and secret_file is None:
        raise ValueError(
            f"Expected --secret-file with --join {join}: a copy of the file that the search was "
            "started with. Received: none"
        )
    if address and secret_file is None and not is_loopback(address):
        raise ValueError(
            f"Expected --secret-file with --address {address}, which other machines can reach. "
            "Received: none. A file that does not exist is created; copy it to those machines."
        )
    if key is None and certificate and not join:
        raise ValueError("Expected --key with --certificate. Received: --certificate alone")
    if certificate:
        _require_pem(certificate, key)
    secret = chosen_secret(secret_file, may_create=not join)
    return Access(secret=secret, certificate=certificate, key=key)
