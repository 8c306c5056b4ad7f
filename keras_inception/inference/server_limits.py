"""What the local server refuses, and when it stops waiting."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

# Of processor time. Longer ones are decoded apart, so that they delay no others.
QUICK_SECONDS = 0.5
# A pixel takes up to 12 bytes while it is turned and composited; files are unpacked beside it.
_BYTES_PER_PIXEL = 16
_DECODER_BYTES = 128_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server refuses.

    Attributes:
        upload_bytes: of one image file; more is 413.
        pixels: width x height of one image; more is 400, as read from its header.
        decode_seconds: of processor time for one image; more is 400.
        seconds: until an upload is complete, and from then until an answer; later is 408 or 503.
        header_seconds: until the headers of a request are complete; later closes the connection.
        waiting: complete uploads at a time; more are 503 at once.
        waiting_bytes: of complete uploads at a time; more are 503 at once. Also of incomplete ones;
            beyond it the oldest is closed.
        connections: without a complete request; beyond it the oldest is closed.

    Raises:
        ValueError: one is not a positive number.
    """

    upload_bytes: int = 10_000_000
    pixels: int = 50_000_000
    decode_seconds: float = 10.0
    seconds: float = 30.0
    header_seconds: float = 10.0
    waiting: int = 256
    waiting_bytes: int = 256_000_000
    connections: int = 512

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"Expected a positive limit. Received: {item.name}={value!r}")

    @property
    def decoder_bytes(self) -> int:
        """The most memory that the process of one image may add to what it starts with."""
        return self.pixels * _BYTES_PER_PIXEL + 2 * self.upload_bytes + _DECODER_BYTES
