"""The public sets of weights: URL, network, hash and published accuracy of each.

Standard library only. Accuracies are those that the sources publish, not measured by this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Digest:
    """A published hash. `value` may contain only its first digits if no more are published."""

    algorithm: Literal["sha1", "sha256"]
    value: str
    source: str

    @property
    def is_complete(self) -> bool:
        """Return whether all digits are known."""
        return len(self.value) == _DIGITS[self.algorithm]


_DIGITS = {"sha1": 40, "sha256": 64}


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """One public set of weights.

    Attributes:
        name: for the command line and the cache.
        variant: the network it is for, with its pixel convention and class count.
        url, filename: of the published file.
        digest: None if no public source states one. The sha256 of the first file whose keys and
            shapes fit is then recorded in the cache, and also where only some digits are known.
        pixels: the convention of the network's pixels, as in `NetworkSpec`.
        classes: of the published file.
        licence: of the weights, as their source states it.
        class_index: row of the first of the 1000 ImageNet classes in the published file; None if
            the file has another order of classes.
        top_1, top_5: published accuracy in percent, single centre crop; None: not published.
        accuracy_source: source of those numbers.
        licence: of the weights.
        default: whether weights="imagenet" selects this set.
    """

    name: str
    variant: str
    url: str
    filename: str
    digest: Digest | None
    pixels: str
    classes: int
    class_index: int | None
    licence: str
    top_1: float | None
    top_5: float | None
    accuracy_source: str
    default: bool = True


_BVLC = "https://github.com/BVLC/caffe/tree/master/models/bvlc_googlenet"
_ZOO = (
    "https://github.com/onnx/models/tree/main/validated/vision/classification/"
    "inception_and_googlenet/googlenet"
)

MANIFEST: tuple[WeightsEntry, ...] = (
    WeightsEntry(
        name="bvlc",
        variant="paper",
        # BVLC gives an http address; the digest is what counts.
        url="http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
        filename="bvlc_googlenet.caffemodel",
        digest=Digest(
            algorithm="sha1", value="405fc5acd08a3bb12de8ee5e23a96bec22f08204", source=_BVLC
        ),
        pixels="caffe",
        classes=1000,
        class_index=0,
        licence="unrestricted",
        top_1=68.7,
        top_5=88.9,
        accuracy_source=_BVLC,
    ),
    WeightsEntry(
        name="onnx-zoo",
        variant="paper",
        url="https://huggingface.co/onnxmodelzoo/googlenet-12/resolve/main/googlenet-12.onnx",
        filename="googlenet-12.onnx",
        digest=Digest(
            algorithm="sha256",
            value="c99c507058eaf41de8723408fdda7db8325cb57f0a89f2ee07a716d6e963e14e",
            source="https://github.com/onnx/models/blob/main/ONNX_HUB_MANIFEST.json",
        ),
        pixels="caffe",
        classes=1000,
        class_index=0,
        licence="BSD-3-Clause",
        top_1=67.78,
        top_5=88.34,
        accuracy_source=_ZOO,
        default=False,
    ),
    WeightsEntry(
        name="slim",
        variant="slim",
        # The bucket of http://download.tensorflow.org, over https.
        url=(
            "https://storage.googleapis.com/download.tensorflow.org/models/"
            "inception_v1_2016_08_28.tar.gz"
        ),
        filename="inception_v1_2016_08_28.tar.gz",
        digest=Digest(
            algorithm="sha256",
            value="7a620c430fcaba8f8f716241f5148c4c47c035cce4e49ef02cfbe6cd1adf96a6",
            source=(
                "https://github.com/openvinotoolkit/open_model_zoo/blob/master/models/public/"
                "googlenet-v1-tf/model.yml"
            ),
        ),
        pixels="tf",
        classes=1001,
        class_index=1,
        licence="Apache-2.0",
        top_1=69.8,
        top_5=89.6,
        accuracy_source="https://github.com/tensorflow/models/tree/master/research/slim",
    ),
    WeightsEntry(
        name="torchvision",
        variant="torchvision",
        url="https://download.pytorch.org/models/googlenet-1378be20.pth",
        filename="googlenet-1378be20.pth",
        digest=Digest(algorithm="sha256", value="1378be20", source="the file's own name"),
        pixels="tf",
        classes=1000,
        class_index=0,
        licence="BSD-3-Clause",
        top_1=69.778,
        top_5=89.530,
        accuracy_source="https://docs.pytorch.org/vision/stable/models.html",
    ),
    WeightsEntry(
        name="inception5h",
        variant="inception5h",
        url="https://storage.googleapis.com/download.tensorflow.org/models/inception5h.zip",
        filename="inception5h.zip",
        digest=Digest(
            algorithm="sha256",
            value="d13569f6a98159de37e92e9c8ec4dae8f674fbf475f69fe6199b514f756d4364",
            source="https://github.com/tensorflow/tensorflow/blob/v1.4.0/WORKSPACE",
        ),
        pixels="inception5h",
        classes=1008,
        class_index=None,
        licence="Apache-2.0",
        top_1=None,
        top_5=None,
        accuracy_source="not published",
    ),
)


def imagenet_entry(variant: str) -> WeightsEntry:
    """Return the set that weights="imagenet" selects for a variant.

    Raises:
        ValueError: if no weights are published for the variant.
    """
    for entry in MANIFEST:
        if entry.variant == variant and entry.default:
            return entry
    known = sorted({entry.variant for entry in MANIFEST if entry.default})
    raise ValueError(
        f"Expected a variant with published ImageNet weights: {', '.join(known)}. Received: "
        f"variant={variant!r}. Use weights=None for a fresh network, or a file of your own."
    )
