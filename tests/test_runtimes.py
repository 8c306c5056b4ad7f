"""Threads, batch sizes and caches of the runtimes behind saved networks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import start

from keras_inception import load
from keras_inception.exporters.job import available_formats, export
from keras_inception.network.googlenet import GoogLeNet
from keras_inception.runtimes.keras_model import Network


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A network of some cost in each runtime: 64 pixels, so that a batch occupies all threads."""
    folder = tmp_path_factory.mktemp("files")
    model = GoogLeNet(weights=None, variant="medium", input_shape=(64, 64, 3))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    model.save(folder / "model.keras")
    kinds = [kind for kind in available_formats() if "-" not in kind]
    rows = export(model, folder / "out", kinds, images=images)
    return [folder / "model.keras", *(row.path for row in rows if row.path)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("threads", [1, 2])
def test_every_runtime_computes_in_as_many_threads(files: list[Path], threads: int) -> None:
    done = start("runtime_threads.py", threads, *files)
    output, errors = done.communicate()
    assert done.returncode == 0, errors
    assert json.loads(output) == {file.name: threads for file in files}


def test_tensorflow_s_threads_cannot_change_any_more(files: list[Path]) -> None:
    np.testing.assert_equal(load(files[0])(np.zeros((8, 8, 3), np.uint8)).error, None)
    with pytest.raises(ValueError, match=r"TensorFlow that computes already.*threads=3"):
        load(files[0], threads=3)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(files: list[Path], threads: int) -> None:
    with pytest.raises(ValueError, match=f"1 or more threads. Received: {threads}"):
        load(files[0], threads=threads)


def test_the_batch_size_of_load_is_that_of_calls(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def scores(pixels: np.ndarray) -> np.ndarray:
        sizes.append(len(pixels))
        return np.eye(2, dtype=np.float32)[np.zeros(len(pixels), int)]

    monkeypatch.setattr(
        "keras_inception.inference.predictor.load_network",
        lambda path, **_: Network(scores, (8, 8, 3), ("a", "b")),
    )
    images = np.zeros((5, 8, 8, 3), np.uint8)

    load(files[0], batch_size=2)(images)
    load(files[0], batch_size=2)(images, batch_size=4)

    assert sizes == [2, 2, 1, 4, 1]
    with pytest.raises(ValueError, match=r"`batch_size` of 1 or more. Received: batch_size=0"):
        load(files[0], batch_size=0)


def test_openvino_keeps_compiled_networks_in_the_cache(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (file,) = (file for file in files if file.suffix == ".xml")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    first, second = (load(file)(pixels) for _ in range(2))

    kept = [*(tmp_path / "models" / "keras_inception" / "openvino").glob("*.blob")]
    assert len(kept) == 1
    assert first == second


def test_an_unusable_cache_is_no_error(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "models").write_text("not a folder")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (file,) = (file for file in files if file.suffix == ".xml")
    assert load(file)(np.zeros((64, 64, 3), np.uint8)).error is None
