"""The local page and its endpoint: limits, error details, load, and the page in a browser."""

import asyncio
import base64
import gc
import hashlib
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from processes import ENVIRONMENT, free_ports
from typer.testing import CliRunner

from keras_inception.cli import app

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

# These need the packages above.
from served import LABELS, png, post, running

from keras_inception.inference import server as server_module
from keras_inception.inference.server_connections import listening_socket
from keras_inception.inference.server_limits import Limits

LIMITS = Limits(upload_bytes=100_000, pixels=250_000, seconds=60.0, waiting=400)


@pytest.fixture(scope="module")
def url(served_model: Path) -> Iterator[str]:
    with running(served_model, LIMITS) as address:
        yield address


def test_an_image_gets_its_labels_and_branches(url: str, served_model: Path) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(png())), np.float32)
    scores = np.asarray(keras.models.load_model(served_model)(pixels[None] / 127.5 - 1))[0]

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
    assert [branch["module"] for branch in answer["branches"]] == [name[:2] for name in names]
    assert picture(answer["branches"][0]["png"]).shape == (64, 64)
    np.testing.assert_array_equal(picture(answer["image"]), pixels)


def picture(contents: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(contents))))


def test_the_class_map_is_the_classifier_at_every_position(url: str, served_model: Path) -> None:
    """Computed here from the last concatenation and the dense layer, and drawn by its ranks."""
    model = keras.models.load_model(served_model)
    pixels = np.asarray(Image.open(io.BytesIO(png())), np.float32)[None]
    grid = keras.Model(model.input, model.get_layer("avg_pool").input)(pixels / 127.5 - 1)
    best = int(np.argmax(model(pixels / 127.5 - 1)[0]))
    kernel = np.asarray(model.get_layer("predictions_logits").kernel)
    expected = np.einsum("hwc,c->hw", np.asarray(grid)[0], kernel[:, best])

    found = post(url, png(), "?maps=true")[1]["class_map"]

    assert found["label"] == LABELS[best]
    shown = picture(found["png"])
    side = shown.shape[0] // expected.shape[0]
    levels = (expected - expected.min()) / (expected.max() - expected.min()) * 255
    np.testing.assert_allclose(shown[::side, ::side], levels, atol=1)


def test_the_page_learns_what_is_served(url: str, served_model: Path) -> None:
    assert post(url, None, path="/model") == (
        200,
        {
            "name": served_model.parent.name,
            "classes": 5,
            "examples": list(LABELS),
            "height": 32,
            "width": 32,
            "channels": 3,
            "maps": True,
            "class_map": True,
        },
    )


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


@pytest.mark.parametrize(
    ("query", "path", "contents", "status", "reason"),
    [
        ("?top=0", "/predict", b"", 422, "top: Input should be greater than or equal to 1"),
        ("?top=x&maps=3", "/predict", b"", 422, "Received: 'x'; maps: Input should be a valid"),
        ("", "/nothing", None, 404, "Not Found"),
        ("", "/health/", None, 404, "Not Found"),
        ("", "/predict", None, 405, "Method Not Allowed"),
        ("", "/", b"", 405, "Method Not Allowed"),
    ],
)
def test_every_error_has_one_form(
    url: str, query: str, path: str, contents: bytes | None, status: int, reason: str
) -> None:
    received, answer = post(url, contents, query, path)

    assert received == status
    assert list(answer) == ["detail"]
    assert reason in answer["detail"]


def test_a_failure_of_the_network_has_the_form_of_errors_and_a_traceback_in_the_log(
    served_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("in the network")

    monkeypatch.setattr("keras_inception.inference.server.Model.answer", fail)
    with running(served_model, Limits()) as url:
        status, answer = post(url, png())
    assert (status, answer) == (500, {"detail": "The server failed; its log has the reason."})
    assert "ZeroDivisionError: in the network" in capfd.readouterr().err


def test_what_is_no_http_has_the_form_of_errors(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"no http\r\n\r\n")
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "detail": "Invalid HTTP request received."
    }


def test_health_is_answered(url: str) -> None:
    assert post(url, None, path="/health") == (200, {"status": "ok"})
    head = urllib.request.Request(f"{url}/health", method="HEAD")
    with urllib.request.urlopen(head) as answer:
        assert (answer.status, answer.read()) == (200, b"")


def form(name: str, contents: bytes, file_name: str | None = "a.png") -> tuple[bytes, str]:
    """A form as curl sends it, and its type."""
    named = "" if file_name is None else f'; filename="{file_name}"'
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + contents + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge"


def test_a_form_is_answered_as_the_file_itself(url: str) -> None:
    body, kind = form("file", png(seed=3))

    assert post(url, body, Content_Type=kind) == post(url, png(seed=3))


