"""An Inception module as data, and the one walk over its convolutions.

Everything that builds, counts, converts or scales a module reads `ModuleSpec.branches`.

Source: "Going Deeper with Convolutions" (arXiv 1409.4842), section 4. Standard library only.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from keras_inception.bounded import shown
from keras_inception.spec.validation import (
    from_fields,
    object_of,
    require_integers,
    require_layer_name,
    require_odd,
    require_tuple,
    tuple_of,
)


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
    """One Inception module: parallel branches, concatenated on the channels.

    Attributes:
        name: the paper's name, such as "3a"; also the endpoint of the module's output.
        filters_1x1: filters of the 1x1 branch; 0 omits the branch.
        spatial: the spatial branches, in the order of concatenation.
        filters_pool_proj: filters of the 1x1 projection after the 3x3 max pool of stride 1.
            None concatenates the pooled channels (naive, figure 2a); 0 omits the branch.
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
        if max(Counter(kernel_sizes).values(), default=0) > len(string.ascii_lowercase):
            raise ValueError(
                f"Expected at most 26 branches of one kernel size in module {self.name!r}, one per "
                f"letter. Received: kernel sizes {shown(kernel_sizes)}"
            )

    @property
    def spatial_names(self) -> tuple[str, ...]:
        """Names of the spatial branches: "3x3", "5x5"; a repeated kernel gets "3x3_b", "3x3_c"."""
        names: list[str] = []
        repeats: Counter[int] = Counter()
        for branch in self.spatial:
            size = f"{branch.kernel_size}x{branch.kernel_size}"
            count = repeats[branch.kernel_size]
            names.append(f"{size}_{string.ascii_lowercase[count]}" if count else size)
            repeats[branch.kernel_size] += 1
        return tuple(names)

    def branches(self, input_filters: int) -> tuple[Branch, ...]:
        """Return the branches in the order of concatenation, for `input_filters` input channels."""

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
        """Return the channels after the concatenation, for `input_filters` input channels."""
        return sum(branch.output_filters for branch in self.branches(input_filters))

    def widths(self) -> dict[str, int]:
        """Return the filters of every convolution: {"1x1": 64, "3x3_reduce": 96, ...}."""
        # Widths do not depend on the input.
        return {conv.suffix: conv.filters for b in self.branches(1) for conv in b.convolutions}

    def with_widths(self, widths: Mapping[str, int]) -> ModuleSpec:
        """Return the module with the widths in `widths`; the inverse of `widths()`.

        Raises:
            ValueError: if the module has no convolution of a name in `widths`.
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


def module_from(data: Any) -> ModuleSpec:
    """Read a module from its JSON object."""
    return from_fields(ModuleSpec, data, spatial=tuple_of(object_of(BranchSpec)))
