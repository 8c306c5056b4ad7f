"""Images of the server's uploads, decoded in other processes that have limits.

An image that needs little is decoded in a fast lane. One that needs more than `QUICK_SECONDS` is
given up there and decoded again in a slow lane of lower priority, so that slow images wait for each
other and delay no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from keras_inception.inference.decode_worker import LENGTH, Job, Outcome
from keras_inception.inference.server_limits import QUICK_SECONDS, Limits
from keras_inception.isolated import command, environment

_MODULE = "keras_inception.inference.decode_worker"
# Two images at a time, however many processors: the network needs them more.
_FAST_WORKERS, _SLOW_WORKERS = 2, 1
_NICENESS = 5


class UnusableImageError(ValueError):
    """An upload that cannot be used as an image, or not within the limits."""


class Decoder:
    """Processes that bring image files to the pixels of a network.

    Args:
        shape: height, width and channels of the pixels.
        limits: of one image.
    """

    def __init__(self, shape: tuple[int, int, int], limits: Limits) -> None:
        height, width, channels = shape
        self._shape = shape
        self._limits = limits
        slow = Job(
            height=height,
            width=width,
            channels=channels,
            pixels=limits.pixels,
            seconds=limits.decode_seconds,
            memory=limits.decoder_bytes,
            niceness=_NICENESS,
        )
        fast = replace(slow, seconds=min(QUICK_SECONDS, limits.decode_seconds), niceness=0)
        self._fast, self._slow = _Lane(fast, _FAST_WORKERS), _Lane(slow, _SLOW_WORKERS)

    async def pixels(self, contents: bytes) -> np.ndarray:
        """Decode an image file.

        Returns:
            uint8, height x width x channels.

        Raises:
            UnusableImageError: no image, or one that passes a limit.
        """
        outcome, payload = await self._fast.answer(contents)
        if outcome is Outcome.OUT_OF_TIME:
            outcome, payload = await self._slow.answer(contents)
        if outcome is Outcome.PIXELS:
            return np.frombuffer(payload, np.uint8).reshape(self._shape)
        raise UnusableImageError(self._reason(outcome, payload, len(contents)))

    def _reason(self, outcome: Outcome, payload: bytes, size: int) -> str:
        if outcome is Outcome.REFUSED:
            return payload.decode()
        limits = self._limits
        reasons = {
            Outcome.OUT_OF_TIME: f"more than {limits.decode_seconds:g} s to decode",
            Outcome.OUT_OF_MEMORY: f"more than {limits.decoder_bytes / 1e6:,.0f} MB to decode",
            Outcome.DIED: f"its decoder died of signal {payload.decode()}",
        }
        return f"Expected an image. Received: {size:,} bytes ({reasons[outcome]})"

    async def start(self) -> None:
        """Start the processes, which otherwise start with the first image."""
        await asyncio.gather(self._fast.start(), self._slow.start())

    async def stop(self) -> None:
        """End the processes."""
        await asyncio.gather(self._fast.stop(), self._slow.stop())


class _Lane:
    """Workers with the same job. A free one takes the image that came last.

    Whatever number of slow images waits, a quick one that comes after them waits for one of them
    alone; those that nobody waits for any more are left out.
    """

    def __init__(self, job: Job, count: int) -> None:
        self._workers = [_Worker(job) for _ in range(count)]
        self._free = [*self._workers]
        self._waiting: list[asyncio.Future[_Worker]] = []

    async def answer(self, contents: bytes) -> tuple[Outcome, bytes]:
        worker = await self._take()
        try:
            return await worker.answer(contents)
        finally:
            self._give(worker)

    async def _take(self) -> _Worker:
        if self._free:
            return self._free.pop()
        turn: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn came at the same time
                self._give(turn.result())
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _give(self, worker: _Worker) -> None:
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(worker)
                return
        self._free.append(worker)

    async def start(self) -> None:
        await asyncio.gather(*(worker.start() for worker in self._workers))

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))


class _Worker:
    """A process of `decode_worker`, replaced when it has ended or its answer is not awaited."""

    def __init__(self, job: Job) -> None:
        self._argument = json.dumps(asdict(job))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process unless it runs; one that was ended while it was idle does not."""
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *command(_MODULE, self._argument),
                env=environment(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is the server's; `stop` ends its children too
            )

    async def answer(self, contents: bytes) -> tuple[Outcome, bytes]:
        """What the process makes of an image file."""
        await self.start()
        try:
            answer = await _exchange(self._process, contents)
        except (ConnectionError, asyncio.IncompleteReadError):  # ended from outside
            await self.stop()
            return Outcome.DIED, str(signal.SIGKILL.value).encode()
        except BaseException:  # nobody waits for the answer any more
            await asyncio.shield(self.stop())
            raise
        return Outcome(answer[:1]), answer[1:]

    async def stop(self) -> None:
        """End the process and the child that decodes for it; all that call this wait for it."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        await process.wait()
        if self._process is process:
            self._process = None


async def _exchange(process: Any, contents: bytes) -> bytes:
    """Send a request to a process, and read its answer."""
    process.stdin.write(LENGTH.pack(len(contents)))
    process.stdin.write(contents)
    await process.stdin.drain()
    header = await process.stdout.readexactly(LENGTH.size)
    return await process.stdout.readexactly(*LENGTH.unpack(header))