def test_curl_sends_a_form(url: str, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    image = tmp_path / "a.png"
    image.write_bytes(png(seed=3))
    done = subprocess.run(
        [curl, "-s", "-F", f"file=@{image}", f"{url}/predict"], capture_output=True, check=True
    )
    assert json.loads(done.stdout) == post(url, png(seed=3))[1]


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (*form("x", b"1", None), 400, "without files"),
        (b"", "multipart/form-data", 400, "Missing boundary"),
        (b"no form", "multipart/form-data; boundary=edge", 400, "a form with one image file"),
        (*form("file", b"no image"), 400, "8 bytes"),
        (*form("file", bytes(100_001)), 413, "at most 100,000 bytes"),
        (*form("file", bytes(500_000)), 413, "at most 100,000 bytes"),
        (form("a", png())[0][:-10] + form("b", png())[0], form("a", b"")[1], 400, "Too many files"),
    ],
)
def test_refused_forms_have_a_reason(
    url: str,
    body: bytes,
    kind: str,
    status: int,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    received, answer = post(url, body, Content_Type=kind)

    assert (received, reason in answer["detail"]) == (status, True), answer
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/predict", {}, 413),
        ("/predict?top=0", {}, 422),
        ("/predict", {"Host": "evil.example"}, 403),
        ("/predict", {"Origin": "null"}, 403),
        ("/nothing", {}, 404),
        ("/", {}, 405),
    ],
)
def test_a_large_upload_that_is_refused_is_answered(
    url: str, path: str, headers: dict[str, str], status: int
) -> None:
    """The client sends all of it before it reads, and asks for an end of the connection."""
    received, answer = post(url, bytes(20_000_000), path=path, **headers)

    assert (received, list(answer)) == (status, ["detail"])


