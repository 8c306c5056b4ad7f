"""The two procedures: all modules from one trained network, or layer by layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from keras_inception.cost.budget import Budget
from keras_inception.data.splits import AnySplit, ImageData
from keras_inception.data.stream import evaluation_batches
from keras_inception.design.measurement import (
    DesignOptions,
    ModuleMeasurement,
    measure,
    module_inputs,
)
from keras_inception.design.proposal import propose, proposed_module
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.spec.validation import derived_name
from keras_inception.training.run import train
from keras_inception.training.strategy import Strategy

_BATCH_SIZE = 128


@dataclass(frozen=True, kw_only=True)
class Design:
    """A proposed network, its measurements, and the starting network."""

    start: NetworkSpec
    spec: NetworkSpec
    measurements: tuple[ModuleMeasurement, ...]
    threshold: float


def design_network(
    spec: NetworkSpec,
    model: keras.Model,
    images: AnySplit,
    budget: Budget,
    options: DesignOptions | None = None,
    report: Callable[[str], None] = lambda words: None,
) -> Design:
    """Design all modules at once from one trained network.

    Args:
        spec: spec of the model; the proposal keeps its stem, stages, classes and input.
        model: trained on images of this kind.
        images: images to measure on, preferably held out.
        budget: budget of the proposal.
        options: kernels, threshold, grid of widths.
        report: takes what is measured now, in words.
    """
    options = options or DesignOptions()
    measurements = measure(model, module_inputs(spec), _passes(images, spec), options, report)
    proposal = propose(spec, measurements, budget, width_divisor=options.width_divisor)
    return Design(start=spec, spec=proposal, measurements=measurements, threshold=options.threshold)


def grow_network(
    spec: NetworkSpec,
    data: ImageData,
    recipe: Recipe,
    budget: Budget,
    folder: str | os.PathLike[str],
    options: DesignOptions | None = None,
    *,
    strategy: Strategy = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    report: Callable[[str], None] = lambda words: None,
) -> Design:
    """Design layer by layer: build the next module, train briefly, measure, repeat.

    Each step trains the modules designed so far, plus the next one as in `spec`, with `recipe`. The
    activations at that module's input give its widths. The budget is applied at the end, when all
    proportions are known.

    Args:
        spec: the starting network.
        data: trained on `data.train`, measured on `data.test`.
        recipe: the short training of each step.
        budget: budget of the proposal.
        folder: new or empty; gets one run folder per module.
        options: kernels, threshold, grid of widths.
        strategy: of `make_strategy`, for each training; None: one device.
        callbacks: callbacks of each training.
        report: takes what is trained or measured now, in words.
    """
    options = options or DesignOptions()
    grown = spec
    measurements: list[ModuleMeasurement] = []
    for module, endpoint in module_inputs(spec).items():
        step = truncated(grown, module)
        given: dict[str, Any] = {"strategy": strategy, "callbacks": callbacks, "report": report}
        run = train(step, data, recipe, Path(folder) / module, verbose=0, **given)
        found = measure(run.model, {module: endpoint}, _passes(data.test, step), options, report)
        measurements += found
        changed = proposed_module(step.modules[-1], found[0], width_divisor=options.width_divisor)
        grown = grown.map_modules({module: changed})
    proposal = propose(spec, measurements, budget, width_divisor=options.width_divisor)
    return Design(
        start=spec, spec=proposal, measurements=tuple(measurements), threshold=options.threshold
    )


def truncated(spec: NetworkSpec, module: str) -> NetworkSpec:
    """Return `spec` up to and including a module, with the head.

    Raises:
        ValueError: if the spec does not have the module.
    """
    names = [item.name for item in spec.modules]
    if module not in names:
        raise ValueError(f"Expected a module among {', '.join(names)}. Received: {module!r}")
    kept = set(names[: names.index(module) + 1])
    stages = tuple(
        replace(stage, modules=tuple(item for item in stage.modules if item.name in kept))
        for stage in spec.stages
        if stage.modules[0].name in kept
    )
    return replace(
        spec,
        name=derived_name(spec.name, f"_to_{module}"),
        stages=stages,
        aux=tuple(aux for aux in spec.aux if aux.after in kept),
    )


def _passes(images: AnySplit, spec: NetworkSpec) -> Callable[[], Iterable[Any]]:
    return lambda: (pixels for pixels, _ in evaluation_batches(images, spec, _BATCH_SIZE))
