"""The layers of a network outside its modules: convolutions, pools, normalizations, classifiers.

Source: "Going Deeper with Convolutions" (arXiv 1409.4842), section 5. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from keras_inception.bounded import shown
from keras_inception.spec.validation import (
    from_fields,
    require_choice,
    require_flags,
    require_integers,
    require_layer_name,
    require_numbers,
    require_odd,
    require_rates,
    unexpected,
)

# "same" pads like TensorFlow (the odd pixel goes to the bottom and right), "symmetric" pads
# kernel_size // 2 on every side like Caffe and torch: they differ for strided convolutions.
ConvPadding = Literal["same", "symmetric"]
# "ceil" is the rounding of Caffe and of torch's ceil_mode: never padded at the top or left.
# It equals "same" for even sizes only. "valid" rounds down: pixels that no window covers are
# left out.
PoolPadding = Literal["same", "ceil", "valid"]
AuxPool = Literal["valid", "adaptive"]


@dataclass(frozen=True, kw_only=True)
class ConvSpec:
    """A convolution of the stem, followed by batch normalization (if any) and ReLU."""

    kind: str = field(default="conv", init=False)
    name: str
    filters: int
    kernel_size: int
    stride: int = 1
    padding: ConvPadding = "same"

    def __post_init__(self) -> None:
        require_layer_name(self)
        require_integers(self, "filters", "kernel_size", "stride")
        require_odd(self, "kernel_size")
        require_choice(self, "padding", ConvPadding)

    def output_size(self, size: int) -> int:
        """Return the height or width of the output for an input of `size`."""
        # Either padding of an odd kernel adds kernel_size - 1 pixels; they differ in where.
        return (size - 1) // self.stride + 1

    def least_input(self, size: int) -> int:
        """Return the fewest pixels whose output has at least `size`, which is 1 or more."""
        return (size - 1) * self.stride + 1


@dataclass(frozen=True, kw_only=True)
class PoolSpec:
    """A max pool, in the stem or as the downsample between two stages."""

    kind: str = field(default="pool", init=False)
    name: str
    size: int = 3
    stride: int = 2
    padding: PoolPadding = "same"

    def __post_init__(self) -> None:
        require_layer_name(self)
        require_integers(self, "size", "stride")
        require_choice(self, "padding", PoolPadding)
        if self.size < self.stride:
            raise unexpected(
                self, "size", f"at least its stride, {self.stride}, to cover all pixels"
            )

    def output_size(self, size: int) -> int:
        """Return the height or width of the output for an input of `size`; below 1: too small."""
        if self.padding == "valid":
            return (size - self.size) // self.stride + 1
        covered = size if self.padding == "same" else size - self.size + self.stride
        return -(-covered // self.stride)

    def least_input(self, size: int) -> int:
        """Return the fewest pixels whose output has at least `size`, which is 1 or more."""
        if self.padding == "valid":
            return (size - 1) * self.stride + self.size
        missing = self.size - self.stride if self.padding == "ceil" else 0
        return (size - 1) * self.stride + 1 + missing


@dataclass(frozen=True, kw_only=True)
class LRNSpec:
    """Local response normalization across channels: x / (bias + a * sum(x^2))^beta.

    `alpha_per_window` is Caffe's, torch's and ONNX's alpha: the sum of squares is
    multiplied by alpha_per_window / window_size. TensorFlow's alpha, which is not
    divided, is alpha_per_window / window_size.
    """

    kind: str = field(default="lrn", init=False)
    name: str
    window_size: int = 5
    alpha_per_window: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def __post_init__(self) -> None:
        require_layer_name(self)
        require_integers(self, "window_size")
        require_odd(self, "window_size")
        require_numbers(self, "alpha_per_window", "beta", "bias")


StemLayer = ConvSpec | PoolSpec | LRNSpec
_STEM_KINDS: dict[str, type] = {"conv": ConvSpec, "pool": PoolSpec, "lrn": LRNSpec}


def stem_layer_from(data: Any) -> Any:
    """Read a layer of the stem from its JSON object, which has the key "kind"."""
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in _STEM_KINDS:
        raise ValueError(
            f'Expected an object whose "kind" is one of {[*_STEM_KINDS]}. Received: {shown(data)}'
        )
    return from_fields(_STEM_KINDS[kind], {k: value for k, value in data.items() if k != "kind"})


@dataclass(frozen=True, kw_only=True)
class AuxSpec:
    """An auxiliary classifier on a module's output (section 5).

    Average pool -> 1x1 convolution -> dense -> ReLU -> dropout -> dense -> softmax.
    `pool` is "valid" for the paper's windows of `pool_size` and `pool_stride`, or "adaptive"
    for torch's adaptive average pool to an output of `pool_size` (its windows start
    at other positions; see docs/variants.md).
    """

    name: str
    after: str
    pool: AuxPool = "valid"
    pool_size: int = 5
    pool_stride: int = 3
    filters: int = 128
    units: int = 1024
    dropout_rate: float = 0.7

    def __post_init__(self) -> None:
        require_layer_name(self)
        require_layer_name(self, "after")
        require_choice(self, "pool", AuxPool)
        require_integers(self, "pool_size", "pool_stride", "filters", "units")
        require_rates(self, "dropout_rate")

    def output_size(self, size: int) -> int:
        """Return the height or width after the average pool; below 1: `size` is too small."""
        if self.pool == "adaptive":
            return self.pool_size
        return (size - self.pool_size) // self.pool_stride + 1

    def require_grid(self, height: int, width: int) -> None:
        """Refuse a grid that is smaller than the window of the pool.

        Raises:
            ValueError: naming this classifier.
        """
        if self.output_size(min(height, width)) < 1:
            raise ValueError(
                f"Expected a grid of at least {self.pool_size}x{self.pool_size} under "
                f"{self.name!r}. Received: {height}x{width} after {self.after!r}. Use a larger "
                'input_shape, variant="small" for 28 to 64 pixels, or auxiliary=False.'
            )


@dataclass(frozen=True, kw_only=True)
class BatchNormSpec:
    """Batch normalization after every convolution; the convolutions then have no bias."""

    scale: bool = True  # gamma; TF-Slim's Inception has none
    momentum: float = 0.99
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        require_flags(self, "scale")
        require_rates(self, "momentum")
        require_numbers(self, "epsilon")
