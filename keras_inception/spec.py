"""The architecture as data: frozen specs, validated, to and from JSON.

A spec is the only place where widths live. It says what a network *is*; what it
costs (`cost`), how it is built (`network`) and how it is trained (`recipe`) are
other rooms. The named networks are in `variants`. Standard library only.

Source: "Going Deeper with Convolutions" (arXiv 1409.4842), sections 4 and 5.

Shapes are channels-last, without the batch: `(height, width, channels)`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

SCHEMA_VERSION = 1

# How pixels must look when they enter the network (`preprocessing.CONVENTIONS` applies them).
PixelConvention = Literal["tf", "caffe", "torch", "inception5h"]
# "same" pads like TensorFlow (the odd pixel goes to the bottom and right), "symmetric" pads
# kernel_size // 2 on every side like Caffe and torch: they differ for strided convolutions.
ConvPadding = Literal["same", "symmetric"]
# "ceil" is the rounding of Caffe and of torch's ceil_mode: never padded at the top or left.
# It equals "same" for even sizes only.
PoolPadding = Literal["same", "ceil"]
# Caffe's "xavier" draws from U(-sqrt(3 / fan_in), sqrt(3 / fan_in)); "he" from N(0, 2 / fan_in).
Initializer = Literal["caffe_xavier", "he"]
# The input's name says the pixel convention, so that it travels inside every saved model.
INPUT_NAME_PREFIX = "pixels_"


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
        _require_positive(self, "filters", "kernel_size", "stride")
        _require_odd(self.kernel_size, f"kernel_size of convolution {self.name!r}")
        _require_choice(self, "padding", ConvPadding)

    def output_size(self, size: int) -> int:
        """Height or width after the convolution of an input of `size`."""
        padding = (
            2 * (self.kernel_size // 2) if self.padding == "symmetric" else self.kernel_size - 1
        )
        return (size + padding - self.kernel_size) // self.stride + 1


@dataclass(frozen=True, kw_only=True)
class PoolSpec:
    """A max pool, in the stem or as the downsample between two stages."""

    kind: str = field(default="pool", init=False)
    name: str
    size: int = 3
    stride: int = 2
    padding: PoolPadding = "same"

    def __post_init__(self) -> None:
        _require_positive(self, "size", "stride")
        _require_choice(self, "padding", PoolPadding)

    def output_size(self, size: int) -> int:
        """Height or width after the pool of an input of `size`."""
        covered = size if self.padding == "same" else size - self.size + self.stride
        return -(-covered // self.stride)


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
        _require_positive(self, "window_size", "alpha_per_window", "beta", "bias")
        _require_odd(self.window_size, f"window_size of {self.name!r}")


StemLayer = ConvSpec | PoolSpec | LRNSpec


@dataclass(frozen=True, kw_only=True)
class BranchSpec:
    """A spatial branch of a module: a 1x1 reduction, then a convolution of any odd size.

    `reduce` is None in the naive module (figure 2a): no reduction.
    """

    kernel_size: int
    reduce: int | None
    filters: int

    def __post_init__(self) -> None:
        _require_positive(self, "kernel_size", "filters")
        _require_odd(self.kernel_size, "kernel_size of a spatial branch")
        if self.kernel_size == 1:
            raise ValueError(
                "Expected a spatial branch with a kernel of 3 or more. Received: kernel_size=1. "
                "A 1x1 branch is `ModuleSpec.filters_1x1`."
            )
        if self.reduce is not None:
            _require_positive(self, "reduce")


@dataclass(frozen=True, kw_only=True)
class ModuleSpec:
    """One Inception module: branches side by side, concatenated on the channels.

    Fields:
        name: the paper's name, such as "3a"; also the endpoint of the module's output.
        filters_1x1: filters of the 1x1 branch; 0 leaves the branch out.
        spatial: the spatial branches, in the order of concatenation.
        filters_pool_proj: filters of the 1x1 projection after the 3x3 max pool of stride 1.
            None passes the pooled channels on (naive, figure 2a); 0 leaves the branch out.
    """

    name: str
    filters_1x1: int
    spatial: tuple[BranchSpec, ...]
    filters_pool_proj: int | None

    def __post_init__(self) -> None:
        _require_name(self.name)
        for label in ("filters_1x1", "filters_pool_proj"):
            value = getattr(self, label)
            if value is not None and not (_is_int(value) and value >= 0):
                raise ValueError(
                    f"Expected `{label}` of module {self.name!r} to be an integer of 0 or more. "
                    f"Received: {label}={value!r}"
                )
        if not (self.filters_1x1 or self.spatial or self.filters_pool_proj != 0):
            raise ValueError(f"Expected module {self.name!r} to have at least one branch.")

    @property
    def spatial_names(self) -> tuple[str, ...]:
        """Names of the spatial branches: "3x3", "5x5"; a repeated kernel gets "3x3_b", "3x3_c"."""
        names: list[str] = []
        for branch in self.spatial:
            size = f"{branch.kernel_size}x{branch.kernel_size}"
            repeats = sum(name.startswith(size) for name in names)
            names.append(size if not repeats else f"{size}_{'abcdefghij'[repeats]}")
        return tuple(names)

    def output_filters(self, input_filters: int) -> int:
        """Channels after the concatenation, for an input of `input_filters` channels."""
        pooled = input_filters if self.filters_pool_proj is None else self.filters_pool_proj
        return self.filters_1x1 + sum(branch.filters for branch in self.spatial) + pooled


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """The modules at one grid size, and the downsample before them (None: the stem did it)."""

    name: str
    downsample: PoolSpec | None
    modules: tuple[ModuleSpec, ...]

    def __post_init__(self) -> None:
        if not self.modules:
            raise ValueError(f"Expected stage {self.name!r} to have at least one module.")


@dataclass(frozen=True, kw_only=True)
class AuxSpec:
    """An auxiliary classifier on a module's output (section 5).

    Average pool -> 1x1 convolution -> dense -> ReLU -> dropout -> dense -> softmax.
    `pool` is "valid" for the paper's windows of `pool_size` and `pool_stride`, or "adaptive"
    for torch's adaptive average pool to an output of `pool_size` (its windows start
    elsewhere: facts are in docs/design.md).
    """

    name: str
    after: str
    pool: Literal["valid", "adaptive"] = "valid"
    pool_size: int = 5
    pool_stride: int = 3
    filters: int = 128
    units: int = 1024
    dropout_rate: float = 0.7

    def __post_init__(self) -> None:
        _require_name(self.name)
        _require_positive(self, "pool_size", "pool_stride", "filters", "units")
        _require_rate(self, "dropout_rate")
        if self.pool not in ("valid", "adaptive"):
            raise ValueError(f'Expected `pool` "valid" or "adaptive". Received: pool={self.pool!r}')

    def output_size(self, size: int) -> int:
        """Height or width after the average pool of an input of `size`; below 1: too small."""
        if self.pool == "adaptive":
            return self.pool_size
        return (size - self.pool_size) // self.pool_stride + 1


@dataclass(frozen=True, kw_only=True)
class BatchNormSpec:
    """Batch normalization after every convolution; the convolutions then have no bias."""

    scale: bool = True  # gamma; TF-Slim's Inception has none
    momentum: float = 0.99
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        _require_rate(self, "momentum")
        _require_positive(self, "epsilon")


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A whole network: stem, stages of modules, auxiliary classifiers, head.

    Fields:
        input_shape: (height, width, channels); height and width may be None.
        stem: every layer before the first module, in order. It may be the first
            convolution alone: the paper calls its traditional stem "not strictly necessary".
        batch_norm: None gives convolutions with biases, as in the paper.
        dropout_rate: of the head, before the classifier.
        pixels: the pixel convention the network is trained or was released with.
    """

    name: str
    input_shape: tuple[int | None, int | None, int]
    stem: tuple[StemLayer, ...]
    stages: tuple[StageSpec, ...]
    aux: tuple[AuxSpec, ...] = ()
    batch_norm: BatchNormSpec | None = None
    dropout_rate: float = 0.4
    classes: int = 1000
    pixels: PixelConvention = "tf"
    initializer: Initializer = "he"
    bias_initial_value: float = 0.0  # Caffe's quick solver starts biases at .2

    def __post_init__(self) -> None:
        _require_positive(self, "classes")
        _require_rate(self, "dropout_rate")
        _require_choice(self, "pixels", PixelConvention)
        _require_choice(self, "initializer", Initializer)
        shape = self.input_shape
        if len(shape) != 3 or not all(n is None or (_is_int(n) and n > 0) for n in shape):
            raise ValueError(
                "Expected `input_shape` as (height, width, channels) of positive integers, height "
                f"and width possibly None. Received: input_shape={shape!r}"
            )
        if shape[2] is None:
            raise ValueError(f"Expected a number of channels. Received: input_shape={shape!r}")
        if not self.stages:
            raise ValueError("Expected at least one stage of modules. Received: stages=()")
        module_names = [module.name for module in self.modules]
        names = [layer.name for layer in self.stem] + module_names
        names += [stage.downsample.name for stage in self.stages if stage.downsample]
        names += [aux.name for aux in self.aux] + ["predictions"]
        for name in names:
            _require_name(name)
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"Expected different names. Received more than once: {repeated}")
        for aux in self.aux:
            if aux.after not in module_names:
                raise ValueError(
                    f"Expected auxiliary classifier {aux.name!r} after one of the modules "
                    f"{module_names}. Received: after={aux.after!r}"
                )

    @property
    def modules(self) -> tuple[ModuleSpec, ...]:
        """All modules, from the input upwards."""
        return tuple(module for stage in self.stages for module in stage.modules)

    @property
    def total_stride(self) -> int:
        """Input pixels per position of the last grid; also the smallest input height and width."""
        stride = 1
        for layer in self._pools_and_convolutions():
            stride *= layer.stride
        return stride

    @property
    def input_name(self) -> str:
        """Name of the network's input, "pixels_" and the pixel convention."""
        return INPUT_NAME_PREFIX + self.pixels

    def _pools_and_convolutions(self) -> Iterator[ConvSpec | PoolSpec]:
        yield from (layer for layer in self.stem if not isinstance(layer, LRNSpec))
        yield from (stage.downsample for stage in self.stages if stage.downsample)

    def map_modules(self, change: Mapping[str, ModuleSpec]) -> NetworkSpec:
        """The same network with the modules named in `change` replaced."""
        stages = tuple(
            replace(stage, modules=tuple(change.get(m.name, m) for m in stage.modules))
            for stage in self.stages
        )
        return replace(self, stages=stages)

    def to_json(self) -> str:
        """JSON text with a schema version; `from_json` gives an equal spec back."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> NetworkSpec:
        """Read what `to_json` wrote.

        Raises:
            ValueError: not JSON, another schema version, missing or unknown keys, or values
                that the spec refuses.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"Expected the JSON of a spec. Received text that is not: {error}"
            ) from error
        if not isinstance(data, dict) or data.pop("schema_version", None) != SCHEMA_VERSION:
            raise ValueError(
                f"Expected a spec with schema_version {SCHEMA_VERSION}. Received another document "
                "or version. Write it again with `NetworkSpec.to_json` of this release."
            )
        return _network_from(data)


