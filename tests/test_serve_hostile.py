"""The server under files and clients that mean harm: each is refused, and delays no other.

Images are made here byte by byte where no program writes them. Connections are raw sockets.
"""

import gzip
import io
import json
import logging
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra serve")
psutil = pytest.importorskip("psutil")

from served import png, post, running  # noqa: E402

from keras_inception.inference.server_limits import Limits  # noqa: E402

LIMITS = Limits(
    upload_bytes=1_000_000,
    pixels=4_000_000,
    decode_seconds=2.0,
    seconds=60.0,
    header_seconds=2.0,
    connections=20,
)


@pytest.fixture(scope="module")
def url(served_model: Path) -> Iterator[str]:
    with running(served_model, LIMITS) as address:
        yield address


def decoders() -> list[Any]:
    """The decoding processes of this process's server."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "decode_worker" in " ".join(child.cmdline())
    ]


# --- images ---------------------------------------------------------------------------------------


def encoded(width: int, height: int, kind: str = "PNG", mode: str = "L", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, kind, **options)
    return file.getvalue()


def ico_with_a_large_png() -> bytes:
    """The directory says 16 x 16; the PNG inside has 13,300 x 13,300 pixels."""
    inner = encoded(13_300, 13_300)
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 8, len(inner), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + inner


def icns_with_a_large_png() -> bytes:
    """Named a 32 x 32 icon; the PNG inside has 13,300 x 13,300 pixels."""
    inner = encoded(13_300, 13_300)
    block = b"ic11" + struct.pack(">I", len(inner) + 8) + inner
    return b"icns" + struct.pack(">I", len(block) + 8) + block


def gif_whose_frame_exceeds_its_screen() -> bytes:
    """The screen is 1 x 1, the first frame 60,000 x 60,000."""
    small = bytearray(encoded(1, 1, "GIF"))
    frame = small.index(b",", 13)
    small[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    return bytes(small)


def tiff_with_a_huge_tile() -> bytes:
    """8 x 8 pixels in one tile of 40,000 x 40,000, deflated."""
    entries = [
        (256, 8),  # width
        (257, 8),  # height
        (258, 8),  # bits
        (259, 8),  # deflate
        (262, 1),  # black is zero
        (277, 1),  # samples
        (322, 40_000),  # tile width
        (323, 40_000),  # tile height
        (324, 8),  # offset of the tile
        (325, 1000),  # its bytes
    ]
    data = zlib.compress(bytes(500_000)).ljust(1000, b"\0")
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries
    )
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def png_with_a_text_bomb() -> bytes:
    """A small image with a comment of 500 MB in half a megabyte."""
    small = encoded(8, 8)
    text = b"Comment\0\0" + zlib.compress(bytes(500_000_000), 9)
    body = b"zTXt" + text
    chunk = struct.pack(">I", len(text)) + body + struct.pack(">I", zlib.crc32(body))
    return small[:33] + chunk + small[33:]


def mpo_with_a_large_first_image() -> bytes:
    file = io.BytesIO()
    small = Image.new("L", (8, 8))
    Image.new("L", (5_000, 5_000)).save(file, "MPO", save_all=True, append_images=[small])
    return file.getvalue()


REFUSED: dict[str, Callable[[], bytes]] = {
    "ico": ico_with_a_large_png,
    "icns": icns_with_a_large_png,
    "gif": gif_whose_frame_exceeds_its_screen,
    "tiff tile": tiff_with_a_huge_tile,
    "tiff": lambda: encoded(5_000, 5_000, "TIFF", compression="tiff_deflate"),
    "mpo": mpo_with_a_large_first_image,
    "webp": lambda: encoded(5_000, 5_000, "WEBP", "RGB"),
    "png": lambda: encoded(13_300, 13_300, mode="1"),
    "jpeg 2000": lambda: encoded(5_000, 5_000, "JPEG2000"),
    "apng": lambda: encoded(
        3_000, 3_000, save_all=True, append_images=[Image.new("L", (3_000, 3_000), 9)] * 3
    ),
    "gzip": lambda: gzip.compress(bytes(500_000_000), 9),
    "gzip of an image": lambda: gzip.compress(encoded(8, 8)),
    "fits": lambda: encoded(8, 8)[:0] + b"SIMPLE  =                    T".ljust(80) + bytes(2800),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_image_beyond_the_limits_is_refused_by_its_header(url: str, kind: str) -> None:
    """Within a fraction of the memory and time that its pixels would need."""
    contents = REFUSED[kind]()
    assert len(contents) < LIMITS.upload_bytes
    before = [child.memory_info().rss for child in decoders()]

    status, answer = post(url, contents)

    assert (status, list(answer)) == (400, ["detail"])
    assert max(child.memory_info().rss for child in decoders()) < max(before) + 10e6


def test_text_that_unpacks_to_half_a_gigabyte_is_not_unpacked(url: str) -> None:
    """Pillow itself limits it; the image is refused or used, and no process grows."""
    status, _ = post(url, png_with_a_text_bomb())

    assert status in (200, 400)
    assert all(child.memory_info().rss < 100e6 for child in decoders())


def plain_ppm(pixels: int) -> bytes:
    """Numbers as text, which Pillow reads in Python: about a second for a million of them."""
    return b"P2 2000 %d 9\n" % (pixels // 2_000) + b"1 " * pixels


def test_an_image_that_takes_too_long_is_given_up(served_model: Path) -> None:
    limits = Limits(decode_seconds=0.2)
    with running(served_model, limits) as url:
        status, answer = post(url, plain_ppm(4_000_000))
        good, _ = post(url, png())
    assert (status, good) == (400, 200)
    assert (
        answer["detail"]
        == "Expected an image. Received: 8,000,015 bytes (more than 0.2 s to decode)"
    )


def test_slow_images_delay_no_others(served_model: Path) -> None:
    """Some still wait for the slow lane when the good one, sent after them, has been answered."""
    slow = plain_ppm(2_000_000)
    done: list[str] = []

    def timed(name: str, contents: bytes) -> int:
        status, _ = post(url, contents)
        done.append(name)
        return status

    with (
        running(served_model, Limits(decode_seconds=60, seconds=600)) as url,
        ThreadPoolExecutor(16) as pool,
    ):
        bad = [pool.submit(timed, "slow", slow) for _ in range(8)]
        while not done:  # the first of them is through; the others wait for the slow lane
            time.sleep(0.05)
        assert timed("good", png()) == 200
        assert done.count("slow") < len(bad)
        assert {one.result() for one in bad} == {200}


def test_a_burst_of_slow_images_delays_no_others(served_model: Path) -> None:
    """Forty take ten seconds of the quick lane; the good one comes last and goes first."""
    slow = plain_ppm(3_000_000)
    done: list[str] = []
    limits = Limits(decode_seconds=60, seconds=600)
    with ThreadPoolExecutor(40) as pool, running(served_model, limits) as url:
        for _ in range(40):
            pool.submit(post, url, slow).add_done_callback(lambda _: done.append("slow"))
        time.sleep(1.5)  # until they have arrived
        assert post(url, png())[0] == 200
        assert len(done) < 2


def test_an_image_that_needs_too_much_memory_is_given_up(
    served_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Limits, "decoder_bytes", 20_000_000)
    with running(served_model, Limits()) as url:
        status, answer = post(url, encoded(5_000, 5_000, mode="RGB"))
        good, _ = post(url, png())
    assert (status, good) == (400, 200)
    assert "more than 20 MB to decode" in answer["detail"]


def test_a_killed_decoder_is_replaced(url: str) -> None:
    for child in decoders():
        child.kill()
    answers = [post(url, png()) for _ in range(4)]

    assert answers[-1][0] == 200
    assert {status for status, _ in answers} <= {200, 400}


def test_a_request_that_is_given_up_frees_its_decoder(served_model: Path) -> None:
    """The answer is late; the process that decodes for it is ended at once."""
    limits = Limits(seconds=1.0, decode_seconds=1_000)
    with running(served_model, limits) as url:
        status, answer = post(url, plain_ppm(4_900_000))
        processes = [child for one in decoders() for child in one.children()]
        good, _ = post(url, png())
    assert (status, answer["detail"], good) == (503, "No answer within 1 s.", 200)
    assert processes == []


def test_decoders_import_no_framework(served_model: Path) -> None:
    others = decoders()
    with running(served_model, LIMITS) as url:
        post(url, png())
        own = [child for child in decoders() if child not in others]
        assert len(own) == 3
        for child in own:
            maps = Path(f"/proc/{child.pid}/maps").read_text()
            assert "_imaging" in maps  # Pillow's
            assert "tensorflow" not in maps


# --- connections ----------------------------------------------------------------------------------


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)))


def is_closed(client: socket.socket) -> bool:
    """Wait until the server closes a connection, or sends something first."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


