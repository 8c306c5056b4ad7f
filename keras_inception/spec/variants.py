"""The named networks: Table 1 as data, and the public networks called "Inception v1".

Every deviation from the paper is a field of the spec, with its source in a comment;
docs/variants.md has a table of them. Nothing here builds or counts anything.
"""

from __future__ import annotations

from dataclasses import replace

from keras_inception.spec.network import (
    AuxSpec,
    BatchNormSpec,
    ConvPadding,
    ConvSpec,
    LRNSpec,
    ModuleSpec,
    NetworkSpec,
    PoolPadding,
    PoolSpec,
    StageSpec,
    StemLayer,
)
from keras_inception.spec.tables import (
    HALF_MODULES,
    MEDIUM_MODULES,
    NANO_MODULES,
    QUARTER_MODULES,
    SMALL_MODULES,
    TABLE_1,
    TINY_MODULES,
    table_1_module,
)


def _stem(
    *, conv_padding: ConvPadding, pool_padding: PoolPadding, lrn: LRNSpec | None
) -> tuple[StemLayer, ...]:
    """Table 1's rows above 3a; LRN after pool1 and before pool2, as in Caffe."""
    layers: list[StemLayer] = [
        ConvSpec(name="conv1", filters=64, kernel_size=7, stride=2, padding=conv_padding),
        PoolSpec(name="pool1", padding=pool_padding),
    ]
    if lrn:
        layers.append(replace(lrn, name="norm1"))
    layers += [
        ConvSpec(name="conv2_reduce", filters=64, kernel_size=1),
        ConvSpec(name="conv2", filters=192, kernel_size=3),
    ]
    if lrn:
        layers.append(replace(lrn, name="norm2"))
    return (*layers, PoolSpec(name="pool2", padding=pool_padding))


def _stages(modules: tuple[ModuleSpec, ...], *downsamples: PoolSpec) -> tuple[StageSpec, ...]:
    """Group modules into stages by the digit of their names; stage 3 follows the stem's pool2."""
    digits = sorted({module.name[0] for module in modules})
    return tuple(
        StageSpec(
            name=digit,
            downsample=downsample,
            modules=tuple(module for module in modules if module.name[0] == digit),
        )
        for digit, downsample in zip(digits, (None, *downsamples), strict=True)
    )


# Section 5: auxiliary classifiers on the outputs of 4a and 4d.
_AUX = (AuxSpec(name="aux_1", after="4a"), AuxSpec(name="aux_2", after="4d"))

PAPER = NetworkSpec(
    name="paper",
    input_shape=(224, 224, 3),
    # Padding, LRN constants, initializer and pixels are BVLC's (models/bvlc_googlenet): the
    # paper gives none of them.
    stem=_stem(conv_padding="symmetric", pool_padding="ceil", lrn=LRNSpec(name="norm")),
    stages=_stages(
        TABLE_1, PoolSpec(name="pool3", padding="ceil"), PoolSpec(name="pool4", padding="ceil")
    ),
    aux=_AUX,
    pixels="caffe",
    initializer="caffe_xavier",
    bias_initial_value=0.2,
)

# The paper's network with pooling that rounds down (grids of 55, 27, 13 and 6 instead of 56, 28, 14
# and 7), as in the light Inception v1 of the onnx package.
PAPER_FLOOR = replace(
    PAPER,
    name="paper_floor",
    stem=_stem(conv_padding="symmetric", pool_padding="valid", lrn=LRNSpec(name="norm")),
    stages=_stages(
        TABLE_1, PoolSpec(name="pool3", padding="valid"), PoolSpec(name="pool4", padding="valid")
    ),
    aux=(),
)

# The paper's table with batch normalization instead of LRN and biases, to train from scratch.
BN = NetworkSpec(
    name="bn",
    input_shape=(224, 224, 3),
    stem=_stem(conv_padding="same", pool_padding="same", lrn=None),
    stages=_stages(TABLE_1, PoolSpec(name="pool3"), PoolSpec(name="pool4")),
    aux=_AUX,
    batch_norm=BatchNormSpec(),
)


def _with_larger_kernel_3(module: ModuleSpec) -> ModuleSpec:
    """TF-Slim (and so torchvision, TF-Hub, GluonCV) runs the "5x5" branch with a 3x3 kernel."""
    first, second = module.spatial
    return replace(module, spatial=(first, replace(second, kernel_size=3)))


_SLIM_MODULES = tuple(_with_larger_kernel_3(module) for module in TABLE_1)

# tf_slim/nets/inception_v1.py: SAME padding, 2x2 pool after 4e, BatchNorm without gamma,
# keep probability .8, no auxiliary classifiers.
SLIM = NetworkSpec(
    name="slim",
    input_shape=(224, 224, 3),
    stem=_stem(conv_padding="same", pool_padding="same", lrn=None),
    stages=_stages(_SLIM_MODULES, PoolSpec(name="pool3"), PoolSpec(name="pool4", size=2)),
    batch_norm=BatchNormSpec(scale=False, momentum=0.9997),
    dropout_rate=0.2,
)

# torchvision/models/googlenet.py: TF-Slim's table, symmetric padding, ceil_mode pools, gamma,
# adaptive pools in the auxiliary classifiers. Its transform_input undoes the ImageNet mean and
# deviation, so that the network itself sees [-1, 1].
TORCHVISION = NetworkSpec(
    name="torchvision",
    input_shape=(224, 224, 3),
    stem=_stem(conv_padding="symmetric", pool_padding="ceil", lrn=None),
    stages=_stages(
        _SLIM_MODULES,
        PoolSpec(name="pool3", padding="ceil"),
        PoolSpec(name="pool4", size=2, padding="ceil"),
    ),
    aux=tuple(replace(aux, pool="adaptive", pool_size=4, pool_stride=1) for aux in _AUX),
    batch_norm=BatchNormSpec(momentum=0.9),  # 1 minus torch's momentum of .1
    dropout_rate=0.2,
)

