"""TF-Slim: real checkpoints of tf_slim.nets.inception_v1, written by TensorFlow 1's saver."""

import io
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from weights_proof import assert_same, assert_same_endpoints, written

from keras_inception import GoogLeNet, model_preprocessing, preprocess_input
from keras_inception.weights.readers import read_source

# From tf_slim/nets/inception_v1.py; these endpoints have TF-Slim's own names.
STEM = ("Conv2d_1a_7x7", "MaxPool_2a_3x3", "Conv2d_2b_1x1", "Conv2d_2c_3x3", "MaxPool_3a_3x3")
MODULES = tuple(f"Mixed_{name}" for name in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"))
POOLS = ("MaxPool_4a_3x3", "MaxPool_5a_2x2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory, "slim")


@pytest.fixture(scope="module")
def endpoints(folder: Path) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "endpoints.npz"))


def _pixels(endpoints: dict[str, np.ndarray]) -> np.ndarray:
    return (endpoints["images"] / 2 + 0.5) * 255


def test_every_endpoint_is_tf_slims(folder, endpoints):
    model = GoogLeNet(weights=folder / "new", classes=1001)
    inputs = preprocess_input(_pixels(endpoints), convention=model_preprocessing(model))
    expected = {name: endpoints[name] for name in (*STEM, *MODULES, *POOLS)}
    expected["predictions_logits"] = endpoints["Logits"]
    expected["Predictions"] = endpoints["Predictions"]
    assert_same_endpoints(model, inputs, expected)


def test_a_tarball_is_unpacked_only_in_its_folder(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with tarfile.open(tmp_path / "slim.tar", "w") as archive:
        for name in ("../../outside.ckpt", "in/model.ckpt"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ValueError, match=r"Received: .*model.ckpt.*outside.ckpt"):
        read_source(tmp_path / "slim.tar")
    assert {path.name for path in tmp_path.iterdir()} == {"slim.tar", "temporary"}


@pytest.mark.parametrize("packed", [False, True])
def test_the_released_format_without_the_background(folder, endpoints, tmp_path, packed):
    path = folder / "old" / "model.ckpt"
    if packed:
        path = tmp_path / "inception_v1_2016_08_28.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder / "old" / "model.ckpt", "inception_v1.ckpt")
    model = GoogLeNet(weights=path, classifier_activation=None)
    inputs = preprocess_input(_pixels(endpoints), convention="tf")
    assert_same({"logits": model.predict_on_batch(inputs)}, {"logits": endpoints["Logits"][:, 1:]})


def test_the_training_state_is_ignored(folder):
    source = read_source(folder / "new" / "model.ckpt")
    assert len(source.arrays) == 57 * 4 + 2  # weights, beta, mean, variance; the logits
    assert set(source.names.values()) == set(source.arrays)


def test_two_checkpoints_in_a_folder(folder, tmp_path):
    for name in ("model.ckpt-1", "model.ckpt-2"):
        for file in (folder / "new").glob("model.ckpt.*"):
            shutil.copy(file, tmp_path / file.name.replace("model.ckpt", name))
    with pytest.raises(ValueError, match=r"one checkpoint.*'model\.ckpt-1', 'model\.ckpt-2'"):
        read_source(tmp_path)
    assert read_source(tmp_path / "model.ckpt-2").spec.classes == 1000


def test_weights_of_another_network_list_the_differences(folder):
    with pytest.raises(ValueError, match="Expected the weights of 'googlenet'") as refused:
        GoogLeNet(weights=folder / "new", variant="bn")
    message = str(refused.value)
    assert " - conv1_bn/gamma (64,)" in message  # slim has none
    assert "Nothing was assigned" in message