HEADERS = b"POST /predict HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000\r\n"


def test_slow_headers_are_closed(url: str) -> None:
    with connect(url) as silent, connect(url) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\n")
        assert is_closed(silent)
        assert is_closed(slow)


def test_slow_headers_of_a_second_request_are_closed(url: str) -> None:
    """One byte a moment, so that the connection is never idle."""
    with connect(url) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: %s\r\n\r\n" % url[7:].encode())
        answer = b""
        while not answer.endswith(b"}"):  # its headers may come before its body
            answer += client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200")
        closed = threading.Event()

        def drip() -> None:
            try:
                for byte in b"GET /health HTTP/1.1\r\nX: " + b"a" * 10_000:
                    client.sendall(bytes([byte]))
                    if closed.wait(0.1):
                        return
            except OSError:
                return

        thread = threading.Thread(target=drip)
        thread.start()
        assert is_closed(client)
        closed.set()
        thread.join()


def test_a_slow_body_is_408_and_its_connection_closed(served_model: Path) -> None:
    with running(served_model, Limits(seconds=1.0)) as url, connect(url) as client:
        client.sendall(HEADERS % url[7:].encode() + b"\r\nabc")
        answer = client.makefile("rb").read()  # to the end of the connection
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "detail": "The upload was not complete within 1 s."
    }


