"""Download once, convert once: against a local web server, with a tiny network's file."""

import functools
import hashlib
import http.server
import re
import threading
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from keras_inception import GoogLeNet
from keras_inception.cli import app
from keras_inception.network import googlenet
from keras_inception.network.build import build_network
from keras_inception.spec.variants import VARIANTS
from keras_inception.weights import cache, download
from keras_inception.weights.manifest import MANIFEST, Digest, WeightsEntry, imagenet_entry

RAW = {
    "header": b"HTTP/1.0 200 OK\r\n",
    "banner": b"SSH-2.0-server\r\n",
    "many": b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly",
}


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the files of a folder; the first part of a name may ask for another answer.

    cut-: a body shorter than announced; endless-: one of no announced length; large-: 300 MB
    announced; silent-: no answer; slow-: a byte at a time; header-: the headers so; banner-: of
    another protocol; many-: a hundred and one headers; chunk-: a part of a chunk.
    """

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.requests.append(self.path)
        kind = self.path.strip("/").partition("-")[0]
        lengths = {"cut": "1000000", "endless": None, "large": "300000000", "slow": "1000000"}
        if kind == "silent":
            self.server.released.wait(20)
            return None
        if kind in RAW:
            self.wfile.write(RAW[kind])
            while kind == "header" and not self.server.released.wait(0.05):
                self.wfile.write(b"x")
            return None
        if kind not in lengths:
            return super().do_GET()
        self.send_response(200)
        if lengths[kind]:
            self.send_header("Content-Length", lengths[kind])
        self.end_headers()
        while kind == "slow" and not self.server.released.wait(0.05):
            self.wfile.write(b"x")
        self.wfile.write(b"only this much")


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    (tmp_path / "web").mkdir()
    handler = functools.partial(_Handler, directory=tmp_path / "web")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.requests = []
        running.released = threading.Event()
        running.folder = tmp_path / "web"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.released.set()
        running.shutdown()


def _entry(server, filename: str = "nano.weights.h5", **changes) -> WeightsEntry:
    """A manifest entry for the smallest network."""
    entry = WeightsEntry(
        name="toy",
        variant="nano",
        url=f"http://127.0.0.1:{server.server_port}/{filename}",
        filename=filename,
        digest=None,
        pixels="tf",
        classes=10,
        class_index=None,
        licence="none",
        top_1=None,
        top_5=None,
        accuracy_source="none",
    )
    return replace(entry, **changes)


def _publish(server, filename: str = "nano.weights.h5") -> dict[str, np.ndarray]:
    model = build_network(VARIANTS["nano"])
    model.save_weights(server.folder / filename)
    return {weight.path: np.array(weight) for weight in model.weights}


def _cached() -> list[str]:
    folder = cache.cache_folder()
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_imagenet_weights_are_downloaded_and_converted_once(server, monkeypatch):
    arrays = _publish(server)
    monkeypatch.setattr(googlenet, "imagenet_entry", lambda variant: _entry(server))
    with pytest.warns(UserWarning, match=r"its sha256 [0-9a-f]{64} is recorded in"):
        models = [GoogLeNet(weights="imagenet", variant="nano") for _ in range(2)]
    for model in models:
        for weight in model.weights:
            assert_array_equal(np.array(weight), arrays[weight.path])
    assert server.requests == ["/nano.weights.h5"]
    assert _cached() == ["nano.weights.h5", "nano.weights.h5.sha256", "toy_10_v1.weights.h5"]
    features = GoogLeNet(weights="imagenet", variant="nano", include_top=False, pooling="avg")
    assert features.output_shape == (None, 104)  # nano's 4b: 32 + 40 + 16 + 16


def test_a_published_hash_is_checked(server):
    _publish(server)
    data = (server.folder / "nano.weights.h5").read_bytes()
    sha1, sha256 = hashlib.sha1(data).hexdigest(), hashlib.sha256(data).hexdigest()
    for digest in (
        Digest(algorithm="sha1", value=sha1, source="here"),
        Digest(algorithm="sha256", value=sha256[:8], source="here"),
    ):
        assert cache.fetch(_entry(server, digest=digest)).read_bytes() == data
    wrong = Digest(algorithm="sha256", value="0" * 8, source="the file's name")
    with pytest.raises(ValueError, match=rf"sha256 00000000 \(source.*{sha256}.*Delete it"):
        cache.fetch(_entry(server, digest=wrong))
    (cache.cache_folder() / "nano.weights.h5").unlink()
    with pytest.raises(ValueError, match="was not kept"):
        cache.fetch(_entry(server, digest=wrong))
    assert _cached() == []


@pytest.mark.parametrize("filename", ["absent.weights.h5", "cut-nano.weights.h5"])
def test_a_download_that_fails_leaves_nothing_and_says_what_to_do(server, filename):
    entry = _entry(server, filename)
    place = cache.cache_folder() / filename
    with pytest.raises(OSError, match="Received") as refused:
        cache.fetch(entry)
    for part in (entry.url, f"put the file at {place}", "weights=None"):
        assert part in str(refused.value)
    assert _cached() == []


@pytest.mark.parametrize(
    ("filename", "message"),
    [
        ("cut-it.weights.h5", "14 of 1,000,000 announced bytes"),
        ("endless-it.weights.h5", "14 bytes, of which the server announced no length"),
        ("large-it.weights.h5", "more than 200,000,000 bytes, which no set of weights has"),
        ("silent-it.weights.h5", "no data for 0.5 seconds"),
        ("slow-it.weights.h5", "after 0.5 seconds, too slow"),
        ("header-it.weights.h5", "incomplete headers after 1.5 seconds, too slow"),
        ("banner-it.weights.h5", "not of HTTP (BadStatusLine: SSH-2.0-server"),
        ("many-it.weights.h5", "not of HTTP (HTTPException: got more than 100 headers"),
        ("chunk-it.weights.h5", "not of HTTP (IncompleteRead: "),
    ],
)
def test_a_body_that_is_not_whole_is_not_kept(server, monkeypatch, filename, message):
    monkeypatch.setattr(download, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(download, "MOST_SECONDS", 0.5)
    monkeypatch.setattr(download, "HEADER_SECONDS", 1.5)
    with pytest.raises(OSError, match=re.escape(message)):
        cache.fetch(_entry(server, filename))
    assert _cached() == []


@pytest.mark.parametrize("filename", ["cut-it.weights.h5", "endless-it.weights.h5"])
def test_a_body_whose_digest_fits_is_kept(server, filename):
    body = b"only this much"
    digest = Digest(algorithm="sha256", value=hashlib.sha256(body).hexdigest(), source="here")
    assert cache.fetch(_entry(server, filename, digest=digest)).read_bytes() == body
    wrong = Digest(algorithm="sha256", value="0" * 64, source="here")
    (cache.cache_folder() / filename).unlink()
    with pytest.raises(OSError, match=r"14 .*announced"):
        cache.fetch(_entry(server, filename, digest=wrong))
    assert _cached() == []


def test_a_digest_is_recorded_at_the_first_use(server):
    """Where no source publishes all of its digits; another file is refused from then on."""
    _publish(server)
    data = (server.folder / "nano.weights.h5").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    entry = _entry(server, digest=Digest(algorithm="sha256", value=sha256[:8], source="its name"))
    path = cache.fetch(entry)
    assert _cached() == ["nano.weights.h5"]  # not before keys and shapes have been compared
    with pytest.warns(UserWarning, match=f"sha256 {sha256} is recorded"):
        cache.pin_digest(entry)
    cache.pin_digest(entry)  # once
    assert cache.fetch(entry) == path
    path.write_bytes(data + b"more")
    other = replace(entry, digest=None)
    with pytest.raises(ValueError, match=rf"sha256 {sha256} \(source.*\.sha256\)\. Received"):
        cache.fetch(other)
    path.unlink()
    (server.folder / "nano.weights.h5").write_bytes(data + b"more")
    with pytest.raises(ValueError, match="was not kept"):
        cache.fetch(other)
    complete = replace(entry, digest=Digest(algorithm="sha256", value=sha256, source="here"))
    (cache.cache_folder() / "nano.weights.h5.sha256").unlink()
    cache.pin_digest(complete)
    assert _cached() == []


def test_a_redirect_to_a_less_safe_scheme_is_refused():
    request = urllib.request.Request("https://127.0.0.1/file")
    plain = urllib.request.Request("http://127.0.0.1/file")
    redirects = download._Redirects()
    with pytest.raises(OSError, match="from https to http://127"):
        redirects.redirect_request(request, None, 302, "Found", {}, "http://127.0.0.1/file")
    with pytest.raises(OSError, match="from http to ftp://127"):
        redirects.redirect_request(plain, None, 302, "Found", {}, "ftp://127.0.0.1/file")
    safe = redirects.redirect_request(request, None, 302, "Found", {}, "https://127.0.0.1/b")
    assert safe.full_url == "https://127.0.0.1/b"


def test_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(
        googlenet,
        "imagenet_entry",
        lambda variant: replace(imagenet_entry(variant), url="http://127.0.0.1:9/file"),
    )
    with pytest.raises(
        OSError, match=r"put the file at .*bvlc_googlenet\.caffemodel.*weights=None"
    ):
        GoogLeNet()


def test_a_partial_download_is_not_used(server):
    arrays = _publish(server)
    folder = cache.cache_folder()
    folder.mkdir(parents=True)
    (folder / ".partial-1-nano.weights.h5").write_bytes(b"half")
    model = build_network(VARIANTS["nano"])
    with pytest.warns(UserWarning, match="is recorded in"):
        path = cache.imagenet_weights(_entry(server), None, build_network)
    model.load_weights(path)
    assert_array_equal(np.array(model.weights[0]), arrays[model.weights[0].path])


def test_a_file_of_another_network_is_not_converted(server):
    (server.folder / "nano.weights.h5").write_bytes(b"<html>moved</html>")
    with pytest.raises(ValueError, match=r"(?s)Expected a `\.weights\.h5`.*Delete .* fetch it"):
        cache.imagenet_weights(_entry(server), None, build_network)
    build_network(VARIANTS["tiny"]).save_weights(server.folder / "tiny.weights.h5")
    with pytest.raises(ValueError, match=r"(?s) - 3a_1x1_conv/kernel.*Delete"):
        cache.imagenet_weights(_entry(server, "tiny.weights.h5"), None, build_network)
    assert not any(name.startswith("toy") for name in _cached())


def test_every_set_of_the_manifest_fits_its_variant():
    for entry in MANIFEST:
        spec = VARIANTS[entry.variant]
        assert entry.pixels == spec.pixels
        assert entry.classes - spec.classes == (1 if entry.name == "slim" else 0)
        assert entry.url.endswith(entry.filename)
        assert (entry.top_1 is None) == (entry.accuracy_source == "not published")
        full = {"sha1": 40, "sha256": 64}[entry.digest.algorithm]
        assert len(entry.digest.value) == (8 if entry.name == "torchvision" else full)
        assert int(entry.digest.value, 16)
        assert entry.url.startswith("http://" if entry.name == "bvlc" else "https://")
    assert imagenet_entry("paper").name == "bvlc"
    with pytest.raises(ValueError, match=r"paper, slim, torchvision.*variant='bn'"):
        imagenet_entry("bn")


def test_the_command_line_lists_every_set():
    result = CliRunner().invoke(app, ["weights", "list"])
    assert result.exit_code == 0
    for entry in MANIFEST:
        assert f"{entry.name}: {entry.url}\n" in result.output
    assert "405fc5acd08a3bb12de8ee5e23a96bec22f08204" in result.output
    assert "sha256 1378be20 and more digits, recorded at the first use" in result.output


def test_the_command_line_converts(tmp_path):
    source, target = tmp_path / "a.weights.h5", tmp_path / "b.keras"
    build_network(VARIANTS["nano"]).save_weights(source)
    command = ["weights", "convert", str(source), "--variant", "nano", "--to"]
    result = CliRunner().invoke(app, [*command, str(target)])
    assert result.exit_code == 0, result.output
    again = GoogLeNet(weights=target, variant="nano")
    for left, right in zip(
        GoogLeNet(weights=source, variant="nano").get_weights(), again.get_weights(), strict=True
    ):
        assert_array_equal(left, right)
    for bad in (target, tmp_path / "c.onnx", tmp_path / "none" / "c.keras"):
        result = CliRunner().invoke(app, [*command, str(bad)])
        assert result.exit_code == 2
        assert "Expected" in result.output


def test_the_command_line_leaves_the_names_of_imagenets_classes(tmp_path):
    """Next to a .keras file; existing names are kept."""
    spec = replace(VARIANTS["nano"], classes=1001)
    build_network(spec).save_weights(tmp_path / "a.weights.h5")
    command = ["weights", "convert", str(tmp_path / "a.weights.h5"), "--variant", "nano"]
    command += ["--classes", "1001", "--to"]
    assert CliRunner().invoke(app, [*command, str(tmp_path / "b.keras")]).exit_code == 0
    labels = (tmp_path / "labels.txt").read_text().splitlines()
    assert (len(labels), labels[0], labels[282]) == (1001, "background", "tabby")
    (tmp_path / "labels.txt").write_text("mine")
    assert CliRunner().invoke(app, [*command, str(tmp_path / "c.keras")]).exit_code == 0
    assert (tmp_path / "labels.txt").read_text() == "mine"


def test_verify_prints_the_top_5_of_three_photos(server, monkeypatch):
    from keras_inception.weights import manifest

    spec = replace(VARIANTS["tiny"], input_shape=(28, 28, 3))
    monkeypatch.setitem(VARIANTS, "paper", replace(spec, classes=1000))
    build_network(VARIANTS["paper"]).save_weights(server.folder / "good.weights.h5")
    good = _entry(server, "good.weights.h5", name="good", variant="paper")
    lost = _entry(server, "absent.weights.h5", name="lost")
    monkeypatch.setattr(manifest, "MANIFEST", (good, lost))
    with pytest.warns(UserWarning, match="is recorded in"):
        result = CliRunner().invoke(app, ["weights", "verify", "good"])
    assert result.exit_code == 0, result.output
    for photo in ("cat.jpg", "espresso.jpg", "rocket.jpg"):
        assert photo in result.output
    assert len([line for line in result.output.splitlines() if line.count("│") == 4]) == 15
    result = CliRunner().invoke(app, ["weights", "verify"])
    assert result.exit_code == 1
    assert "Not verified: lost" in result.output
    result = CliRunner().invoke(app, ["weights", "verify", "unknown"])
    assert result.exit_code == 2
