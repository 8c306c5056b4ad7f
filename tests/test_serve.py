"""The local page and its endpoint: limits, error details, load, and the page in a browser."""

import base64
import gc
import io
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from PIL import Image

from keras_inception.network.build import build_network

pytest.importorskip("fastapi", reason="needs the extra serve")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")

from keras_inception.inference.server import Limits, build_app  # noqa: E402 - needs the packages above

LABELS = ("a", "b", "<script>", "d", "e")
LIMITS = Limits(upload_bytes=100_000, pixels=250_000, seconds=60.0, waiting=400)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("serve") / "model.keras"
    build_network(tiny_spec(norm="bn")).save(path)
    path.with_name("labels.txt").write_text("\n".join(LABELS) + "\n")
    return path


@pytest.fixture(scope="module")
def url(model_file: Path) -> Iterator[str]:
    yield from running(build_app(model_file, LIMITS))


def running(app: Any) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(512)  # connections made from here on wait for the server
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=30)


def png(width: int = 32, height: int = 32, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def post(url: str, contents: bytes, query: str = "") -> tuple[int, Any]:
    request = urllib.request.Request(f"{url}/predict{query}", data=contents, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_an_image_gets_its_labels_and_branches(url: str, model_file: Path) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(png())), np.float32)
    scores = np.asarray(keras.models.load_model(model_file)(pixels[None] / 127.5 - 1))[0]

    status, answer = post(url, png(), "?top=3&maps=true")

    order = np.argsort(-scores)[:3]
    assert status == 200
    assert [row["label"] for row in answer["labels"]] == [LABELS[index] for index in order]
    np.testing.assert_allclose([row["score"] for row in answer["labels"]], scores[order], atol=1e-5)
    names = [branch["name"] for branch in answer["branches"]]
    assert names == [
        f"{module}_{branch}"
        for module in ("3a", "3b", "4a")
        for branch in ("1x1", "3x3", "5x5", "pool_proj")
    ]
    shown = Image.open(io.BytesIO(base64.b64decode(answer["branches"][0]["png"])))
    assert shown.size == (64, 64)


def bomb() -> bytes:
    """A small file with 600 x 600 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (600, 600)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("contents", "status", "reason"),
    [
        (b"no image", 400, "Expected an image"),
        (b"", 400, "Expected an image"),
        (png()[:-60], 400, "Expected an image"),
        (bomb(), 400, "600 x 600 pixels, more than the limit of 0.25 megapixels"),
        (bytes(100_001), 413, "at most 100,000 bytes"),
    ],
)
def test_refused_requests_have_a_reason(
    url: str, contents: bytes, status: int, reason: str
) -> None:
    received, answer = post(url, contents)

    assert (received, reason in answer["detail"]) == (status, True), answer


def test_a_slow_response_is_503(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.5)

    monkeypatch.setattr("keras_inception.inference.server.Model.answer", slow)
    for url in running(build_app(model_file, Limits(seconds=0.05))):
        status, answer = post(url, png())
    assert (status, answer["detail"]) == (503, "No answer within 0.05 s.")


def test_too_many_concurrent_requests_are_503_immediately(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(
        "keras_inception.inference.server.Model.answer", lambda *_, **__: release.wait(30) and {}
    )
    for url in running(build_app(model_file, Limits(waiting=1))):
        with ThreadPoolExecutor() as pool:
            first = pool.submit(post, url, png())
            deadline = time.monotonic() + 20
            status = 200
            while status != 503 and time.monotonic() < deadline:
                status, answer = post_or_timeout(url)
            release.set()
            assert status == 503
            assert "Busy" in answer["detail"]
            assert first.result()[0] == 200


def post_or_timeout(url: str) -> tuple[int, Any]:
    """Post; the first request may not have arrived yet, in which case this one waits."""
    time.sleep(0.5)
    return post(url, png())


def test_hundreds_of_concurrent_requests_are_answered_in_constant_memory(url: str) -> None:
    kinds = [(png(seed=1), 200), (b"no image", 400), (bomb(), 400), (bytes(100_001), 413)]
    jobs = [kinds[number % len(kinds)] for number in range(300)]
    labels = [row["label"] for row in post(url, png(seed=1))[1]["labels"]]

    def answer_all() -> list[tuple[int, Any]]:
        with ThreadPoolExecutor(64) as pool:
            return list(pool.map(lambda job: post(url, job[0]), jobs))

    answer_all()  # the threads and buffers of the process reach their final size
    gc.collect()
    before = resident_bytes()
    answers = answer_all() + answer_all()
    gc.collect()

    assert [status for status, _ in answers] == [status for _, status in jobs] * 2
    for status, answer in answers:
        if status == 200:
            assert [row["label"] for row in answer["labels"]] == labels
    assert resident_bytes() - before < 50e6


def resident_bytes() -> int:
    import psutil

    return psutil.Process().memory_info().rss


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_shows_labels_and_branches_in_a_browser(url: str, tmp_path: Path) -> None:
    """The script drops a file on the page itself, as a user does."""
    contents = base64.b64encode(png()).decode()
    page = urllib.request.urlopen(url).read().decode()
    drop = f"""<script>
      const bytes = Uint8Array.from(atob("{contents}"), letter => letter.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], "a.png", {{ type: "image/png" }}));
      document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", {{ dataTransfer: transfer, bubbles: true, cancelable: true }}));
    </script></html>"""
    assert "</html>" in page
    body = rendered_with(url, page.replace("</html>", drop), tmp_path)

    scores = post(url, png())[1]["labels"]
    assert body.count("<meter") == 5
    for row in scores:
        assert f"<td>{row['score']:.4f}</td>" in body
    assert "<td>&lt;script&gt;</td>" in body
    assert 'alt="3a_5x5"' in body
    assert body.count("<figure>") == 12


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_shows_why_an_image_is_refused(url: str, tmp_path: Path) -> None:
    page = urllib.request.urlopen(url).read().decode()
    drop = '<script>show(new File(["no image"], "a.png"));</script></html>'

    body = rendered_with(url, page.replace("</html>", drop), tmp_path)

    assert 'role="alert">Expected an image. Received: 8 bytes' in body


def rendered_with(url: str, page: str, folder: Path) -> str:
    """Return the page as rendered by Chromium after its requests."""
    html = folder / "page.html"
    html.write_text(page.replace('fetch("predict', f'fetch("{url}/predict'))
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--disable-web-security", f"--user-data-dir={folder / 'profile'}"),
            *("--virtual-time-budget=20000", "--dump-dom", html.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return done.stdout


def test_the_command_listens_on_the_loopback_interface_only(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from keras_inception.cli import app

    started: dict[str, Any] = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: started.update(options))

    ended = CliRunner().invoke(app, ["serve", str(model_file), "--port", "8123"])

    assert ended.exit_code == 0, ended.output
    assert (started["host"], started["port"]) == ("127.0.0.1", 8123)