def test_an_answered_request_whose_body_never_ends_is_closed(served_model: Path) -> None:
    with running(served_model, Limits(seconds=0.5)) as url, connect(url) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 9\r\n\r\n" % url[7:].encode()
        )
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize("start", [b"", b"POST /predict HTTP/1.1\r\n", HEADERS + b"\r\nabc"])
def test_slow_clients_turn_no_others_away(served_model: Path, start: bytes) -> None:
    """A hundred of them, five times as many as connections that may wait; none times out."""
    limits = Limits(connections=20, waiting=5, header_seconds=1_000, seconds=1_000)
    with running(served_model, limits) as url:
        clients = [connect(url) for _ in range(100)]
        for client in clients:
            client.sendall(start % url[7:].encode() if b"%" in start else start)
        assert {post(url, png())[0] for _ in range(10)} == {200}
        time.sleep(1.1)  # until those clients are old enough to give way
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: post(url, png())[0], range(100)))
        assert set(answers) == {200}
        closed = sum(is_closed_now(client) for client in clients)
        for client in clients:
            client.close()
    assert 80 <= closed < 100


def is_closed_now(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_incomplete_uploads_hold_a_limited_number_of_bytes(served_model: Path) -> None:
    limits = Limits(upload_bytes=1_000_000, waiting_bytes=2_000_000, seconds=1_000)
    body = b"POST /predict HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000000\r\n\r\n" + bytes(900_000)
    with running(served_model, limits) as url:
        clients = [connect(url) for _ in range(4)]
        clients[0].sendall(body.replace(b"%s", url[7:].encode()))
        time.sleep(1.2)
        for client in clients[1:]:
            client.sendall(body.replace(b"%s", url[7:].encode()))
        assert is_closed(clients[0])
        for client in clients:
            client.close()


def test_an_upload_that_is_dropped_ends_no_other(served_model: Path) -> None:
    """Five times as many bytes as incomplete uploads may hold, of which few are held."""
    limits = Limits(upload_bytes=1_000_000, waiting_bytes=4_000_000)
    image = png()
    with running(served_model, limits) as url, connect(url) as slow, connect(url) as flood:
        host = url[7:].encode()
        head = b"POST /predict HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n" % host
        slow.sendall(head + b"Content-Length: %d\r\n\r\n" % len(image) + image[:9])
        time.sleep(1.1)  # until it is old enough to give way
        flood.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            flood.sendall(b"%x\r\n%b\r\n" % (1_000_000, bytes(1_000_000)))
        flood.sendall(b"0\r\n\r\n")
        assert flood.makefile("rb").read().startswith(b"HTTP/1.1 413 ")
        slow.sendall(image[9:])
        assert slow.makefile("rb").read().startswith(b"HTTP/1.1 200 ")


def test_answers_that_nobody_reads_are_closed(served_model: Path) -> None:
    with running(served_model, Limits(seconds=0.5)) as url, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        page = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % url[7:].encode()
        client.sendall(page * 2_000)  # the answers fill the buffers of both
        client.recv(1)
        port = client.getsockname()[1]
        deadline = time.monotonic() + 20
        while is_connected(port) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_connected(port)
        assert post(url, png())[0] == 200


def is_connected(client_port: int) -> bool:
    """Whether this process's server still has a client's connection."""
    connections = psutil.Process().net_connections("tcp4")
    return any(one.raddr and one.raddr.port == client_port for one in connections)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What uvicorn logs; its loggers do not propagate to the root."""
    logger = logging.getLogger("uvicorn")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_a_disconnect_is_no_traceback(
    url: str, capfd: pytest.CaptureFixture[str], log: pytest.LogCaptureFixture
) -> None:
    for sent in (b"\r\nabc", b"\r\n" + png()[:1000].ljust(1000, b"\0")):
        with connect(url) as client:
            client.sendall(HEADERS % url[7:].encode() + sent)
    with connect(url) as client:  # reset, not closed
        client.sendall(HEADERS % url[7:].encode() + b"\r\nabc")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert post(url, png())[0] == 200
    assert (capfd.readouterr().err, log.text) == ("", "")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_an_upgrade_is_ignored_in_silence(
    url: str, protocol: bytes, log: pytest.LogCaptureFixture
) -> None:
    lines = b"GET /health HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"
    with connect(url) as client:
        client.sendall(lines % (url[7:].encode(), protocol))
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert log.text == ""


# --- hosts and origins ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("good.example", 200),
        ("good.example:1234", 200),
        ("other.example:99", 200),
        ("other.example", 403),
        ("evil.example:{port}", 403),
        ("127.0.0.1", 403),
        ("127.0.0.1:1", 403),
        ("127.0.0.1.evil.example:{port}", 403),
        ("localhost.evil.example:{port}", 403),
        ("user@127.0.0.1:{port}", 403),
        ("[::1]:{port}", 403),
        ("127.0.0.1:{port}, evil.example", 403),
    ],
)
def test_only_the_servers_own_names_are_answered(named_url: str, host: str, status: int) -> None:
    port = named_url.rpartition(":")[2]
    received, answer = post(named_url, None, path="/health", Host=host.format(port=port))

    assert received == status
    if status == 403:
        assert "Expected this server's address as Host" in answer["detail"]


@pytest.fixture(scope="module")
def named_url(served_model: Path) -> Iterator[str]:
    names = ["good.example", "other.example:99"]
    with running(served_model, LIMITS, allowed_hosts=names) as address:
        yield address


@pytest.mark.parametrize("lines", [b"", b"Host: {0}\r\nHost: evil.example\r\n"])
def test_no_host_or_two_are_refused(url: str, lines: bytes) -> None:
    with connect(url) as client:
        named = lines.replace(b"{0}", url[7:].encode())
        client.sendall(b"GET /health HTTP/1.0\r\n" + named + b"\r\n")
        assert client.recv(4096).startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:{port}", 200),
        ("https://127.0.0.1:{port}", 200),  # behind a proxy with TLS
        ("http://localhost:{port}", 403),  # another name than Host's
        ("http://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:{port}.evil.example", 403),
    ],
)
def test_requests_of_other_pages_are_refused(url: str, origin: str, status: int) -> None:
    port = url.rpartition(":")[2]

    received, _ = post(url, png(), Origin=origin.format(port=port))

    assert received == status


@pytest.mark.parametrize("line", ["GET /", "GET /health", "GET /nothing", "GET /predict", "no"])
def test_every_answer_has_the_headers_that_browsers_obey(url: str, line: str) -> None:
    with connect(url) as client:
        client.sendall(f"{line} HTTP/1.1\r\nHost: {url[7:]}\r\n\r\n".encode())
        head = client.recv(65_536).partition(b"\r\n\r\n")[0].decode().lower()
    assert head.startswith("http/1.1 ")
    assert "x-content-type-options: nosniff" in head
    assert "x-frame-options: deny" in head
    assert "content-security-policy: default-src 'none'" in head
    assert "server:" not in head
