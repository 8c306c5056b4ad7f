"""The local server under load: latency and throughput by number of clients, and memory.

    pip install -e ".[cpu,serve,onnx,test]"
    python benchmarks/serving.py            # writes results/serving*.csv, about five minutes
    python benchmarks/serving.py --quick    # a smoke test, writes nothing

GoogLeNet at 224 x 224 as ONNX is served on 127.0.0.1, once with one image in a call of the network
and once with up to 16. Clients in this process each keep one connection and send a JPEG as soon as
they have the answer to the one before. The runtime's own throughput, images in memory and batches
of 1 and 16 with no server running, is measured before and after each server; `share` compares with
the mean of the batches of 16. The machine's other load affects all of them.

Memory is that of the server's process after 500 and after 5,000 mixed uploads: good images,
images beyond the limit, files that are none, and uploads that are too large.
"""

import argparse
import asyncio
import csv
import datetime
import io
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
from machine import device
from PIL import Image

RESULTS = Path(__file__).parent / "results"
CLIENTS = (1, 8, 64)
BATCH = 16
PORT = 8765
LOAD_COLUMNS = (
    *("images_in_a_call", "clients", "p50_ms", "p99_ms", "images_per_second"),
    *("share_of_runtime", "runtime_batch_1", "runtime_batch_16", "requests", "device"),
    *("versions", "date"),
)
MEMORY_COLUMNS = ("uploads", "megabytes", "ratio", "device", "date")


def jpeg(side: int, seed: int = 0) -> bytes:
    """Return a smooth random picture, which compresses as photographs do."""
    small = np.random.default_rng(seed).integers(0, 256, (side // 16, side // 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((side, side)).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_model(folder: Path) -> Path:
    """Write GoogLeNet as ONNX, with random weights."""
    from keras_inception import GoogLeNet, export

    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    (_, written) = export(GoogLeNet(weights=None), folder / "export", ["onnx"], images=images)
    assert written.path is not None
    return written.path


def runtime_rate(path: Path, batch: int, seconds: float) -> float:
    """Return the images a second of the runtime alone."""
    from keras_inception import load

    scores = load(path).network.scores
    images = np.zeros((batch, 224, 224, 3), np.float32)
    scores(images)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        scores(images)
        count += batch
    return count / (time.perf_counter() - started)


@contextmanager
def served(path: Path, *options: str) -> Iterator[psutil.Process]:
    """Serve a model until the context ends."""
    command = [sys.executable, "-m", "keras_inception", "serve", str(path), "--port", str(PORT)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health").close()
                break
            except OSError:
                time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


class Client:
    """One connection, on which requests follow each other."""

    async def connect(self) -> None:
        """Open the connection."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", PORT)

    async def post(self, contents: bytes) -> int:
        """Send an image, and return the status of the answer."""
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\n"
        self._writer.write(f"{head}Content-Length: {len(contents)}\r\n\r\n".encode() + contents)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length: ")[2].split()[0])
        await self._reader.readexactly(length)
        return int(answer.split()[1])

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def load(clients: int, seconds: float) -> list[float]:
    """Return the seconds of each request that was answered in the time."""
    image = jpeg(300)
    everyone = [Client() for _ in range(clients)]
    for client in everyone:
        await client.connect()
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def run(client: Client) -> None:
        while (started := time.perf_counter()) < end:
            status = await client.post(image)
            if status != 200:
                raise RuntimeError(f"Expected 200. Received: {status}")
            taken.append(time.perf_counter() - started)

    await asyncio.gather(*(run(client) for client in everyone))
    for client in everyone:
        client.close()
    return taken


def load_rows(path: Path, seconds: float) -> list[dict[str, object]]:
    """Measure both settings at each number of clients."""
    rows: list[dict[str, object]] = []
    alone: dict[int, list[float]] = {1: [], BATCH: []}

    def measure_alone() -> None:
        for batch, rates in alone.items():
            rates.append(runtime_rate(path, batch, seconds / 2))

    for in_a_call in (1, BATCH):
        measure_alone()
        with served(path, "--batch-size", str(in_a_call), "--seconds", "600"):
            asyncio.run(load(4, 2.0))
            for clients in CLIENTS:
                started = time.perf_counter()
                taken = sorted(asyncio.run(load(clients, seconds)))
                rate = len(taken) / (time.perf_counter() - started)
                rows.append(
                    {
                        "images_in_a_call": in_a_call,
                        "clients": clients,
                        "p50_ms": round(1e3 * statistics.median(taken), 1),
                        "p99_ms": round(1e3 * taken[int(0.99 * (len(taken) - 1))], 1),
                        "images_per_second": round(rate, 1),
                        "requests": len(taken),
                    }
                )
    measure_alone()
    single, batched = (statistics.mean(alone[batch]) for batch in (1, BATCH))
    for row in rows:
        row |= {
            "share_of_runtime": round(float(str(row["images_per_second"])) / batched, 3),
            "runtime_batch_1": round(single, 1),
            "runtime_batch_16": round(batched, 1),
        }
    return rows


async def upload(count: int) -> None:
    """Send mixed uploads on eight connections."""
    large = io.BytesIO()
    Image.new("L", (8_000, 8_000)).save(large, "PNG")
    kinds = [
        *((jpeg(300, seed), 200) for seed in range(4)),
        *((contents, 400) for contents in (b"no image", jpeg(300)[:2_000], large.getvalue())),
        (bytes(10_000_001), 413),
    ]
    # One upload in fifty is too large: 10 MB each.
    order = [number % 7 if number % 50 else 7 for number in range(count)]
    waiting = iter(order)
    everyone = [Client() for _ in range(8)]

    async def run(client: Client) -> None:
        await client.connect()
        for kind in waiting:
            contents, expected = kinds[kind]
            if (status := await client.post(contents)) != expected:
                raise RuntimeError(f"Expected {expected}. Received: {status}")
        client.close()

    await asyncio.gather(*(run(client) for client in everyone))


def memory_rows(path: Path, counts: tuple[int, int]) -> list[dict[str, object]]:
    """Measure the server's memory after so many uploads."""
    rows: list[dict[str, object]] = []
    sent = 0
    with served(path, "--seconds", "600") as process:
        for count in counts:
            asyncio.run(upload(count - sent))
            sent = count
            everything = [process, *process.children(recursive=True)]
            size = sum(one.memory_info().rss for one in everything)
            first = float(str(rows[0]["megabytes"])) if rows else size / 1e6
            rows.append(
                {
                    "uploads": count,
                    "megabytes": round(size / 1e6, 1),
                    "ratio": round(size / 1e6 / first, 3),
                }
            )
    return rows


def write(path: Path, columns: tuple[str, ...], rows: list[dict[str, object]]) -> None:
    """Write rows with what they were measured on."""
    packages = ("onnxruntime", "uvicorn", "fastapi", "pillow")
    versions = " ".join(f"{name} {version(name)}" for name in packages)
    context = {"device": device(), "versions": versions, "date": str(datetime.date.today())}
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        table.writerows(row | context for row in rows)


def main() -> None:
    """Measure, print, and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(Path(folder))
        loads = load_rows(path, 2.0 if quick else 10.0)
        memory = memory_rows(path, (20, 60) if quick else (500, 5_000))
    for row in [*loads, *memory]:
        print(row)
    if not quick:
        write(RESULTS / "serving.csv", LOAD_COLUMNS, loads)
        write(RESULTS / "serving_memory.csv", MEMORY_COLUMNS, memory)


if __name__ == "__main__":
    main()
