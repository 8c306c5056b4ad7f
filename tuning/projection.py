"""From a point of the search space to modules, kernels and wished widths; `space` fits the budget.

Spec in, spec out: no Keras.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from keras_inception.spec.kernels import kernel_sizes, kernel_text
from keras_inception.spec.layers import ConvSpec
from keras_inception.spec.module import Branch, BranchConv, BranchSpec, ModuleSpec
from keras_inception.spec.network import NetworkSpec, StageSpec

Value = float | int | str
Values = Mapping[str, Value]


def form_of(base: NetworkSpec, values: Values) -> NetworkSpec:
    """The base with the point's modules and kernels; its widths are the base's."""
    stages = []
    for stage in base.stages:
        prefix = f"stage_{stage.name}"
        kernels = str(values.get(f"{prefix}/kernels", own_kernels(stage)))
        modules = modules_with_kernels(stage, kernels)
        depth = int(values.get(f"{prefix}/depth", len(modules)))
        stages.append(replace(stage, modules=_with_depth(stage.name, modules, depth)))
    kept = {module.name for stage in stages for module in stage.modules}
    heads = tuple(head for head in base.aux if head.after in kept)
    return replace(base, stages=tuple(stages), aux=heads)


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


def ratio(values: Values, name: str) -> float:
    """The ratio that a log2 ratio stands for; 1 for one that is not given."""
    return 2.0 ** float(values.get(name, 0.0))


def target_widths(form: NetworkSpec, values: Values, *, stem: bool) -> dict[str, float]:
    """The widths that the point asks for, by layer name, before the common scale.

    With the form's own widths n (1x1, each spatial branch, projection) and T = the sum of the
    spatial n, a module asks for width * n of the 1x1, width * pool_proj * n of the projection, and
    width * T shared among the spatial branches by n, the first one's times its odds. A reduction
    keeps its share of the module's input channels, times its ratio.

    Args:
        form: of `form_of`.
        values: of the point.
        stem: whether the stem's width is searched.
    """
    stem_ratio = ratio(values, "stem/width") if stem else 1.0
    convolutions = [layer for layer in form.stem if isinstance(layer, ConvSpec)]
    targets = {layer.name: layer.filters * stem_ratio for layer in convolutions} if stem else {}
    own_inputs = form.stem_filters
    inputs = own_inputs * (stem_ratio if convolutions else 1.0)
    for stage in form.stages:
        prefix = f"stage_{stage.name}"
        for module in stage.modules:
            branches = module.branches(own_inputs)
            outputs = _output_targets(branches, prefix, lambda name: ratio(values, name))
            targets |= {conv.name: outputs[name] for name, conv in _last(branches).items()}
            for branch in branches:
                for reduce in branch.convolutions[:-1]:
                    share = ratio(values, f"{prefix}/reduce_{branch.name}")
                    targets[reduce.name] = reduce.filters * (share * (inputs / own_inputs))
            unprojected = any(not branch.convolutions for branch in branches)
            own_inputs = module.output_filters(own_inputs)
            inputs = sum(outputs.values()) + (inputs if unprojected else 0)
    return targets


def _output_targets(
    branches: Sequence[Branch], prefix: str, ratio_of: Callable[[str], float]
) -> dict[str, float]:
    """The widths asked for of the last convolutions of a module's branches, by the branch."""
    last = _last(branches)
    spatial = {name: conv.filters for name, conv in last.items() if conv.kernel_size > 1}
    parts = {name: filters * 1.0 for name, filters in spatial.items()}
    for name in list(spatial)[:1]:
        parts[name] *= ratio_of(f"{prefix}/odds_{name}")
    width = ratio_of(f"{prefix}/width")
    targets = {}
    for name, conv in last.items():
        if name in parts:
            targets[name] = width * (sum(spatial.values()) * parts[name] / sum(parts.values()))
        else:
            pooled = ratio_of(f"{prefix}/pool_proj") if name == "pool" else 1.0
            targets[name] = conv.filters * width * pooled
    return targets


def _last(branches: Sequence[Branch]) -> dict[str, BranchConv]:
    """The last convolution of each branch that has one, by the branch."""
    return {branch.name: branch.convolutions[-1] for branch in branches if branch.convolutions}
