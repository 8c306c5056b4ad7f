"""One call of the network for images that wait at the same time.

No image waits for others to come: while a call runs, those that arrive are collected for the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from keras_inception.runtimes.exported import Scores

T = TypeVar("T")
MOST_IN_A_CALL = 16


class Batcher:
    """Calls the network in one thread, its own, which uses all processors.

    Args:
        scores: of a `Network`.
        most: images in one call.
    """

    def __init__(self, scores: Scores, most: int = MOST_IN_A_CALL) -> None:
        self._scores = scores
        self._most = most
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self._calls: asyncio.Task[None] | None = None

    async def scores(self, pixels: np.ndarray) -> np.ndarray:
        """The scores of one image.

        Args:
            pixels: uint8, height x width x channels.
        """
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, future))
        if self._calls is None or self._calls.done():
            self._calls = asyncio.create_task(self._call_until_none_waits())
        return await future

    async def in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        """Make another call in the network's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def warm_up(self, shape: tuple[int, int, int]) -> None:
        """Call the network once with each number of images, as runtimes prepare for each."""
        for size in call_sizes(self._most):
            self._scores(np.zeros((size, *shape), np.float32))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    async def _call_until_none_waits(self) -> None:
        while self._waiting:
            fitting = [size for size in call_sizes(self._most) if size <= len(self._waiting)]
            taken = [self._waiting.popleft() for _ in range(max(fitting))]
            wanted = [(pixels, future) for pixels, future in taken if not future.done()]
            if wanted:
                await self._call(*zip(*wanted, strict=True))

    async def _call(
        self, images: tuple[np.ndarray, ...], futures: tuple[asyncio.Future[np.ndarray], ...]
    ) -> None:
        try:
            scores = await self.in_thread(self._scores, np.stack(images).astype(np.float32))
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, row in zip(futures, scores, strict=True):
            if not future.done():
                future.set_result(row)


def call_sizes(most: int) -> list[int]:
    """Numbers of images in a call: powers of two, as runtimes prepare for each, and the most."""
    return sorted({most} | {2**power for power in range(most.bit_length()) if 2**power <= most})
