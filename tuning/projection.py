"""From a point of the search space to modules, kernels and wished widths; `space` fits the budget.

Spec in, spec out: no Keras.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from keras_inception.spec.kernels import kernel_sizes, kernel_text
from keras_inception.spec.layers import ConvSpec, PoolSpec, StemLayer
from keras_inception.spec.module import Branch, BranchConv, BranchSpec, ModuleSpec
from keras_inception.spec.network import NetworkSpec, StageSpec

Value = float | int | str
Values = Mapping[str, Value]
# Names of versions 1 and 2, whose values are base-2 logarithms of these ratios and shares.
_LOG2_NAMES = {"width": "width_ratio", "pool_proj": "share_pool"}


def current_values(values: Values) -> dict[str, Value]:
    """A point of any version in the names and units of this one."""
    return dict(_current(name, value) for name, value in values.items())


def _current(name: str, value: Value) -> tuple[str, Value]:
    group, _, kind = name.rpartition("/")
    if kind in _LOG2_NAMES:
        return f"{group}/{_LOG2_NAMES[kind]}", 2.0 ** float(value)
    if kind.startswith(("reduce_", "odds_")) and not kind.endswith("_ratio"):
        return f"{name}_ratio", 2.0 ** float(value)
    if name == "budget/share":
        return "budget/fraction", 2.0 ** float(value)
    return name, value


def form_of(base: NetworkSpec, values: Values) -> NetworkSpec:
    """The base with the point's modules, kernels and pools; its widths are the base's."""
    stages = []
    for stage in base.stages:
        prefix = f"stage_{stage.name}"
        kernels = str(values.get(f"{prefix}/kernels", own_kernels(stage)))
        modules = modules_with_kernels(stage, kernels)
        depth = int(values.get(f"{prefix}/depth", len(modules)))
        stages.append(replace(stage, modules=_with_depth(stage.name, modules, depth)))
    kept = {module.name for stage in stages for module in stage.modules}
    heads = tuple(head for head in base.aux if head.after in kept)
    return replace(base, stem=_stem_of(base, values), stages=tuple(stages), aux=heads)


def pool_positions(base: NetworkSpec) -> dict[str, str]:
    """The stem's pools, each with the convolution that it follows at some distance."""
    positions: dict[str, str] = {}
    last = None
    for layer in base.stem:
        if isinstance(layer, ConvSpec):
            last = layer.name
        elif isinstance(layer, PoolSpec) and last is not None:
            positions[layer.name] = last
    return positions


def _stem_of(base: NetworkSpec, values: Values) -> tuple[StemLayer, ...]:
    """The stem; each pool that the point moves stands directly after its convolution."""
    layers = list(base.stem)
    for pool, own in pool_positions(base).items():
        after = str(values.get(f"stem/{pool}_after", own))
        if after == own:
            continue
        moved = next(layer for layer in layers if layer.name == pool)
        layers.remove(moved)
        position = next(index for index, layer in enumerate(layers) if layer.name == after)
        layers.insert(position + 1, moved)
    return tuple(layers)


def own_kernels(stage: StageSpec) -> str:
    """The kernel sizes of a stage's first module."""
    return kernel_text(branch.kernel_size for branch in stage.modules[0].spatial)


def modules_with_kernels(stage: StageSpec, kernels: str) -> tuple[ModuleSpec, ...]:
    """A stage's modules, each with branches of these kernel sizes."""
    sizes = kernel_sizes(kernels)
    return tuple(_module_with_kernels(module, sizes) for module in stage.modules)


def _module_with_kernels(module: ModuleSpec, sizes: tuple[int, ...]) -> ModuleSpec:
    """As many spatial filters as before, shared among branches of these kernel sizes.

    A branch of a size that the module has keeps its share; one of another size gets that of the
    module's nearest size.
    """
    own = module.spatial
    if sizes == tuple(branch.kernel_size for branch in own):
        return module
    chosen = [min(own, key=lambda branch: abs(branch.kernel_size - size)) for size in sizes]
    factor = sum(branch.filters for branch in own) / sum(branch.filters for branch in chosen)

    def branch(size: int, like: BranchSpec) -> BranchSpec:
        reduce = None if like.reduce is None else max(1, round(like.reduce * factor))
        return BranchSpec(
            kernel_size=size, reduce=reduce, filters=max(1, round(like.filters * factor))
        )

    return replace(module, spatial=tuple(map(branch, sizes, chosen)))


