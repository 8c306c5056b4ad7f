"""`keras_inception.load`: images of any kind in, labels and scores out."""

import http.server
import io
import os
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from PIL import Image

import keras_inception
from keras_inception.network.build import build_network

NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A network of 32 x 32 and its labels, as in a run's folder."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("load") / "run"
    folder.mkdir()
    build_network(tiny_spec(norm="bn")).save(folder / "model.keras")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return keras_inception.load(folder)


@pytest.fixture
def picture(tmp_path) -> Path:
    """An image of 48 x 64 random colours."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    path = tmp_path / "bild.png"
    Image.fromarray(pixels).save(path)
    return path


def expected(folder: Path, image: Image.Image) -> np.ndarray:
    """Compute scores from the centred square, Pillow's resize, pixels in [-1, 1], and the model."""
    left = (image.width - 48) // 2
    square = image.convert("RGB").crop((left, 0, left + 48, 48))
    pixels = np.asarray(square.resize((32, 32), Image.Resampling.BILINEAR), np.float32)
    keras_model = keras.models.load_model(folder / "model.keras")
    return np.asarray(keras_model(pixels[None] / 127.5 - 1, training=False))[0]


def as_scores(answer) -> np.ndarray:
    scores = dict(answer.labels)
    return np.array([scores[name] for name in NAMES])


@pytest.mark.parametrize(
    "kind", ["path", "str", "bytes", "memory", "PIL", "array", "float", "16 bits", "RGBA"]
)
def test_one_image_of_every_kind(folder, model, picture, kind):
    image = Image.open(picture)
    given = {
        "path": picture,
        "str": str(picture),
        "bytes": picture.read_bytes(),
        "memory": bytearray(picture.read_bytes()),
        "PIL": image,
        "array": np.asarray(image),
        "float": np.asarray(image, np.float32),
        "16 bits": np.asarray(image, ">u2"),
        "RGBA": np.dstack([np.asarray(image), np.full((48, 64), 255, np.uint8)]),
    }[kind]
    answer = model(given)
    scores = expected(folder, image)
    np.testing.assert_allclose(as_scores(answer), scores, atol=1e-6)
    assert answer.label == NAMES[scores.argmax()]
    assert answer.score == pytest.approx(scores.max(), abs=1e-6)
    assert [label for label, _ in answer.labels] == [NAMES[n] for n in np.argsort(-scores)]
    assert len(model(given, top=2).labels) == 2


def test_open_files(model, picture):
    labels = model(picture).labels
    assert model(io.BytesIO(picture.read_bytes())).labels == labels
    with picture.open("rb") as file:
        assert model(file).labels == labels
    with pytest.raises(ValueError, match=r"Expected an open image file\. .* closed"):
        model(file)
    with pytest.raises(ValueError, match="Expected an image file opened in binary mode"):
        model(io.StringIO("no image"))


def test_pipes_and_devices_are_not_read(model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="not a regular file"):
            model(path)


def test_grey_arrays_and_tensors(folder, model, picture):
    grey = np.asarray(Image.open(picture).convert("L"))
    scores = expected(folder, Image.fromarray(grey))
    for given in (grey, grey[..., None], keras.ops.convert_to_tensor(grey[..., None])):
        np.testing.assert_allclose(as_scores(model(given)), scores, atol=1e-6)


def test_lists_batches_and_folders_give_one_answer_per_image(model, picture, tmp_path):
    one = model(picture)
    pixels = np.asarray(Image.open(picture))
    for several in ([picture, str(picture)], (pixels, pixels), np.stack([pixels, pixels])):
        answers = model(several)
        assert len(answers) == 2
        for answer in answers:
            np.testing.assert_allclose(as_scores(answer), as_scores(one), atol=1e-6)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_text("no image")
    picture.rename(tmp_path / "in" / "good.png")
    bad, good, gone = model([tmp_path / "in", tmp_path / "gone.png"])
    np.testing.assert_allclose(as_scores(good), as_scores(one), atol=1e-6)
    assert good.image == str(tmp_path / "in" / "good.png")
    assert "bad.png" in bad.error
    assert "not found" in gone.error
    assert bad.labels == gone.labels == []
    assert len(model(tmp_path / "in")) == 2
    assert len(model([good.image] * 5, batch_size=2)) == 5


