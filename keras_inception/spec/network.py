"""A whole network as data: frozen specs, validated, to and from JSON.

A spec is the only place where widths live. It says what a network *is*; what it costs (`cost`),
how it is built (`network`) and how it is trained (`spec.recipe`) is elsewhere. The named networks
are in `variants`. The parts are imported from here too. Standard library only.

Source: "Going Deeper with Convolutions" (arXiv 1409.4842), sections 4 and 5.

Shapes are channels-last, without the batch: `(height, width, channels)`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from keras_inception.bounded import shown
from keras_inception.spec.layers import (
    AuxPool,
    AuxSpec,
    BatchNormSpec,
    ConvPadding,
    ConvSpec,
    LRNSpec,
    PoolPadding,
    PoolSpec,
    StemLayer,
    stem_layer_from,
)
from keras_inception.spec.module import Branch, BranchConv, BranchSpec, ModuleSpec, module_from
from keras_inception.spec.validation import (
    MOST,
    Migrations,
    from_fields,
    is_integer,
    json_document,
    object_of,
    optional,
    repeated,
    require_choice,
    require_instance_or_none,
    require_integers,
    require_layer_name,
    require_numbers,
    require_rates,
    require_title,
    require_tuple,
    tuple_of,
    unexpected,
)

__all__ = [
    "AuxPool",
    "AuxSpec",
    "BatchNormSpec",
    "Branch",
    "BranchConv",
    "BranchSpec",
    "ConvPadding",
    "ConvSpec",
    "Initializer",
    "LRNSpec",
    "ModuleSpec",
    "NetworkSpec",
    "PixelConvention",
    "PoolPadding",
    "PoolSpec",
    "StageSpec",
    "StemLayer",
]

SCHEMA_VERSION = 1
MIGRATIONS: Migrations = {}

# How pixels must look when they enter the network (`preprocessing.CONVENTIONS` applies them).
PixelConvention = Literal["tf", "caffe", "torch", "inception5h"]
# Caffe's "xavier" draws from U(-sqrt(3 / fan_in), sqrt(3 / fan_in)); "he" from N(0, 2 / fan_in).
Initializer = Literal["caffe_xavier", "he"]
# The input's name says the pixel convention, so that it travels inside every saved model.
INPUT_NAME_PREFIX = "pixels_"
# The network's own layers and outputs, and the groups and stages in which `cost` sums.
_RESERVED_NAMES = ("main", "stem", "head", "avg_pool", "max_pool", "predictions")
_RESERVED_STAGES = ("stem", "aux", "head")


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """The modules at one grid size, and the downsample before them (None: part of the stem)."""

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
        again = repeated([*names, *_RESERVED_NAMES, self.input_name]) + repeated(stage_names)
        if again:
            raise ValueError(
                "Expected different names, and none of the network's own "
                f"({', '.join(_RESERVED_NAMES)}). Received more than once: {shown(again)}"
            )
        modules = set(module_names)
        for name in names:
            for prefix in modules.intersection(_prefixes(name)):
                raise ValueError(
                    f"Expected no name with the prefix {prefix + '_'!r}, which is that of "
                    f"the layers of module {prefix!r}. Received: {[name]}"
                )

    def _check_aux(self) -> None:
        module_names = {module.name: None for module in self.modules}
        for aux in self.aux:
            if aux.after not in module_names:
                raise ValueError(
                    f"Expected auxiliary classifier {aux.name!r} after one of the modules "
                    f"{shown([*module_names])}. Received: after={aux.after!r}"
                )
        crowded = repeated([aux.after for aux in self.aux])
        if crowded:
            raise ValueError(
                "Expected at most one auxiliary classifier after a module. Received more than "
                f"one after: {crowded}"
            )

    @property
    def modules(self) -> tuple[ModuleSpec, ...]:
        """All modules, from the input to the head."""
        return tuple(module for stage in self.stages for module in stage.modules)

    @property
    def stem_filters(self) -> int:
        """Channels of the stem's output."""
        convolutions = [layer.filters for layer in self.stem if isinstance(layer, ConvSpec)]
        return [self.input_shape[2], *convolutions][-1]

    def module_inputs(self) -> dict[str, int]:
        """Return the input channels of each module by name."""
        channels = self.stem_filters
        inputs = {}
        for module in self.modules:
            inputs[module.name] = channels
            channels = module.output_filters(channels)
        return inputs

    @property
    def total_stride(self) -> int:
        """Input pixels per position of the last grid."""
        stride = 1
        for layer in self._pools_and_convolutions():
            stride *= layer.stride
        return stride

    @property
    def min_size(self) -> int:
        """The fewest pixels of a side that leave one position of the last grid.

        1 where every layer pads as TensorFlow's "same" does.
        """
        size = 1
        for layer in reversed(list(self._pools_and_convolutions())):
            size = layer.least_input(size)
        return size

    def require_min_size(self) -> None:
        """Refuse an input height or width, where it is fixed, below `min_size`.

        Raises:
            ValueError: naming this network.
        """
        least = self.min_size
        if any(size is not None and size < least for size in self.input_shape[:2]):
            raise ValueError(
                f"Expected an input of at least {least}x{least} pixels for {self.name!r}. "
                f"Received: input_shape={self.input_shape}. "
                'For 28 to 64 pixels there is variant="small".'
            )

    @property
    def input_name(self) -> str:
        """Name of the network's input, "pixels_" and the pixel convention."""
        return INPUT_NAME_PREFIX + self.pixels

    def _pools_and_convolutions(self) -> Iterator[ConvSpec | PoolSpec]:
        yield from (layer for layer in self.stem if not isinstance(layer, LRNSpec))
        yield from (stage.downsample for stage in self.stages if stage.downsample)

    def with_size(self, size: int) -> NetworkSpec:
        """Return the same network for square images of `size` pixels."""
        return replace(self, input_shape=(size, size, self.input_shape[2]))

    def map_modules(self, change: Mapping[str, ModuleSpec]) -> NetworkSpec:
        """Return the network with the modules named in `change` replaced."""
        stages = tuple(
            replace(stage, modules=tuple(change.get(m.name, m) for m in stage.modules))
            for stage in self.stages
        )
        return replace(self, stages=stages)

    def to_json(self) -> str:
        """Return JSON text with a schema version; `from_json` restores an equal spec."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> NetworkSpec:
        """Read the JSON of this or an older schema version; fields with defaults may be missing.

        Raises:
            ValueError: not JSON, a newer schema version, missing or unknown keys, or invalid
                values.
        """
        return from_fields(
            cls,
            json_document(text, "spec", SCHEMA_VERSION, MIGRATIONS),
            input_shape=tuple_of(),
            stem=tuple_of(stem_layer_from),
            stages=tuple_of(_stage_from),
            aux=tuple_of(object_of(AuxSpec)),
            batch_norm=optional(object_of(BatchNormSpec)),
        )


def _stage_from(data: Any) -> StageSpec:
    return from_fields(
        StageSpec, data, downsample=optional(stem_layer_from), modules=tuple_of(module_from)
    )


def _is_size(value: Any) -> bool:
    return is_integer(value) and 0 < value <= MOST


def _prefixes(name: str) -> Iterator[str]:
    """Yield what is before each underscore of a name."""
    for place, letter in enumerate(name):
        if letter == "_":
            yield name[:place]