def _network_from(data: dict[str, Any]) -> NetworkSpec:
    _require_keys(NetworkSpec, data)
    stages = []
    for stage in data["stages"]:
        _require_keys(StageSpec, stage)
        downsample = stage["downsample"] and _stem_layer_from(stage["downsample"])
        modules = tuple(_module_from(module) for module in stage["modules"])
        stages.append(StageSpec(name=stage["name"], downsample=downsample, modules=modules))
    return NetworkSpec(
        **data
        | {
            "input_shape": tuple(data["input_shape"]),
            "stem": tuple(_stem_layer_from(layer) for layer in data["stem"]),
            "stages": tuple(stages),
            "aux": tuple(_from(AuxSpec, aux) for aux in data["aux"]),
            "batch_norm": data["batch_norm"] and _from(BatchNormSpec, data["batch_norm"]),
        }
    )


def _module_from(data: dict[str, Any]) -> ModuleSpec:
    spatial = tuple(_from(BranchSpec, branch) for branch in data.get("spatial", ()))
    return _from(ModuleSpec, data | {"spatial": spatial})


def _stem_layer_from(data: dict[str, Any]) -> Any:
    kinds = {"conv": ConvSpec, "pool": PoolSpec, "lrn": LRNSpec}
    kind = data.get("kind")
    if kind not in kinds:
        raise ValueError(f"Expected a stem layer of kind {sorted(kinds)}. Received: kind={kind!r}")
    return _from(kinds[kind], {key: value for key, value in data.items() if key != "kind"})


