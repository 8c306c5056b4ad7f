"""The pixel conventions of the public GoogLeNets, as data. Standard library only.

Four conventions exist (docs/variants.md); mixing them is the most reported cause of near-zero
accuracy. A spec names its own in `NetworkSpec.pixels`.
"""

from __future__ import annotations

from dataclasses import dataclass

# The input of a network that has its convention inside (`include_preprocessing`).
RAW = "raw"
# A layer of this prefix applies the convention inside a network; its name ends in the convention.
PREPROCESSING_PREFIX = "preprocessing_"


@dataclass(frozen=True)
class Convention:
    """pixels -> (channels reversed?) * scale - offset, channel by channel after the reversal."""

    meaning: str
    reverse_channels: bool
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]

    @property
    def channels_alike(self) -> bool:
        """Whether all channels are treated alike, so that grey images have the convention too."""
        return len(set(self.scale)) == len(set(self.offset)) == 1 and not self.reverse_channels


_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

CONVENTIONS: dict[str, Convention] = {
    RAW: Convention("[0, 255], as decoded", False, (1.0,) * 3, (0.0,) * 3),
    # TF-Slim
    "tf": Convention("[-1, 1]", False, (1 / 127.5,) * 3, (1.0,) * 3),
    # BVLC: models/bvlc_googlenet/train_val.prototxt
    "caffe": Convention("BGR minus (104, 117, 123)", True, (1.0,) * 3, (104.0, 117.0, 123.0)),
    # torchvision's transforms
    "torch": Convention(
        "[0, 1], minus ImageNet's mean, over its deviation",
        False,
        tuple(1 / 255 / deviation for deviation in _IMAGENET_DEVIATION),  # type: ignore[arg-type]
        tuple(
            mean / deviation
            for mean, deviation in zip(_IMAGENET_MEAN, _IMAGENET_DEVIATION, strict=True)
        ),  # type: ignore[arg-type]
    ),
    # Google's inception5h
    "inception5h": Convention("minus 117", False, (1.0,) * 3, (117.0,) * 3),
}
