"""Filters of every module of the named networks, in the columns of the paper's Table 1.

Standard library only.
"""

from __future__ import annotations

from keras_inception.spec.module import BranchSpec, ModuleSpec


def table_1_module(
    name: str,
    *,
    filters_1x1: int,
    filters_3x3_reduce: int,
    filters_3x3: int,
    filters_5x5_reduce: int,
    filters_5x5: int,
    filters_pool_proj: int,
) -> ModuleSpec:
    """A module in the columns of Table 1 (figure 2b)."""
    return ModuleSpec(
        name=name,
        filters_1x1=filters_1x1,
        spatial=(
            BranchSpec(kernel_size=3, reduce=filters_3x3_reduce, filters=filters_3x3),
            BranchSpec(kernel_size=5, reduce=filters_5x5_reduce, filters=filters_5x5),
        ),
        filters_pool_proj=filters_pool_proj,
    )


# fmt: off
TABLE_1 = (
    table_1_module("3a", filters_1x1=64, filters_3x3_reduce=96, filters_3x3=128,
                   filters_5x5_reduce=16, filters_5x5=32, filters_pool_proj=32),
    table_1_module("3b", filters_1x1=128, filters_3x3_reduce=128, filters_3x3=192,
                   filters_5x5_reduce=32, filters_5x5=96, filters_pool_proj=64),
    table_1_module("4a", filters_1x1=192, filters_3x3_reduce=96, filters_3x3=208,
                   filters_5x5_reduce=16, filters_5x5=48, filters_pool_proj=64),
    table_1_module("4b", filters_1x1=160, filters_3x3_reduce=112, filters_3x3=224,
                   filters_5x5_reduce=24, filters_5x5=64, filters_pool_proj=64),
    table_1_module("4c", filters_1x1=128, filters_3x3_reduce=128, filters_3x3=256,
                   filters_5x5_reduce=24, filters_5x5=64, filters_pool_proj=64),
    table_1_module("4d", filters_1x1=112, filters_3x3_reduce=144, filters_3x3=288,
                   filters_5x5_reduce=32, filters_5x5=64, filters_pool_proj=64),
    table_1_module("4e", filters_1x1=256, filters_3x3_reduce=160, filters_3x3=320,
                   filters_5x5_reduce=32, filters_5x5=128, filters_pool_proj=128),
    table_1_module("5a", filters_1x1=256, filters_3x3_reduce=160, filters_3x3=320,
                   filters_5x5_reduce=32, filters_5x5=128, filters_pool_proj=128),
    table_1_module("5b", filters_1x1=384, filters_3x3_reduce=192, filters_3x3=384,
                   filters_5x5_reduce=48, filters_5x5=128, filters_pool_proj=128),
)

# The widths of `bn`, stem included, fitted to half and a quarter of its multiply-adds with
# `budget.fit_to_budget(BN, ..., scale_stem=True)`; a test repeats it.
HALF_MODULES = (
    table_1_module("3a", filters_1x1=48, filters_3x3_reduce=64, filters_3x3=88,
                   filters_5x5_reduce=16, filters_5x5=24, filters_pool_proj=24),
    table_1_module("3b", filters_1x1=88, filters_3x3_reduce=88, filters_3x3=136,
                   filters_5x5_reduce=24, filters_5x5=64, filters_pool_proj=48),
    table_1_module("4a", filters_1x1=136, filters_3x3_reduce=64, filters_3x3=144,
                   filters_5x5_reduce=16, filters_5x5=40, filters_pool_proj=48),
    table_1_module("4b", filters_1x1=112, filters_3x3_reduce=80, filters_3x3=152,
                   filters_5x5_reduce=16, filters_5x5=48, filters_pool_proj=48),
    table_1_module("4c", filters_1x1=88, filters_3x3_reduce=88, filters_3x3=176,
                   filters_5x5_reduce=16, filters_5x5=48, filters_pool_proj=48),
    table_1_module("4d", filters_1x1=80, filters_3x3_reduce=96, filters_3x3=200,
                   filters_5x5_reduce=24, filters_5x5=48, filters_pool_proj=48),
    table_1_module("4e", filters_1x1=176, filters_3x3_reduce=112, filters_3x3=224,
                   filters_5x5_reduce=24, filters_5x5=88, filters_pool_proj=88),
    table_1_module("5a", filters_1x1=176, filters_3x3_reduce=112, filters_3x3=224,
                   filters_5x5_reduce=24, filters_5x5=88, filters_pool_proj=88),
    table_1_module("5b", filters_1x1=264, filters_3x3_reduce=136, filters_3x3=264,
                   filters_5x5_reduce=32, filters_5x5=88, filters_pool_proj=96),
)
QUARTER_MODULES = (
    table_1_module("3a", filters_1x1=32, filters_3x3_reduce=48, filters_3x3=64,
                   filters_5x5_reduce=8, filters_5x5=16, filters_pool_proj=16),
    table_1_module("3b", filters_1x1=64, filters_3x3_reduce=64, filters_3x3=88,
                   filters_5x5_reduce=16, filters_5x5=48, filters_pool_proj=32),
    table_1_module("4a", filters_1x1=88, filters_3x3_reduce=48, filters_3x3=96,
                   filters_5x5_reduce=8, filters_5x5=24, filters_pool_proj=32),
    table_1_module("4b", filters_1x1=72, filters_3x3_reduce=56, filters_3x3=104,
                   filters_5x5_reduce=8, filters_5x5=32, filters_pool_proj=32),
    table_1_module("4c", filters_1x1=64, filters_3x3_reduce=64, filters_3x3=120,
                   filters_5x5_reduce=8, filters_5x5=32, filters_pool_proj=32),
    table_1_module("4d", filters_1x1=56, filters_3x3_reduce=64, filters_3x3=136,
                   filters_5x5_reduce=16, filters_5x5=32, filters_pool_proj=32),
    table_1_module("4e", filters_1x1=120, filters_3x3_reduce=72, filters_3x3=152,
                   filters_5x5_reduce=16, filters_5x5=64, filters_pool_proj=64),
    table_1_module("5a", filters_1x1=120, filters_3x3_reduce=72, filters_3x3=152,
                   filters_5x5_reduce=16, filters_5x5=56, filters_pool_proj=64),
    table_1_module("5b", filters_1x1=176, filters_3x3_reduce=88, filters_3x3=176,
                   filters_5x5_reduce=24, filters_5x5=56, filters_pool_proj=56),
)

