"""The architecture as data: frozen specs, validated, to and from JSON.

A spec is the only place where widths live. It says what a network *is*; what it
costs (`cost`), how it is built (`network`) and how it is trained (`recipe`) are
other rooms. The named networks are in `variants`. Standard library only.

Source: "Going Deeper with Convolutions" (arXiv 1409.4842), sections 4 and 5.

Shapes are channels-last, without the batch: `(height, width, channels)`.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

from keras_inception.spec.validation import (
    is_integer,
    json_document,
    require_choice,
    require_flags,
    require_instance_or_none,
    require_integers,
    require_keys,
    require_layer_name,
    require_numbers,
    require_odd,
    require_rates,
    require_title,
    require_tuple,
    unexpected,
)

SCHEMA_VERSION = 1

# How pixels must look when they enter the network (`preprocessing.CONVENTIONS` applies them).
PixelConvention = Literal["tf", "caffe", "torch", "inception5h"]
# "same" pads like TensorFlow (the odd pixel goes to the bottom and right), "symmetric" pads
# kernel_size // 2 on every side like Caffe and torch: they differ for strided convolutions.
ConvPadding = Literal["same", "symmetric"]
# "ceil" is the rounding of Caffe and of torch's ceil_mode: never padded at the top or left.
# It equals "same" for even sizes only. "valid" rounds down: what no window covers is left out.
PoolPadding = Literal["same", "ceil", "valid"]
AuxPool = Literal["valid", "adaptive"]
# Caffe's "xavier" draws from U(-sqrt(3 / fan_in), sqrt(3 / fan_in)); "he" from N(0, 2 / fan_in).
Initializer = Literal["caffe_xavier", "he"]
# The input's name says the pixel convention, so that it travels inside every saved model.
INPUT_NAME_PREFIX = "pixels_"
# The network's own layers and outputs, and the groups and stages in which `cost` sums.
_RESERVED_NAMES = ("main", "stem", "head", "avg_pool", "max_pool", "dropout", "predictions")
_RESERVED_STAGES = ("stem", "aux", "head")


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
        """Height or width after the convolution of an input of `size`."""
        # Either padding of an odd kernel adds kernel_size - 1 pixels; they differ in where.
        return (size - 1) // self.stride + 1


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
            raise unexpected(self, "size", f"at least its stride, {self.stride}: pixels get lost")

    def output_size(self, size: int) -> int:
        """Height or width after the pool of an input of `size`; below 1: too small."""
        if self.padding == "valid":
            return (size - self.size) // self.stride + 1
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
        require_layer_name(self)
        require_integers(self, "window_size")
        require_odd(self, "window_size")
        require_numbers(self, "alpha_per_window", "beta", "bias")


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
        require_integers(self, "kernel_size", "filters")
        require_odd(self, "kernel_size")
        if self.kernel_size == 1:
            raise ValueError(
                "Expected a spatial branch with a kernel of 3 or more. Received: kernel_size=1. "
                "A 1x1 branch is `ModuleSpec.filters_1x1`."
            )
        if self.reduce is not None:
            require_integers(self, "reduce")


class BranchConv(NamedTuple):
    """A convolution in a branch of a module."""

    name: str  # of the layer: "3a_3x3_reduce"
    suffix: str  # the name without the module's: "3x3_reduce"
    kernel_size: int
    input_filters: int
    filters: int


class Branch(NamedTuple):
    """A branch of a module: a max pool if `pooled`, then the convolutions one after another."""

    name: str  # "1x1", "3x3", "3x3_b", "pool"
    pooled: bool  # begins with a 3x3 max pool of stride 1
    convolutions: tuple[BranchConv, ...]
    output_filters: int


@dataclass(frozen=True, kw_only=True)
class ModuleSpec:
    """One Inception module: branches side by side, concatenated on the channels.

    Attributes:
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
        require_layer_name(self)
        require_integers(self, "filters_1x1", least=0)
        if self.filters_pool_proj is not None:
            require_integers(self, "filters_pool_proj", least=0)
        require_tuple(self, "spatial", BranchSpec)
        if not (self.filters_1x1 or self.spatial or self.filters_pool_proj != 0):
            raise ValueError(
                f"Expected module {self.name!r} to have at least one branch. Received: "
                "filters_1x1=0, spatial=(), filters_pool_proj=0"
            )
        kernel_sizes = [branch.kernel_size for branch in self.spatial]
        if any(kernel_sizes.count(size) > len(string.ascii_lowercase) for size in kernel_sizes):
            raise ValueError(
                f"Expected at most 26 branches of one kernel size in module {self.name!r}, one a "
                f"letter. Received: kernel sizes {kernel_sizes}"
            )

    @property
    def spatial_names(self) -> tuple[str, ...]:
        """Names of the spatial branches: "3x3", "5x5"; a repeated kernel gets "3x3_b", "3x3_c"."""
        names: list[str] = []
        for branch in self.spatial:
            size = f"{branch.kernel_size}x{branch.kernel_size}"
            repeats = sum(name.startswith(size) for name in names)
            names.append(size if not repeats else f"{size}_{string.ascii_lowercase[repeats]}")
        return tuple(names)

    def branches(self, input_filters: int) -> tuple[Branch, ...]:
        """The branches in the order of concatenation, for an input of `input_filters` channels."""

        def branch(name: str, *steps: tuple[str, int, int], pooled: bool = False) -> Branch:
            channels, convolutions = input_filters, []
            for suffix, kernel_size, filters in steps:
                layer_name = f"{self.name}_{suffix}"
                convolutions.append(BranchConv(layer_name, suffix, kernel_size, channels, filters))
                channels = filters
            return Branch(name, pooled, tuple(convolutions), channels)

        found = []
        if self.filters_1x1:
            found.append(branch("1x1", ("1x1", 1, self.filters_1x1)))
        for name, spatial in zip(self.spatial_names, self.spatial, strict=True):
            reduce = () if spatial.reduce is None else ((f"{name}_reduce", 1, spatial.reduce),)
            found.append(branch(name, *reduce, (name, spatial.kernel_size, spatial.filters)))
        if self.filters_pool_proj is None:
            found.append(branch("pool", pooled=True))
        elif self.filters_pool_proj:
            found.append(branch("pool", ("pool_proj", 1, self.filters_pool_proj), pooled=True))
        return tuple(found)

    def output_filters(self, input_filters: int) -> int:
        """Channels after the concatenation, for an input of `input_filters` channels."""
        return sum(branch.output_filters for branch in self.branches(input_filters))

    def widths(self) -> dict[str, int]:
        """Filters of every convolution by its suffix: {"1x1": 64, "3x3_reduce": 96, ...}."""
        # Widths do not depend on the input.
        return {conv.suffix: conv.filters for b in self.branches(1) for conv in b.convolutions}

    def with_widths(self, widths: Mapping[str, int]) -> ModuleSpec:
        """The same module with the widths named in `widths`; the inverse of `widths()`.

        Raises:
            ValueError: a width of a convolution that the module does not have.
        """
        own = self.widths()
        unknown = sorted(widths.keys() - own.keys())
        if unknown:
            raise ValueError(
                f"Expected widths of module {self.name!r} among {', '.join(own)}. "
                f"Received: {unknown}"
            )
        own |= widths
        return replace(
            self,
            filters_1x1=own.get("1x1", 0),
            spatial=tuple(
                replace(branch, reduce=own.get(f"{name}_reduce"), filters=own[name])
                for name, branch in zip(self.spatial_names, self.spatial, strict=True)
            ),
            filters_pool_proj=own.get("pool_proj", self.filters_pool_proj),
        )


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """The modules at one grid size, and the downsample before them (None: the stem did it)."""

    name: str
    downsample: PoolSpec | None
    modules: tuple[ModuleSpec, ...]

    def __post_init__(self) -> None:
        require_layer_name(self)
        require_instance_or_none(self, "downsample", PoolSpec)
        require_tuple(self, "modules", ModuleSpec)
        if not self.modules:
            raise ValueError(
                f"Expected stage {self.name!r} to have at least one module. Received: modules=()"
            )
        if self.name in _RESERVED_STAGES:
            raise ValueError(
                f"Expected a stage under another name than {_RESERVED_STAGES}, under which costs "
                f"are summed. Received: name={self.name!r}"
            )


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
    pool: AuxPool = "valid"
    pool_size: int = 5
    pool_stride: int = 3
    filters: int = 128
    units: int = 1024
    dropout_rate: float = 0.7

    def __post_init__(self) -> None:
        require_layer_name(self)
        require_choice(self, "pool", AuxPool)
        require_integers(self, "pool_size", "pool_stride", "filters", "units")
        require_rates(self, "dropout_rate")

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
        require_flags(self, "scale")
        require_rates(self, "momentum")
        require_numbers(self, "epsilon")


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A whole network: stem, stages of modules, auxiliary classifiers, head.

    Attributes:
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
        require_title(self)
        require_tuple(self, "stem", ConvSpec, PoolSpec, LRNSpec)
        require_tuple(self, "stages", StageSpec)
        require_tuple(self, "aux", AuxSpec)
        require_instance_or_none(self, "batch_norm", BatchNormSpec)
        require_integers(self, "classes")
        require_rates(self, "dropout_rate")
        require_choice(self, "pixels", PixelConvention)
        require_choice(self, "initializer", Initializer)
        require_numbers(self, "bias_initial_value", positive=False)
        self._check_input_shape()
        if not self.stages:
            raise ValueError("Expected at least one stage of modules. Received: stages=()")
        self._check_names()
        self._check_aux()

    def _check_input_shape(self) -> None:
        shape = self.input_shape
        sizes = shape if isinstance(shape, tuple) else ()
        if len(sizes) != 3 or not all(size is None or _is_size(size) for size in sizes):
            expected = (
                "a tuple (height, width, channels) of positive integers, height and width possibly "
                "None"
            )
            raise unexpected(self, "input_shape", expected)
        if sizes[2] is None:
            raise unexpected(self, "input_shape", "a tuple with a number of channels")

    def _check_names(self) -> None:
        module_names = [module.name for module in self.modules]
        names = [layer.name for layer in self.stem] + module_names
        names += [stage.downsample.name for stage in self.stages if stage.downsample]
        names += [aux.name for aux in self.aux]
        stage_names = [stage.name for stage in self.stages]
        repeated = _repeated([*names, *_RESERVED_NAMES, self.input_name]) + _repeated(stage_names)
        if repeated:
            raise ValueError(
                "Expected different names, and none of the network's own "
                f"({', '.join(_RESERVED_NAMES)}). Received more than once: {repeated}"
            )
        for module_name in module_names:
            parts = [name for name in names if name.startswith(f"{module_name}_")]
            if parts:
                raise ValueError(
                    f"Expected no name to begin with {module_name + '_'!r}: so begin the layers "
                    f"of module {module_name!r}. Received: {parts}"
                )

    def _check_aux(self) -> None:
        module_names = [module.name for module in self.modules]
        for aux in self.aux:
            if aux.after not in module_names:
                raise ValueError(
                    f"Expected auxiliary classifier {aux.name!r} after one of the modules "
                    f"{module_names}. Received: after={aux.after!r}"
                )
        crowded = _repeated([aux.after for aux in self.aux])
        if crowded:
            raise ValueError(
                "Expected at most one auxiliary classifier after a module. Received more than "
                f"one after: {crowded}"
            )

    @property
    def modules(self) -> tuple[ModuleSpec, ...]:
        """All modules, from the input upwards."""
        return tuple(module for stage in self.stages for module in stage.modules)

    @property
    def stem_filters(self) -> int:
        """Channels that the stem gives to the first module."""
        convolutions = [layer.filters for layer in self.stem if isinstance(layer, ConvSpec)]
        return [self.input_shape[2], *convolutions][-1]

    def module_inputs(self) -> dict[str, int]:
        """Channels that each module reads, by the module's name."""
        channels = self.stem_filters
        inputs = {}
        for module in self.modules:
            inputs[module.name] = channels
            channels = module.output_filters(channels)
        return inputs

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
        return _network_from(json_document(text, "spec", SCHEMA_VERSION))