# Google's tensorflow_inception_graph.pb (DeepDream, Lucid), as the graph definition in notebooks of
# TensorFlow's DeepDream tutorial prints it: SAME padding; LRN of depth_radius 5, bias 2, alpha 1e-4
# (undivided: 1.1e-3 over a window of 11), beta .5; other widths in 4a and 5a; 1008 classes in an
# order of their own.
_INCEPTION5H_4A = table_1_module(
    "4a",
    filters_1x1=192,
    filters_3x3_reduce=96,
    filters_3x3=204,
    filters_5x5_reduce=16,
    filters_5x5=48,
    filters_pool_proj=64,
)
_INCEPTION5H_5A = table_1_module(
    "5a",
    filters_1x1=256,
    filters_3x3_reduce=160,
    filters_3x3=320,
    filters_5x5_reduce=48,
    filters_5x5=128,
    filters_pool_proj=128,
)
INCEPTION5H = replace(
    PAPER,
    name="inception5h",
    stem=_stem(
        conv_padding="same",
        pool_padding="same",
        lrn=LRNSpec(name="norm", window_size=11, alpha_per_window=1.1e-3, beta=0.5, bias=2.0),
    ),
    stages=_stages(
        tuple({"4a": _INCEPTION5H_4A, "5a": _INCEPTION5H_5A}.get(m.name, m) for m in TABLE_1),
        PoolSpec(name="pool3"),
        PoolSpec(name="pool4"),
    ),
    classes=1008,
    pixels="inception5h",
)


def naive_module(module: ModuleSpec) -> ModuleSpec:
    """Return the naive module (figure 2a): no reductions and no projection after the pool."""
    spatial = tuple(replace(branch, reduce=None) for branch in module.spatial)
    return replace(module, spatial=spatial, filters_pool_proj=None)


NAIVE = replace(
    PAPER,
    name="naive",
    stages=_stages(
        tuple(naive_module(module) for module in TABLE_1),
        PoolSpec(name="pool3", padding="ceil"),
        PoolSpec(name="pool4", padding="ceil"),
    ),
    aux=(),
)


# Cheaper members: the widths of `bn`, stem included, fitted to half and a quarter of its
# multiply-adds.
def _narrowed(
    name: str, modules: tuple[ModuleSpec, ...], stem_filters: dict[str, int]
) -> NetworkSpec:
    stem = tuple(
        replace(layer, filters=stem_filters[layer.name]) if isinstance(layer, ConvSpec) else layer
        for layer in BN.stem
    )
    stages = _stages(modules, PoolSpec(name="pool3"), PoolSpec(name="pool4"))
    return replace(BN, name=name, stem=stem, stages=stages)


BN_HALF = _narrowed("bn_half", HALF_MODULES, {"conv1": 48, "conv2_reduce": 40, "conv2": 136})
BN_QUARTER = _narrowed(
    "bn_quarter", QUARTER_MODULES, {"conv1": 32, "conv2_reduce": 32, "conv2": 88}
)

# Small inputs, 28 to 64 pixels: the stem pools once, so that 28 x 28 still has a 14 x 14 grid for
# stage 3. Fewer and wider modules than Table 1 scaled down, whose reductions would be too narrow.
_SMALL_STEM = (
    ConvSpec(name="conv1", filters=32, kernel_size=3),
    PoolSpec(name="pool1"),
    ConvSpec(name="conv2", filters=32, kernel_size=3),
)


def _small(name: str, modules: tuple[ModuleSpec, ...], stem: tuple[StemLayer, ...]) -> NetworkSpec:
    return NetworkSpec(
        name=name,
        input_shape=(28, 28, 1),
        stem=stem,
        stages=_stages(modules, PoolSpec(name="pool2")),
        batch_norm=BatchNormSpec(momentum=0.9),  # small data sets mean few steps
        dropout_rate=0.3,
        classes=10,
    )


# Both convolutions of the stem run at full resolution: half of the cost.
MEDIUM = _small("medium", MEDIUM_MODULES, (_SMALL_STEM[0], _SMALL_STEM[2], _SMALL_STEM[1]))
SMALL = _small("small", SMALL_MODULES, _SMALL_STEM)
TINY = _small("tiny", TINY_MODULES, _SMALL_STEM)
NANO = _small("nano", NANO_MODULES, _SMALL_STEM)
# For boards with 256 kB of memory: `nano` for colour images of 96 pixels, whose first convolution
# halves the grid, so that the largest tensors are few (docs/on-device.md).
NANO_96 = replace(
    NANO,
    name="nano_96",
    input_shape=(96, 96, 3),
    stem=(
        ConvSpec(name="conv1", filters=16, kernel_size=3, stride=2),
        PoolSpec(name="pool1"),
        ConvSpec(name="conv2", filters=32, kernel_size=3),
    ),
)

VARIANTS: dict[str, NetworkSpec] = {
    spec.name: spec
    for spec in (
        PAPER,
        PAPER_FLOOR,
        BN,
        BN_HALF,
        BN_QUARTER,
        SLIM,
        TORCHVISION,
        INCEPTION5H,
        NAIVE,
        MEDIUM,
        SMALL,
        TINY,
        NANO,
        NANO_96,
    )
}


def variant_spec(name: str) -> NetworkSpec:
    """Return the spec of a named network.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in VARIANTS:
        raise ValueError(f"Expected a variant among {', '.join(VARIANTS)}. Received: {name!r}")
    return VARIANTS[name]