# Small inputs: fewer and wider modules than Table 1 scaled down, whose reductions would be too
# narrow.
MEDIUM_MODULES = (
    table_1_module("3a", filters_1x1=32, filters_3x3_reduce=32, filters_3x3=64,
                   filters_5x5_reduce=16, filters_5x5=24, filters_pool_proj=24),
    table_1_module("3b", filters_1x1=48, filters_3x3_reduce=40, filters_3x3=64,
                   filters_5x5_reduce=16, filters_5x5=24, filters_pool_proj=24),
    table_1_module("4a", filters_1x1=64, filters_3x3_reduce=64, filters_3x3=128,
                   filters_5x5_reduce=16, filters_5x5=32, filters_pool_proj=32),
    table_1_module("4b", filters_1x1=96, filters_3x3_reduce=64, filters_3x3=128,
                   filters_5x5_reduce=16, filters_5x5=48, filters_pool_proj=48),
)
SMALL_MODULES = (
    table_1_module("3a", filters_1x1=32, filters_3x3_reduce=32, filters_3x3=48,
                   filters_5x5_reduce=16, filters_5x5=16, filters_pool_proj=16),
    table_1_module("4a", filters_1x1=64, filters_3x3_reduce=48, filters_3x3=96,
                   filters_5x5_reduce=16, filters_5x5=32, filters_pool_proj=32),
    table_1_module("4b", filters_1x1=96, filters_3x3_reduce=64, filters_3x3=128,
                   filters_5x5_reduce=16, filters_5x5=48, filters_pool_proj=48),
)
# SMALL fitted to 8 and 4 million multiply-adds.
TINY_MODULES = (
    table_1_module("3a", filters_1x1=24, filters_3x3_reduce=24, filters_3x3=32,
                   filters_5x5_reduce=8, filters_5x5=8, filters_pool_proj=8),
    table_1_module("4a", filters_1x1=40, filters_3x3_reduce=32, filters_3x3=56,
                   filters_5x5_reduce=8, filters_5x5=16, filters_pool_proj=16),
    table_1_module("4b", filters_1x1=56, filters_3x3_reduce=40, filters_3x3=80,
                   filters_5x5_reduce=8, filters_5x5=32, filters_pool_proj=32),
)
NANO_MODULES = (
    table_1_module("3a", filters_1x1=16, filters_3x3_reduce=8, filters_3x3=16,
                   filters_5x5_reduce=8, filters_5x5=8, filters_pool_proj=8),
    table_1_module("4a", filters_1x1=24, filters_3x3_reduce=16, filters_3x3=32,
                   filters_5x5_reduce=8, filters_5x5=8, filters_pool_proj=16),
    table_1_module("4b", filters_1x1=32, filters_3x3_reduce=16, filters_3x3=40,
                   filters_5x5_reduce=8, filters_5x5=16, filters_pool_proj=16),
)
# fmt: on
