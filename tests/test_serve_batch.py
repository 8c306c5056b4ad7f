"""Images that wait at the same time share calls of the network; the calls are recorded here."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from keras_inception.inference.server_batch import Batcher, call_sizes


class Network:
    """Scores are the first pixel of each image; the first call waits until it may go on."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.started, self.go_on = threading.Event(), threading.Event()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.float32
        self.sizes.append(len(pixels))
        self.started.set()
        self.go_on.wait()
        if (pixels == 99).any():
            raise ZeroDivisionError("99")
        return pixels[:, :1, 0, 0]


def image(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


def run(most: int, work: Callable[[Network, Batcher], Awaitable[None]]) -> Network:
    network = Network()

    async def main() -> None:
        batcher = Batcher(network, most)
        await work(network, batcher)
        batcher.close()

    asyncio.run(main())
    return network


async def while_the_first_waits(
    network: Network, batcher: Batcher, values: range
) -> list[asyncio.Task[np.ndarray]]:
    """Ask for a first image, and for others while its call runs."""
    first = asyncio.create_task(batcher.scores(image(0)))
    await asyncio.to_thread(network.started.wait)
    others = [asyncio.create_task(batcher.scores(image(value))) for value in values]
    await asyncio.sleep(0)  # they wait now
    return [first, *others]


@pytest.mark.parametrize(
    ("most", "others", "sizes"),
    [
        (16, 0, [1]),
        (16, 11, [1, 8, 2, 1]),
        (16, 40, [1, 16, 16, 8]),
        (1, 3, [1, 1, 1, 1]),
        (6, 13, [1, 6, 6, 1]),
    ],
)
def test_images_that_wait_share_a_call(most: int, others: int, sizes: list[int]) -> None:
    async def work(network: Network, batcher: Batcher) -> None:
        tasks = await while_the_first_waits(network, batcher, range(1, others + 1))
        network.go_on.set()
        scores = await asyncio.gather(*tasks)
        assert [int(row[0]) for row in scores] == list(range(others + 1))  # each its own

    assert run(most, work).sizes == sizes


def test_a_failing_call_fails_its_images_alone() -> None:
    async def work(network: Network, batcher: Batcher) -> None:
        tasks = await while_the_first_waits(network, batcher, range(97, 100))
        network.go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result).__name__ for result in results] == [
            *("ndarray", "ndarray", "ndarray", "ZeroDivisionError")
        ]
        assert int((await batcher.scores(image(5)))[0]) == 5

    assert run(2, work).sizes == [1, 2, 1, 1]


def test_images_that_nobody_waits_for_are_left_out() -> None:
    async def work(network: Network, batcher: Batcher) -> None:
        tasks = await while_the_first_waits(network, batcher, range(1, 5))
        for task in tasks[1:4]:
            task.cancel()
        await asyncio.sleep(0)
        network.go_on.set()
        assert int((await tasks[4])[0]) == 4

    assert run(16, work).sizes == [1, 1]


def test_a_runtime_sees_few_sizes() -> None:
    assert call_sizes(16) == [1, 2, 4, 8, 16]
    assert call_sizes(6) == [1, 2, 4, 6]
    assert call_sizes(1) == [1]
    network = Network()
    network.go_on.set()
    batcher = Batcher(network, 6)
    batcher.warm_up((2, 2, 3))
    batcher.close()
    assert network.sizes == [1, 2, 4, 6]