def test_a_slow_response_is_503(served_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr("keras_inception.inference.server.Model.answer", never)
    with running(served_model, Limits(seconds=0.5)) as url:
        status, answer = post(url, png())
    assert (status, answer["detail"]) == (503, "No answer within 0.5 s.")


@pytest.mark.parametrize("most", [{"waiting": 1}, {"waiting_bytes": 5_000}])
def test_too_many_concurrent_requests_are_503_immediately(
    served_model: Path, monkeypatch: pytest.MonkeyPatch, most: dict[str, int]
) -> None:
    arrived, release = threading.Event(), threading.Event()

    async def wait(*_: Any, **__: Any) -> Any:
        arrived.set()
        await asyncio.to_thread(release.wait)
        return {}

    monkeypatch.setattr("keras_inception.inference.server.Model.answer", wait)
    assert 2_500 < len(png()) < 5_000  # one fits, two do not
    with running(served_model, Limits(**most)) as url, ThreadPoolExecutor() as pool:
        first = pool.submit(post, url, png())
        arrived.wait()
        assert post(url, png()) == (503, {"detail": "Busy: 1 image waiting. Try again later."})
        release.set()
        assert first.result()[0] == 200


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
def test_the_page_shows_labels_and_branches_in_a_browser(
    url: str, served_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script drops two files on the page and chooses a branch, as a user does."""
    contents = base64.b64encode(png()).decode()
    drop = f"""
      const bytes = Uint8Array.from(atob("{contents}"), letter => letter.charCodeAt(0));
      const transfer = new DataTransfer();
      for (const name of ["a.png", "b.png"])
        transfer.items.add(new File([bytes], name, {{ type: "image/png" }}));
      document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", {{ dataTransfer: transfer, bubbles: true, cancelable: true }}));
      const press = (entry, text) => [...entry.querySelectorAll("button")].find(
        button => button.textContent === text).click();
      const ready = setInterval(() => {{
        const entries = document.querySelectorAll("article:has(.choices)");
        if (entries.length < 2) return;
        clearInterval(ready);
        press(entries[0], "3a");
        press(entries[0], "3a_5x5");
        [...entries[1].querySelectorAll("button")][1].click();
      }}, 100);
    """
    body = rendered_with(drop, served_model, tmp_path, monkeypatch)

    scores = post(url, png())[1]["labels"]
    assert body.count("<meter") == 10
    for row in scores:
        assert body.count(f"<td>{row['score']:.4f}</td>") == 2
    assert "<td>&lt;script&gt;</td>" in body
    assert 'aria-label="activation of 3a_5x5"' in body
    assert 'aria-label="activation of class map"' in body
    first, second = body.split("<article")[1:]
    assert first.count('aria-pressed="true"') == 2  # the module, and its branch
    assert first.count("<button") == 5 + 4  # the image, the class, three modules; four branches
    assert second.count("<button") == 5
    assert ">a.png</h2>" in first
    assert ">b.png</h2>" in second
    assert f">{served_model.parent.name}</h1>" in body
    assert "5 classes: a, b, &lt;script&gt;, d, e. Sees 32 x 32 pixels in colour." in body


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_takes_a_pasted_image_and_addresses(
    served_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image is pasted, then the address of one, and another address is typed."""
    contents = base64.b64encode(png()).decode()
    with image_server(png()) as images:
        script = f"""
          const bytes = Uint8Array.from(atob("{contents}"), letter => letter.charCodeAt(0));
          const paste = fill => {{
            const clipboardData = new DataTransfer();
            fill(clipboardData);
            document.body.dispatchEvent(
              new ClipboardEvent("paste", {{ clipboardData, bubbles: true }}));
          }};
          paste(data => data.items.add(new File([bytes], "pasted.png", {{ type: "image/png" }})));
          paste(data => data.setData("text/plain", "{images}/linked.png"));
          document.getElementById("address").value = "{images}/typed.png";
          document.querySelector("#by-address button").click();
        """
        body = rendered_with(script, served_model, tmp_path, monkeypatch)

    assert sorted(re.findall(r">(\w+\.png)</h2>", body)) == [
        "linked.png",
        "pasted.png",
        "typed.png",
    ]
    assert body.count("<meter") == 15


@contextmanager
def image_server(contents: bytes) -> Iterator[str]:
    """Answers every path with an image that pages of other origins may read."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Content-Length", str(len(contents)))
            self.end_headers()
            self.wfile.write(contents)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_shows_why_an_image_is_refused(
    served_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = 'show(new File(["no image"], "a.png"));'

    body = rendered_with(drop, served_model, tmp_path, monkeypatch)

    assert 'role="alert">Expected an image. Received: 8 bytes' in body


def rendered_with(
    script: str, served_model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Return the page, with another script at its end, as rendered by Chromium.

    A server of its own serves it, so that its origin and policy are those of the page.
    """
    page = server_module.PAGE.read_text()
    assert "</html>" in page
    html = folder / "page.html"
    html.write_text(page.replace("</html>", f"<script>{script}</script></html>"))
    monkeypatch.setattr(server_module, "PAGE", html)
    with running(served_model, LIMITS) as url:
        done = subprocess.run(
            [
                *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"),
                *("--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}"),
                *("--virtual-time-budget=20000", "--dump-dom", url),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    return done.stdout


def test_the_policy_allows_the_pages_own_script_and_style_alone(url: str) -> None:
    with urllib.request.urlopen(url) as answer:
        page, headers = answer.read().decode(), dict(answer.headers)
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    for element in ("script", "style"):
        text = page.partition(f"<{element}>")[2].partition(f"</{element}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{element}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert (policy["connect-src"], policy["img-src"]) == (
        "'self' https: http:",
        "'self' blob: data:",
    )


def serve(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "keras_inception", "serve", *map(str, arguments)],
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_listens_on_the_loopback_interface_only(served_model: Path) -> None:
    import psutil

    port = free_ports(1)[0]
    process = serve(served_model, "--port", port)
    assert process.stdout is not None
    address = process.stdout.readline().split()[0]
    bound = [c.laddr for c in psutil.Process(process.pid).net_connections() if c.status == "LISTEN"]
    status, answer = post(address, png())
    decoders = [
        child
        for child in psutil.Process(process.pid).children()
        if any("decode_worker" in word for word in child.cmdline())
    ]
    process.terminate()
    process.communicate()

    assert address == f"http://127.0.0.1:{port}"
    assert bound == [("127.0.0.1", port)]
    assert (status, len(answer["labels"])) == (200, 5)
    assert len(decoders) == 3
    assert psutil.wait_procs(decoders)[1] == []


def test_the_body_of_an_answer_does_not_wait_for_an_acknowledgement() -> None:
    with (
        listening_socket("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
    ):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_taken_port_is_one_line_before_any_address(served_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = serve(served_model, "--port", taken.getsockname()[1])
        printed, error = process.communicate()
    assert (process.returncode, printed) == (2, "")
    assert error.count("\n") == 1
    assert "Expected an address of this machine and a free port" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--upload-megabytes", "0"], "upload_bytes=0"),
        (["--megapixels", "nan"], "Invalid value for '--megapixels'"),
        (["--seconds", "inf"], "Invalid value for '--seconds'"),
        (["--host", "no.such.host.invalid"], "an address of this machine"),
    ],
)
def test_the_commands_usage_errors(served_model: Path, options: list[str], message: str) -> None:
    ended = CliRunner().invoke(app, ["serve", str(served_model), *options])

    assert ended.exit_code == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