def _from(cls: type, data: dict[str, Any]) -> Any:
    _require_keys(cls, data)
    return cls(**data)


def _require_keys(cls: type, data: Mapping[str, Any]) -> None:
    expected = {item.name for item in fields(cls) if item.init}
    missing, unknown = sorted(expected - set(data)), sorted(set(data) - expected)
    if missing or unknown:
        raise ValueError(
            f"Expected the keys of {cls.__name__}. Received: missing keys {missing}, "
            f"unknown keys {unknown}"
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_positive(owner: object, *labels: str) -> None:
    hints = {item.name: item.type for item in fields(owner)}  # type: ignore[arg-type]
    for label in labels:
        value = getattr(owner, label)
        whole = "float" not in str(hints[label])
        if not (_is_int(value) or (not whole and isinstance(value, float))) or value <= 0:
            kind = "integer" if whole else "number"
            raise ValueError(
                f"Expected `{label}` of {type(owner).__name__} to be a positive {kind}. "
                f"Received: {label}={value!r}"
            )


def _require_odd(size: int, what: str) -> None:
    if size % 2 == 0:
        raise ValueError(f"Expected an odd {what}, so that it has a centre. Received: {size}")


def _require_rate(owner: object, label: str) -> None:
    value = getattr(owner, label)
    if not (isinstance(value, int | float) and 0 <= value < 1):
        raise ValueError(
            f"Expected `{label}` of {type(owner).__name__} from 0 up to, not including, 1. "
            f"Received: {label}={value!r}"
        )


def _require_choice(owner: object, label: str, choices: Any) -> None:
    value = getattr(owner, label)
    if value not in get_args(choices):
        raise ValueError(
            f"Expected `{label}` of {type(owner).__name__} to be one of {get_args(choices)}. "
            f"Received: {label}={value!r}"
        )


def _require_name(name: str) -> None:
    # Keras forbids "/" in layer names; a module's layers are named after it with "_".
    if not isinstance(name, str) or not name.replace("_", "").isalnum() or not name.isascii():
        raise ValueError(
            "Expected a name of ASCII letters, digits and underscores, since Keras layers are "
            f"named after it. Received: {name!r}"
        )
