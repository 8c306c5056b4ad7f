"""Networks of other families in Keras, equal to torchvision's, for counting and timing.

Plain convolutional networks (AlexNet, VGG) and ResNet-18 for 224 x 224 x 3 and 1000 classes.
`TRAINABLE` has the parameter counts that torchvision publishes; `benchmarks/frontier.py` checks
them. `small_networks` has the networks for small images.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_inception import GoogLeNet

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
# Convolutions per stage.
_VGG = {"11": (1, 1, 2, 2, 2), "13": (2, 2, 2, 2, 2), "16": (2, 2, 3, 3, 3)}


def network(name: str) -> keras.Model:
    """Build a network by its name in `TRAINABLE`."""
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
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))  # 0 is the minimum after ReLU
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
