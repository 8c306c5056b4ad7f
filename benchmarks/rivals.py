"""Networks of other families in Keras, as torchvision has them: to be counted and timed.

Plain convolutional networks (AlexNet, VGG) and ResNet-18 for 224 x 224 x 3 and 1000 classes.
`TRAINABLE` are the parameters that torchvision publishes; `benchmarks/frontier.py` checks them.
Below are plain networks, ResNets and MobileNetV2s for small images.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_inception import GoogLeNet, model_cost

TRAINABLE = {
    "AlexNet": 61_100_840,
    "VGG-11": 132_863_336,
    "VGG-11 BN": 132_868_840,
    "VGG-13": 133_047_848,
    "VGG-13 BN": 133_053_736,
    "VGG-16": 138_357_544,
    "VGG-16 BN": 138_365_992,
    "ResNet-18": 11_689_512,
    "MobileNetV2": 3_504_872,
    "GoogLeNet": 6_624_904,
}
# Convolutions of each stage.
_VGG = {"11": (1, 1, 2, 2, 2), "13": (2, 2, 2, 2, 2), "16": (2, 2, 3, 3, 3)}


def network(name: str) -> keras.Model:
    """A fresh network by its name in `TRAINABLE`."""
    if name == "GoogLeNet":
        return GoogLeNet(weights=None, variant="torchvision")
    if name == "MobileNetV2":
        return keras.applications.MobileNetV2(weights=None)
    pixels = keras.Input((224, 224, 3))
    family, _, rest = name.partition("-")
    depth, _, norm = rest.partition(" ")
    build: dict[str, Callable[[Any], Any]] = {
        "AlexNet": _alexnet,
        "ResNet": _resnet_18,
        "VGG": lambda x: _vgg(x, _VGG[depth], batch_norm=bool(norm)),
    }
    return keras.Model(pixels, build[family](pixels), name=name.replace(" ", "_"))


def _alexnet(x: Any) -> Any:
    x = layers.Conv2D(64, 11, strides=4, activation="relu")(layers.ZeroPadding2D(2)(x))
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Conv2D(192, 5, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(3, 2)(x)
    for filters in (384, 256, 256):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    return _dense_head(layers.MaxPooling2D(3, 2)(x))


def _vgg(x: Any, stages: tuple[int, ...], *, batch_norm: bool) -> Any:
    for filters, count in zip((64, 128, 256, 512, 512), stages, strict=True):
        for _ in range(count):
            x = layers.Conv2D(filters, 3, padding="same")(x)
            x = layers.BatchNormalization()(x) if batch_norm else x
            x = layers.Activation("relu")(x)
        x = layers.MaxPooling2D(2)(x)
    return _dense_head(x)


def _dense_head(x: Any) -> Any:
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dropout(0.5)(layers.Dense(4096, activation="relu")(x))
    return layers.Dense(1000, activation="softmax")(x)


def _resnet_18(x: Any) -> Any:
    x = layers.ZeroPadding2D(3)(x)
    x = layers.Activation("relu")(_normalized(x, 64, 7, 2, "valid"))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))  # after ReLU 0 is the least
    for filters, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        x = _residual(x, filters, stride)
    x = _residual(_residual(x, 512, 2), 512, 1)
    return layers.Dense(1000, activation="softmax")(layers.GlobalAveragePooling2D()(x))


def _residual(x: Any, filters: int, stride: int) -> Any:
    y = _normalized(layers.ZeroPadding2D(1)(x), filters, 3, stride, "valid")
    y = _normalized(layers.Activation("relu")(y), filters, 3, 1, "same")
    if stride > 1:
        x = _normalized(x, filters, 1, stride, "valid")
    return layers.Activation("relu")(layers.Add()([x, y]))


def _normalized(x: Any, filters: int, size: int, stride: int, padding: str) -> Any:
    x = layers.Conv2D(filters, size, strides=stride, padding=padding, use_bias=False)(x)
    return layers.BatchNormalization()(x)


# Small images: 28 x 28 x 1 and 10 classes, with the stages of 28, 14 and 7 pixels and the head
# (global average pool, dropout .3) of this package's small networks.


def small_network(family: str, width: int, depth: int) -> keras.Model:
    """A fresh network for small images.

    Args:
        family: "plain" (VGG-type with batch normalization), "resnet" or "mobilenet".
        width: filters of the first stage; the second has twice, the third four times as many.
        depth: convolutions (plain) or blocks of a stage.
    """
    stage = {"plain": _plain_stage, "resnet": _resnet_stage, "mobilenet": _mobilenet_stage}[family]
    pixels = keras.Input((28, 28, 1))
    x = _small_unit(pixels, width, 3, 1)
    for index in range(3):
        x = stage(x, width * 2**index, depth, 1 if index == 0 else 2)
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    scores = layers.Dense(10, activation="softmax", dtype="float32")(x)
    return keras.Model(pixels, scores, name=f"{family}_{width}_{depth}")


def fitted_small_network(family: str, depth: int, macs: int) -> keras.Model:
    """The widest small network of at most `macs` multiply-adds."""
    fitting, too_wide = 1, 512
    while too_wide - fitting > 1:
        width = (fitting + too_wide) // 2
        if model_cost(small_network(family, width, depth)).macs <= macs:
            fitting = width
        else:
            too_wide = width
    return small_network(family, fitting, depth)


def _small_unit(x: Any, filters: int, size: int, stride: int, *, relu: bool = True) -> Any:
    x = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)  # as in this package's small networks
    return layers.Activation("relu")(x) if relu else x


def _plain_stage(x: Any, filters: int, depth: int, stride: int) -> Any:
    x = layers.MaxPooling2D(2)(x) if stride > 1 else x
    for _ in range(depth):
        x = _small_unit(x, filters, 3, 1)
    return x


def _resnet_stage(x: Any, filters: int, depth: int, stride: int) -> Any:
    for index in range(depth):
        step = stride if index == 0 else 1
        y = _small_unit(_small_unit(x, filters, 3, step), filters, 3, 1, relu=False)
        if step > 1 or x.shape[-1] != filters:
            x = _small_unit(x, filters, 1, step, relu=False)
        x = layers.Activation("relu")(layers.Add()([x, y]))
    return x


def _mobilenet_stage(x: Any, filters: int, depth: int, stride: int) -> Any:
    """Inverted residual blocks of expansion 4."""
    for index in range(depth):
        step = stride if index == 0 else 1
        y = _small_unit(x, 4 * x.shape[-1], 1, 1)
        y = layers.DepthwiseConv2D(3, strides=step, padding="same", use_bias=False)(y)
        y = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(y))
        y = _small_unit(y, filters, 1, 1, relu=False)
        x = layers.Add()([x, y]) if step == 1 and x.shape[-1] == filters else y
    return x