def test_a_url(model, picture):
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/bild.png" else 404)
            self.end_headers()
            self.wfile.write(picture.read_bytes())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        assert model(f"{address}/bild.png").labels == model(picture).labels
        with pytest.raises(ValueError, match=r"an image at '.*/gone\.png'. Received: Not Found"):
            model(f"{address}/gone.png")
        server.shutdown()
    with pytest.raises(ValueError, match="Expected an image at"):
        model(f"{address}/bild.png")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "Received: NoneType"),
        (7, "Received: int"),
        ({"image": 1}, "Received: dict"),
        (b"no image", "8 bytes"),
        ("no/such.png", "such.png"),
        ("", "'.' .not a regular file"),
        ("x" * 100_000, "x' .File name too long"),
        ("nul\0.png", "embedded null byte"),
        ("http://127.0.0.1:9/a b.png", "an image at 'http://127.0.0.1:9/a b.png'"),
        ("HTTP://", "an image at 'HTTP://'"),
        ([], "Received: none in"),
        (np.zeros((3, 48, 64), np.uint8), r"an array of shape \(3, 48, 64\)"),
        (np.zeros(5), r"an array of shape \(5,\)"),
        (np.zeros((4, 4, 3), bool), "dtype bool"),
        (np.zeros((0, 4, 3)), r"shape \(0, 4, 3\)"),
        (np.full((4, 4, 3), 256.0), "from 256 to 256"),
        (np.full((4, 4, 3), -1), "from -1 to -1"),
        (np.full((4, 4, 3), np.nan), "from nan to nan"),
        (np.full((4, 4, 3), 0.5), "Multiply by 255"),
        (np.full((4, 4, 3), "a", object), "dtype object"),
        (np.zeros((1, 1, 4, 4, 3)), r"an array of shape \(1, 1, 4, 4, 3\)"),
        (np.broadcast_to(np.uint8(3), (30_000, 30_000, 3)), "'ndarray' .30000 x 30000 pixels"),
        (Image.new("F", (4, 4)), "'Image' .floating-point pixels"),
        (Image.new("RGB", (0, 4)), "'Image' .0 x 4 pixels"),
        ([["a", 3]], "Received: int"),
    ],
)
def test_wrong_input_is_one_error(model, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        model(given)
    assert str(caught.value).startswith("Expected ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("top", [0, -1, 2.5, "5"])
def test_wrong_counts_of_labels(model, picture, top):
    with pytest.raises(ValueError, match="Expected `top` of 1 or more"):
        model(picture, top=top)
    with pytest.raises(ValueError, match="Expected `batch_size` of 1 or more"):
        model([picture], batch_size=top)


def test_counts_of_numpy(model, picture):
    assert len(model(picture, top=np.int64(2)).labels) == 2


def test_black_is_an_image(model):
    assert len(model(np.zeros((4, 4, 3))).labels) == 5


def test_every_saved_format_is_one_object(folder, model, picture, tmp_path):
    exported = tmp_path / "export"
    pixels = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), np.uint8)
    for package in ("tf2onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    kinds = ("saved_model", "litert", "onnx", "openvino")
    keras_inception.export(str(folder), str(exported), kinds, images=pixels)
    one = expected(folder, Image.open(picture))
    array = np.asarray(Image.open(picture))
    for path in (
        str(folder),
        folder / "model.keras",
        exported / "saved_model",
        str(exported / "model.tflite"),
        exported / "model.onnx",
        str(exported / "model.xml"),
    ):
        loaded = keras_inception.load(path)
        assert loaded.labels == NAMES
        given = (picture, str(picture), picture.read_bytes(), Image.open(picture), array)
        answers = [*map(loaded, given), *loaded([*given]), *loaded(array[None]), *loaded(tmp_path)]
        answers = [answer for answer in answers if answer.error is None]
        assert len(answers) == 12  # of the folder one; the exports in it are no images
        for answer in answers:
            np.testing.assert_allclose(as_scores(answer), one, atol=1e-5)
