"""torchvision: real state dicts of its googlenet, and its outputs."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from weights_proof import assert_same, assert_same_endpoints, written

from keras_inception import VARIANTS, GoogLeNet, model_preprocessing, preprocess_input
from keras_inception.network.imagenet import imagenet_classes

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed"),
]

MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
BRANCHES = {  # torchvision's submodule -> the paper's branch
    "branch1": "1x1",
    "branch2.0": "3x3_reduce",
    "branch2.1": "3x3",
    "branch3.0": "3x3_b_reduce",
    "branch3.1": "3x3_b",
    "branch4.0": "pool",
    "branch4.1": "pool_proj",
}
STEM = {  # torchvision's conv2 and conv3 are the paper's conv2_reduce and conv2
    "conv1": "conv1",
    "maxpool1": "pool1",
    "conv2": "conv2_reduce",
    "conv3": "conv2",
    "maxpool2": "pool2",
    "maxpool3": "pool3",
    "maxpool4": "pool4",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory, "torch")


@pytest.fixture(scope="module")
def theirs(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "endpoints.npz") as file:
        return {name.replace("|", "/"): file[name] for name in file.files}


def _inputs(theirs, model) -> np.ndarray:
    return preprocess_input(theirs["pixels"], convention=model_preprocessing(model))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_every_endpoint_is_torchvisions(folder, theirs, form):
    path = folder / f"{form}.pth"
    model = GoogLeNet(weights=path, classifier_activation=None)
    expected = {own: theirs[f"full/{name}"] for name, own in STEM.items()}
    for name in MODULES:
        expected[name] = theirs[f"full/inception{name}"]
        for branch, own in BRANCHES.items():
            expected[f"{name}_{own}"] = theirs[f"full/inception{name}.{branch}"]
    expected["predictions_logits"] = theirs["full/fc"]
    assert_same_endpoints(model, _inputs(theirs, model), expected)
    training = GoogLeNet(weights=path, classifier_activation=None, auxiliary=True)
    outputs = training.predict_on_batch(_inputs(theirs, model))
    # Several versions swap the outputs in its tuple, but not its modules.
    heads = {"main": "full/fc", "aux_1": "full/aux1.fc2", "aux_2": "full/aux2.fc2"}
    assert_same(outputs, {own: theirs[name] for own, name in heads.items()})


def test_safetensors_without_transform_input_and_heads_of_other_classes(folder, theirs):
    path = folder / "plain.safetensors"
    spec = replace(VARIANTS["torchvision"], pixels="torch")
    model = GoogLeNet(weights=path, spec=spec, classes=37, classifier_activation=None)
    outputs = model.predict_on_batch(_inputs(theirs, model))
    assert_same({"main": outputs}, {"main": theirs["plain"]})
    assert GoogLeNet(weights=path).output_shape == (None, 37)  # read from the file
    with pytest.raises(ValueError, match=r" - aux_1_proj_conv/kernel \(1, 1, 512, 128\)"):
        GoogLeNet(weights=path, auxiliary=True)


def test_a_pickle_that_is_more_than_tensors_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"(?s)Expected a state dict of tensors.*module\.pth"):
        GoogLeNet(weights=folder / "module.pth")  # code, not weights
    with pytest.raises(ValueError, match=r"Received: \['epoch', 'model'\].*state_dict"):
        GoogLeNet(weights=folder / "wrapped.pth")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a file of torch")
    with pytest.raises(ValueError, match=r"Expected a state dict of tensors.*broken"):
        GoogLeNet(weights=broken)


def test_the_class_index_is_torchvisions(theirs):
    """Two independent lists of names, in the same order."""
    names = [name.replace("_", " ") for _, name in imagenet_classes()]
    pairs = zip(names, theirs["categories"].tolist(), strict=True)
    different = [(ours, other) for ours, other in pairs if ours != other]
    assert different == [("crane", "crane bird"), ("maillot", "maillot tank suit")]
