"""The compared and searched networks for 28 x 28 x 1 and 10 classes: specs, and other families.

All have batch normalization with the same momentum and the head of this package's small networks
(global average pool, dropout .3). A plain convolutional network (VGG type) is also a spec, in which
every module is one 3x3 convolution, so the same search covers its widths and its depth.
"""

from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import layers

from keras_inception import (
    VARIANTS,
    BranchSpec,
    ConvSpec,
    ModuleSpec,
    NetworkSpec,
    PoolSpec,
    StageSpec,
    model_cost,
    naive_module,
)


def table_28() -> NetworkSpec:
    """Return Table 1's nine modules after the stem of `small`, on grids of 14, 7 and 4."""
    return replace(VARIANTS["small"], name="table_28", stages=VARIANTS["bn"].stages)


def naive_28() -> NetworkSpec:
    """Return `table_28` with naive modules (figure 2a)."""
    table = table_28()
    modules = {module.name: naive_module(module) for module in table.modules}
    return replace(table.map_modules(modules), name="naive_28")


def plain_28(depth: int) -> NetworkSpec:
    """Return stages of `depth` 3x3 convolutions on grids of 28, 14 and 7.

    Each stage is twice as wide as the one before. The stem is a 3x3 convolution.
    """
    stages = tuple(
        StageSpec(
            name=str(index),
            downsample=PoolSpec(name=f"pool{index}", size=2) if index > 1 else None,
            modules=tuple(
                _one_convolution(f"{index}{'abcdef'[n]}", 2**index) for n in range(depth)
            ),
        )
        for index in (1, 2, 3)
    )
    stem = (ConvSpec(name="conv1", filters=32, kernel_size=3),)
    return replace(VARIANTS["small"], name=f"plain_{depth}", stem=stem, stages=stages)


def lean_28() -> NetworkSpec:
    """Return one module per stage on grids of 14, 7 and 4, with 1x1 and 3x3 filters only.

    At this size, latency depends more on the number of layers than on arithmetic, so there are no
    reductions and no pooling branch.
    """
    stages = tuple(
        StageSpec(
            name=name,
            downsample=PoolSpec(name=f"pool{name}", size=2),
            modules=(
                ModuleSpec(
                    name=f"{name}a",
                    filters_1x1=width,
                    spatial=(BranchSpec(kernel_size=3, reduce=None, filters=width),),
                    filters_pool_proj=0,
                ),
            ),
        )
        for name, width in (("3", 32), ("4", 64), ("5", 128))
    )
    stem = (ConvSpec(name="conv1", filters=16, kernel_size=3),)
    return replace(VARIANTS["small"], name="lean_28", stem=stem, stages=stages)


def _one_convolution(name: str, width: int) -> ModuleSpec:
    branch = BranchSpec(kernel_size=3, reduce=None, filters=16 * width)
    return ModuleSpec(name=name, filters_1x1=0, spatial=(branch,), filters_pool_proj=0)


@dataclass(frozen=True, kw_only=True)
class Form:
    """Input and first grid of a network of another family.

    Attributes:
        input_shape: (height, width, channels).
        classes: of the data.
        stem_stride: of the first convolution.
    """

    input_shape: tuple[int, int, int] = (28, 28, 1)
    classes: int = 10
    stem_stride: int = 1


def rival(family: str, width: int, depth: int, form: Form) -> keras.Model:
    """Build a network of stages on three grids, each with half the height and width of the last.

    Args:
        family: "resnet" or "mobilenet".
        width: filters of the first stage; the second has twice as many, the third four times.
        depth: blocks per stage.
        form: input and first grid.
    """
    stage = {"resnet": _resnet_stage, "mobilenet": _mobilenet_stage}[family]
    pixels = keras.Input(form.input_shape)
    x = _unit(pixels, width, 3, form.stem_stride)
    for index in range(3):
        x = stage(x, width * 2**index, depth, 1 if index == 0 else 2)
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    scores = layers.Dense(form.classes, activation="softmax", dtype="float32")(x)
    return keras.Model(pixels, scores, name=f"{family}_{width}_{depth}")


def fitted_rival(family: str, depth: int, macs: int, form: Form = Form()) -> keras.Model:
    """Return the widest rival with at most `macs` multiply-adds."""
    fitting, too_wide = 1, 512
    while too_wide - fitting > 1:
        width = (fitting + too_wide) // 2
        if model_cost(rival(family, width, depth, form)).macs <= macs:
            fitting = width
        else:
            too_wide = width
    return rival(family, fitting, depth, form)


def head_28() -> keras.Model:
    """Return a network without convolutions: global average pool, dense layer, softmax."""
    pixels = keras.Input((28, 28, 1))
    scores = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(pixels))
    return keras.Model(pixels, scores, name="head_28")


def _unit(x: Any, filters: int, size: int, stride: int, *, relu: bool = True) -> Any:
    x = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Activation("relu")(x) if relu else x


def _resnet_stage(x: Any, filters: int, depth: int, stride: int) -> Any:
    for index in range(depth):
        step = stride if index == 0 else 1
        y = _unit(_unit(x, filters, 3, step), filters, 3, 1, relu=False)
        if step > 1 or x.shape[-1] != filters:
            x = _unit(x, filters, 1, step, relu=False)
        x = layers.Activation("relu")(layers.Add()([x, y]))
    return x


def _mobilenet_stage(x: Any, filters: int, depth: int, stride: int) -> Any:
    """Apply inverted residual blocks with expansion 4."""
    for index in range(depth):
        step = stride if index == 0 else 1
        y = _unit(x, 4 * x.shape[-1], 1, 1)
        y = layers.DepthwiseConv2D(3, strides=step, padding="same", use_bias=False)(y)
        y = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(y))
        y = _unit(y, filters, 1, 1, relu=False)
        x = layers.Add()([x, y]) if step == 1 and x.shape[-1] == filters else y
    return x