def _network_from(data: dict[str, Any]) -> NetworkSpec:
    require_keys(NetworkSpec, data)
    return NetworkSpec(
        **data
        | {
            "input_shape": tuple(_items(NetworkSpec, data, "input_shape")),
            "stem": tuple(_stem_layer_from(layer) for layer in _items(NetworkSpec, data, "stem")),
            "stages": tuple(_stage_from(stage) for stage in _items(NetworkSpec, data, "stages")),
            "aux": tuple(_from(AuxSpec, aux) for aux in _items(NetworkSpec, data, "aux")),
            "batch_norm": None
            if data["batch_norm"] is None
            else _from(BatchNormSpec, data["batch_norm"]),
        }
    )


def _stage_from(data: Any) -> StageSpec:
    require_keys(StageSpec, data)
    downsample = data["downsample"]
    return StageSpec(
        name=data["name"],
        downsample=None if downsample is None else _stem_layer_from(downsample),
        modules=tuple(_module_from(module) for module in _items(StageSpec, data, "modules")),
    )


def _module_from(data: Any) -> ModuleSpec:
    require_keys(ModuleSpec, data)
    branches = _items(ModuleSpec, data, "spatial")
    return ModuleSpec(**data | {"spatial": tuple(_from(BranchSpec, item) for item in branches)})


def _stem_layer_from(data: Any) -> Any:
    kinds = {"conv": ConvSpec, "pool": PoolSpec, "lrn": LRNSpec}
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(
            f'Expected an object whose "kind" is one of {[*kinds]}. Received: {data!r}'
        )
    return _from(kinds[kind], {key: value for key, value in data.items() if key != "kind"})


def _from(cls: type, data: Any) -> Any:
    require_keys(cls, data)
    return cls(**data)


def _items(cls: type, data: Mapping[str, Any], label: str) -> list[Any]:
    if not isinstance(data[label], list):
        raise ValueError(
            f"Expected `{label}` of {cls.__name__} to be a list. Received: {label}={data[label]!r}"
        )
    return data[label]


def _is_size(value: Any) -> bool:
    return is_integer(value) and value > 0


def _repeated(names: list[Any]) -> list[Any]:
    return sorted({name for name in names if names.count(name) > 1})