def _with_depth(stage: str, modules: tuple[ModuleSpec, ...], depth: int) -> tuple[ModuleSpec, ...]:
    """The first `depth` modules; beyond the last one, copies of it."""
    more = [
        replace(modules[-1], name=f"{stage}{string.ascii_lowercase[index]}")
        for index in range(len(modules), depth)
    ]
    return (*modules[:depth], *more)


def without_removed(form: NetworkSpec, values: Values) -> NetworkSpec:
    """The form without the branches whose share is zero."""
    stages = []
    for stage in form.stages:
        share = _shares(stage, values)
        modules = tuple(
            replace(
                module,
                filters_1x1=module.filters_1x1 if share("1x1") else 0,
                filters_pool_proj=module.filters_pool_proj if share("pool") else 0,
            )
            for module in stage.modules
        )
        stages.append(replace(stage, modules=modules))
    return replace(form, stages=tuple(stages))


def _shares(stage: StageSpec, values: Values) -> Callable[[str], float]:
    """The share of a branch by its name; 1 for spatial branches and for a module's only branch."""

    def share(branch: str) -> float:
        if branch not in ("1x1", "pool"):
            return 1.0
        own = ratio(values, f"stage_{stage.name}/share_{branch}")
        others = any(module.spatial for module in stage.modules)
        return own if own or others or branch != "1x1" else 1.0

    return share


def ratio(values: Values, name: str) -> float:
    """A ratio or share of the point; 1 for one that is not given."""
    return float(values.get(name, 1.0))


def target_widths(form: NetworkSpec, values: Values, *, stem: bool) -> dict[str, float]:
    """The widths that the point asks for, by layer name, before the common scale.

    With the form's own widths n (1x1, each spatial branch, projection) and T = the sum of the
    spatial n, a module asks for width_ratio * share_1x1 * n of the 1x1, width_ratio * share_pool *
    n of the projection, and width_ratio * T shared among the spatial branches by n, the first one's
    times its odds ratio. A reduction keeps its share of the module's input channels, times its
    ratio. A share of zero removes the branch, which then has no width.

    Args:
        form: of `form_of`.
        values: of the point.
        stem: whether the stem's width is searched.
    """
    stem_ratio = ratio(values, "stem/width_ratio") if stem else 1.0
    convolutions = [layer for layer in form.stem if isinstance(layer, ConvSpec)]
    targets = {layer.name: layer.filters * stem_ratio for layer in convolutions} if stem else {}
    own_inputs = form.stem_filters
    inputs = own_inputs * (stem_ratio if convolutions else 1.0)
    for stage in form.stages:
        prefix = f"stage_{stage.name}"
        for module in stage.modules:
            branches = module.branches(own_inputs)
            outputs = _output_targets(branches, stage, values)
            targets |= {
                conv.name: outputs[name] for name, conv in _last(branches).items() if outputs[name]
            }
            for branch in branches:
                for reduce in branch.convolutions[:-1]:
                    share = ratio(values, f"{prefix}/reduce_{branch.name}_ratio")
                    targets[reduce.name] = reduce.filters * (share * (inputs / own_inputs))
            unprojected = any(not branch.convolutions for branch in branches)
            own_inputs = module.output_filters(own_inputs)
            inputs = sum(outputs.values()) + (inputs if unprojected else 0)
    return targets


def _output_targets(
    branches: Sequence[Branch], stage: StageSpec, values: Values
) -> dict[str, float]:
    """The widths asked for of the last convolutions of a module's branches, by the branch."""
    prefix, share = f"stage_{stage.name}", _shares(stage, values)
    last = _last(branches)
    spatial = {name: conv.filters for name, conv in last.items() if conv.kernel_size > 1}
    parts = {name: filters * 1.0 for name, filters in spatial.items()}
    for name in list(spatial)[:1]:
        parts[name] *= ratio(values, f"{prefix}/odds_{name}_ratio")
    width = ratio(values, f"{prefix}/width_ratio")
    targets = {}
    for name, conv in last.items():
        if name in parts:
            targets[name] = width * (sum(spatial.values()) * parts[name] / sum(parts.values()))
        else:
            targets[name] = conv.filters * width * share(name)
    return targets


def _last(branches: Sequence[Branch]) -> dict[str, BranchConv]:
    """The last convolution of each branch that has one, by the branch."""
    return {branch.name: branch.convolutions[-1] for branch in branches if branch.convolutions}
