"""Endpoint names of torchvision and TF-Slim, translated to this package's. Standard library only.

Sources: torchvision/models/googlenet.py; tf_slim/nets/inception_v1.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_SLIM = {
    "Conv2d_1a_7x7": "conv1",
    "MaxPool_2a_3x3": "pool1",
    "Conv2d_2b_1x1": "conv2_reduce",
    "Conv2d_2c_3x3": "conv2",
    "MaxPool_3a_3x3": "pool2",
    "MaxPool_4a_3x3": "pool3",
    "MaxPool_5a_2x2": "pool4",
    "AvgPool_0a_7x7": "avg_pool",
    "global_pool": "avg_pool",
    "Dropout_0b": "predictions_dropout",
    "Conv2d_0c_1x1": "predictions_logits",
    "SpatialSqueeze": "predictions_logits",
    "Logits": "predictions_logits",
    "Predictions": "predictions",
}
_TORCHVISION = {
    "conv3": "conv2",
    "maxpool1": "pool1",
    "maxpool2": "pool2",
    "maxpool3": "pool3",
    "maxpool4": "pool4",
    "avgpool": "avg_pool",
    "flatten": "avg_pool",
    "dropout": "predictions_dropout",
    "fc": "predictions_logits",
    "aux1": "aux_1",
    "aux2": "aux_2",
}
_TORCHVISION_AUX = {"conv": "proj", "fc1": "dense", "fc2": "logits"}
# The layers of a unit of convolution, batch normalization and ReLU.
_PARTS = {"": "", ".conv": "_conv", ".bn": "_bn", ".relu": ""}
_SLIM_BRANCH = r"/Branch_([0-3])(?:/(Conv2d|MaxPool)_0\w_(\d)x\d)?"
# What TF-Slim's graph appends to the names of its scopes, and the layer of a unit that it means.
_SLIM_OPERATION = (
    r"(?:/(?:Relu|concat|MaxPool|AvgPool|BiasAdd|Reshape_1)|(/Conv2D)|(/BatchNorm/.+))?(?::0)?"
)
_PART = r"(\.conv|\.bn|\.relu|)"


def endpoint_name(name: str, layers: Collection[str]) -> str:
    """Translate an endpoint's name in the paper, TF-Slim or torchvision to this package's name.

    torchvision's conv2 and conv3 are the paper's conv2_reduce and conv2. "conv2" alone is also a
    name of the paper and keeps the paper's meaning; "conv2.relu", a node of torchvision's, has
    torchvision's.

    Args:
        name: such as "4a_3x3"; "inception4a.branch2.1", "inception4a.branch2.1.relu",
            "conv3.bn"; "Mixed_4b/Branch_1", "InceptionV1/Mixed_4b/Branch_1/Conv2d_0b_3x3".
        layers: the names of the model's layers, of which the kernel sizes of branches are read.
    """
    if name in layers:
        return name
    return _from_slim(name, layers) or _from_torchvision(name, layers) or name


def _from_slim(name: str, layers: Collection[str]) -> str | None:
    found = re.fullmatch(rf"(?:InceptionV1/)*(?:Logits/)?(.+?){_SLIM_OPERATION}", name)
    if found is None:
        return None
    scope, convolution, normalization = found.groups()
    part = "_conv" if convolution else "_bn" if normalization else ""
    unit = _slim_scope(scope, layers)
    return unit and unit + part


def _slim_scope(name: str, layers: Collection[str]) -> str | None:
    found = re.fullmatch(rf"Mixed_(\d)([b-z])(?:{_SLIM_BRANCH})?", name)
    if found is None:
        return _SLIM.get(name)
    stage, letter, branch, kind, kernel = found.groups()
    module = stage + chr(ord(letter) - 1)  # in TF-Slim "a" is the pool before the modules
    if branch is None:
        return module
    first = kind == "MaxPool" or (branch in "12" and kind == "Conv2d" and kernel == "1")
    return _unit(module, int(branch), layers, first=first)


def _from_torchvision(name: str, layers: Collection[str]) -> str | None:
    if found := re.fullmatch(rf"inception_?(\d[a-z])\.branch([1-4])(\.[01])?{_PART}", name):
        module, branch, step, part = found.groups()
        unit = _unit(module, int(branch) - 1, layers, first=step == ".0" and branch != "1")
        return unit and unit + _PARTS[part]
    if found := re.fullmatch(r"inception_?(\d[a-z])(\.cat)?", name):
        return found[1]
    if found := re.fullmatch(rf"aux([12])\.(conv|fc1|fc2){_PART}", name):
        return f"aux_{found[1]}_{_TORCHVISION_AUX[found[2]]}{_PARTS[found[3]]}"
    if found := re.fullmatch(r"conv([123])(\.conv|\.bn|\.relu)", name):
        return ("conv1", "conv2_reduce", "conv2")[int(found[1]) - 1] + _PARTS[found[2]]
    return _TORCHVISION.get(name)


def _unit(module: str, branch: int, layers: Collection[str], *, first: bool) -> str | None:
    """The first or last layer of a branch: 1x1, the two spatial ones, and the pool's."""
    if branch == 0:
        return f"{module}_1x1"
    if branch == 3:
        return f"{module}_pool" if first else f"{module}_pool_proj"
    spatial = re.compile(rf"{module}_(\d+x\d+)(_[a-z])?")
    names = sorted(name for name in layers if spatial.fullmatch(name) and name != f"{module}_1x1")
    if len(names) < branch:
        return None
    return names[branch - 1] + ("_reduce" if first else "")
