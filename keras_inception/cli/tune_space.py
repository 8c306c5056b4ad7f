"""The search space and the budget that the options of `keras-inception tune` ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keras_inception.cli.data import fitted_spec
from keras_inception.cli.tune_latency import chosen_bound
from keras_inception.cli.tune_options import BudgetOptions, SpaceOptions
from keras_inception.cost.budget import NetworkBound
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import SMALL

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData
    from tuning.space import Space


def chosen_space(
    spec: NetworkSpec | None,
    data: ImageData,
    input_size: int | None,
    folder: Path,
    budget: BudgetOptions,
    options: SpaceOptions,
) -> Space:
    """The space around a network, on images of one size.

    Args:
        spec: the network, before it is fitted to the data; None: one built for the budget.
        data: gives the input shape and the classes.
        input_size: height and width instead of the data's; None: those of the data.
        folder: of the search, for the latency model.
        budget: options of the budget.
        options: of the space.

    Raises:
        ValueError: values that the space refuses, or neither network nor images of one size.
    """
    from tuning.base import base_network, base_with_room

    base = base_network(_input_shape(spec or SMALL, data, input_size), len(data.class_names), spec)
    divisor = options.width_divisor
    bound = chosen_bound(base, folder, budget, lambda own: _space(base, own, divisor, options))
    if spec is None:
        base, divisor = base_with_room(base, bound, divisor)
    return _space(base, bound, divisor, options)


def _space(
    base: NetworkSpec, bound: NetworkBound, divisor: int | None, options: SpaceOptions
) -> Space:
    from tuning.base import usual_divisor
    from tuning.space import Space

    return Space(
        base=base,
        budget=bound,
        width_divisor=divisor or usual_divisor(base),
        depth=options.depth,
        kernels=tuple(options.kernels or ()),
        stem=options.stem,
        pools=options.pools,
        min_budget_share=options.min_budget_share if options.second_objective else 1.0,
    )


def _input_shape(
    spec: NetworkSpec, data: ImageData, input_size: int | None
) -> tuple[int, int, int]:
    height, width, channels = fitted_spec(spec, data, input_size).input_shape
    if height is None or width is None:
        raise ValueError(
            "Expected a network or images of one size. Received: neither. Use --input-size."
        )
    return height, width, channels
