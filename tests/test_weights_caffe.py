"""BVLC: real .caffemodel files, written and evaluated with BVLC's C++ Caffe 1.0."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from weights_proof import assert_same, assert_same_endpoints, written

from keras_inception import VARIANTS, GoogLeNet, model_preprocessing, preprocess_input
from keras_inception.spec.network import LRNSpec
from keras_inception.weights.readers import read_source

MEAN = (104.0, 117.0, 123.0)  # blue, green, red; train_val.prototxt
STEM = {
    "conv1/7x7_s2": "conv1",
    "pool1/3x3_s2": "pool1",
    "pool1/norm1": "norm1",
    "conv2/3x3_reduce": "conv2_reduce",
    "conv2/3x3": "conv2",
    "conv2/norm2": "norm2",
    "pool2/3x3_s2": "pool2",
    "pool3/3x3_s2": "pool3",
    "pool4/3x3_s2": "pool4",
}
MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
PARTS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool", "pool_proj")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory, "caffe")


@pytest.fixture(scope="module")
def blobs(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "endpoints.npz") as file:
        return {name.replace("|", "/"): _channels_last(file[name]) for name in file.files}


def _channels_last(blob: np.ndarray) -> np.ndarray:
    return blob.transpose(0, 2, 3, 1) if blob.ndim == 4 else blob


def _inputs(blobs: dict[str, np.ndarray], model) -> np.ndarray:
    rgb = (blobs["data"] + MEAN)[..., ::-1].astype(np.float32)
    return preprocess_input(rgb, convention=model_preprocessing(model))


@pytest.mark.parametrize("form", ["new", "old"])
def test_every_endpoint_is_caffes(folder, blobs, form):
    path = folder / f"{form}.caffemodel"
    model = GoogLeNet(weights=path, classifier_activation=None)
    expected = {own: blobs[theirs] for theirs, own in STEM.items()}
    for name in MODULES:
        expected[name] = blobs[f"inception_{name}/output"]
        for part in PARTS:
            expected[f"{name}_{part}"] = blobs[f"inception_{name}/{part}"]
    expected["predictions_logits"] = blobs["loss3/classifier"]
    assert_same_endpoints(model, _inputs(blobs, model), expected)
    training = GoogLeNet(weights=path, classifier_activation=None, auxiliary=True)
    outputs = training.predict_on_batch(_inputs(blobs, training))
    heads = {"aux_1": "loss1/classifier", "aux_2": "loss2/classifier", "main": "loss3/classifier"}
    assert_same(outputs, {own: blobs[theirs] for own, theirs in heads.items()})


def test_without_the_top_at_another_size(folder, blobs):
    path = folder / "new.caffemodel"
    model = GoogLeNet(weights=path, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    features = model.predict_on_batch(_inputs(blobs, model))
    assert_same({"avg": features}, {"avg": blobs["pool5/7x7_s1"].reshape(2, 1024)})
    assert GoogLeNet(weights=path, include_top=False).input_shape == (None, None, None, 3)


def test_other_lrn_constants_are_refused_by_name(folder):
    stem = tuple(
        replace(layer, beta=0.5) if isinstance(layer, LRNSpec) else layer
        for layer in VARIANTS["paper"].stem
    )
    with pytest.raises(ValueError, match=r"\(5, 0\.0001, 0\.5, 1\.0\).*Received.*0\.75, 1\.0\)"):
        GoogLeNet(weights=folder / "new.caffemodel", spec=replace(VARIANTS["paper"], stem=stem))


def test_a_truncated_file_is_refused(folder, tmp_path):
    whole = (folder / "old.caffemodel").read_bytes()
    cut = tmp_path / "cut.caffemodel"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"(?s)Expected.*cut\.caffemodel"):
        read_source(cut)
