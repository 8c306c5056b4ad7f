"""What a network sees: class activation maps, branch activations, feature images, DeepDream.

Class activation maps and activations run on every backend. Gradient ascent (DeepDream, feature
images) needs the gradient of the pixels, which each backend computes in its own way. It requires
TensorFlow and raises an error on other backends. The functions return arrays and draw nothing.

Sources: Zhou et al., "Learning Deep Features for Discriminative Localization" (arXiv 1512.04150);
Mordvintsev et al., "Inceptionism" (2015), whose network was a GoogLeNet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_inception.images.resize import resize_floats
from keras_inception.network.build import inference_model
from keras_inception.network.endpoints import feature_extractor
from keras_inception.network.nested import FLAT_FORM
from keras_inception.runtimes.keras_model import image_shape, is_channels_first, network_input
from keras_inception.spec.validation import require_integers, require_numbers, unexpected

Gradient = Callable[[np.ndarray], np.ndarray]

_GREY = 127.5
_NOISE = 10.0  # initial noise of feature images, in levels of 255 around grey
_HIGHEST_PIXEL = 255.0
_LEAST_SIDE = 8
_FLAT = 1e-12  # a smaller gradient counts as zero


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """Options of gradient ascent.

    Attributes:
        steps: number of steps per octave.
        step_size: change of a pixel in a step, in levels of 255: root mean square over the image.
        octaves: number of image sizes, from small to large.
        octave_scale: ratio of each size to the previous one.
        jitter: each step shifts the image randomly by up to this many pixels and then back, which
            avoids artifacts of strides and borders.
        seed: seed of the jitter and of the initial noise.
    """

    steps: int = 20
    step_size: float = 2.0
    octaves: int = 4
    octave_scale: float = 1.4
    jitter: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        require_integers(self, "steps", "octaves")
        require_integers(self, "jitter", "seed", least=0)
        require_numbers(self, "step_size", "octave_scale")
        if self.octave_scale <= 1:
            raise unexpected(self, "octave_scale", "more than 1")


def class_activation_maps(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """Return class activation maps: the classifier applied to every position of the last grid.

    The head averages the last grid over its positions and then applies a dense layer. Applying the
    dense weights first gives a map per class; its mean plus the class's bias is the class's logit.

    Args:
        model: a classifier of this package, built or loaded.
        pixels: N x h x w x C of the network's size, in [0, 255], RGB or grey.

    Returns:
        float32, N x grid height x grid width x classes.

    Raises:
        ValueError: if the model does not end with global average pool and classifier.
    """
    name, kernel = last_grid(model)
    if name is None:
        raise ValueError(
            "Expected a classifier whose head is the global pool and one dense layer, avg_pool and "
            f"predictions_logits. Received: {model.name!r}. Build it with include_top=True, or in "
            f"the flat form: {FLAT_FORM}"
        )
    return activations(model, pixels, [name])[name] @ kernel


def _has_plain_head(model: keras.Model) -> bool:
    """Return whether the classifier is one dense layer on the pooled grid, ignoring dropout."""
    named = {layer.name: layer for layer in model.layers}
    if not {"avg_pool", "predictions_logits"} <= named.keys():
        return False
    before = named["predictions_logits"].input
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    pooled = named["avg_pool"].output
    return before is pooled or any(
        layer.output is before and layer.input is pooled for layer in dropouts
    )


def branch_names(model: keras.Model) -> tuple[str, ...]:
    """Return the endpoints of all branches: "3a_1x1", "3a_3x3", "3a_pool_proj"."""
    return tuple(name for names in branches_by_module(model).values() for name in names)


def branches_by_module(model: keras.Model) -> dict[str, tuple[str, ...]]:
    """Return the endpoints of the branches of each module: {"3a": ("3a_1x1", ...)}."""
    # A module of one branch ends with Identity, which has a single input.
    ends = keras.layers.Concatenate | keras.layers.Identity
    producers = _producers(model)
    return {
        layer.name: tuple(producers[id(tensor)] for tensor in keras.tree.flatten(layer.input))
        for layer in model.layers
        if isinstance(layer, ends)
    }


def last_grid(model: keras.Model) -> tuple[str | None, np.ndarray]:
    """The endpoint of the last grid, and the kernel (channels x classes) of the classifier.

    Their product is `class_activation_maps`. None, and an empty array, for another head.
    """
    if not _has_plain_head(model):
        return None, np.zeros((0, 0), np.float32)
    producers = _producers(model)
    kernel = model.get_layer("predictions_logits").get_weights()[0]
    return producers[id(model.get_layer("avg_pool").input)], np.asarray(kernel, np.float32)


def _producers(model: keras.Model) -> dict[int, str]:
    """The names of layers, by the ids of their outputs."""
    return {id(layer.output): layer.name for layer in model.layers}


def activations(
    model: keras.Model, pixels: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the activations of endpoints for a batch of images.

    Args:
        model: a network of this package, built or loaded.
        pixels: N x h x w x C of the network's size, in [0, 255], RGB or grey.
        names: endpoints; `branch_names` lists those that the modules aggregate.

    Returns:
        {name: float32, N x h x w x channels} for both data formats; N x channels for endpoints
        after the global pool.

    Raises:
        ValueError: an endpoint that the model does not have.
    """
    return _computed(feature_extractor(model, names), pixels)


def feature_images(
    model: keras.Model,
    endpoint: str,
    channels: Sequence[int],
    size: int,
    ascent: Ascent = Ascent(),
) -> np.ndarray:
    """Return images that maximize channels of an endpoint, by gradient ascent from noise.

    The ascent uses the activation before the ReLU, where an inactive channel has a gradient too,
    and the classifier before its softmax.

    Args:
        model: a network of this package, built or loaded, channels last.
        endpoint: such as "4a_3x3"; with "predictions", channels are classes.
        channels: one image per channel.
        size: height and width of the images in pixels; need not be the network's.
        ascent: options of the gradient ascent.

    Returns:
        uint8, len(channels) x size x size x C.

    Raises:
        ValueError: an endpoint or a channel that the model does not have, an image too small for
            the octaves, another backend than TensorFlow, or channels first.
    """
    width = _endpoint(model, endpoint).shape[-1]
    if not channels or min(channels) < 0 or max(channels) >= width:
        raise ValueError(
            f"Expected channels of {endpoint!r} from 0 to {width - 1}. Received: {list(channels)}"
        )
    noise = np.random.default_rng(ascent.seed).uniform(-_NOISE, _NOISE, (size, size, 1))
    shape = (len(channels), size, size, image_shape(model)[2])
    gradient = _gradient(model, _before_activation(model, endpoint), channels)
    return _climbed(np.broadcast_to(_GREY + noise, shape), gradient, ascent)


def deep_dream(
    model: keras.Model,
    image: np.ndarray,
    endpoint: str,
    ascent: Ascent = Ascent(),
) -> np.ndarray:
    """Return an image that increases the sum of squared activations of an endpoint (DeepDream).

    Args:
        model: a network of this package, built or loaded, channels last.
        image: h x w x C of any size, in [0, 255]; C is the network's.
        endpoint: such as "4a".
        ascent: options of the gradient ascent.

    Returns:
        uint8, h x w x C.

    Raises:
        ValueError: an endpoint that the model does not have, other channels, an image too small
            for the octaves, another backend than TensorFlow, or channels first.
    """
    channels = image_shape(model)[2]
    if image.ndim != 3 or image.shape[2] != channels:
        raise ValueError(
            f"Expected an image of shape h x w x {channels}. Received: shape={image.shape}"
        )
    gradient = _gradient(model, _endpoint(model, endpoint), None)
    return _climbed(image[None], gradient, ascent)[0]


def octave_sizes(height: int, width: int, ascent: Ascent) -> list[tuple[int, int]]:
    """Return (height, width) of each octave, from the smallest to the image's own size.

    Raises:
        ValueError: if the first is smaller than 8 pixels, where everything is border.
    """
    scales = [ascent.octave_scale**-octave for octave in reversed(range(ascent.octaves))]
    sizes = [(round(height * scale), round(width * scale)) for scale in scales]
    if min(sizes[0]) < _LEAST_SIDE:
        raise ValueError(
            f"Expected octaves of at least {_LEAST_SIDE} pixels. Received: {height} x {width} "
            f"pixels and octaves={ascent.octaves}, of which the first is {sizes[0][0]} x "
            f"{sizes[0][1]}. Use fewer octaves."
        )
    return sizes


def _computed(network: keras.Model, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of a network for [0, 255] pixels, float32 and channels last."""
    return channels_last(network, network(network_input(network, pixels), training=False))


def channels_last(network: keras.Model, outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the outputs of a network, arrays or tensors, as float32 with the channels last."""
    found = {}
    for name, tensor in outputs.items():
        array = keras.ops.convert_to_numpy(tensor).astype(np.float32)
        first = array.ndim == 4 and is_channels_first(network)
        found[name] = np.moveaxis(array, 1, -1) if first else array
    return found


def _endpoint(model: keras.Model, endpoint: str) -> Any:
    """Return the tensor of an endpoint of the network without auxiliary classifiers."""
    return feature_extractor(inference_model(model), [endpoint]).output[endpoint]


def _before_activation(model: keras.Model, endpoint: str) -> Any:
    tensor = _endpoint(model, endpoint)
    layer = next(layer for layer in model.layers if layer.output is tensor)
    activates = isinstance(layer, keras.layers.ReLU | keras.layers.Activation)
    return layer.input if activates else tensor


def _gradient(model: keras.Model, tensor: Any, channels: Sequence[int] | None) -> Gradient:
    """Return the gradient, per image, of its channel of `tensor`, or of the sum of squares."""
    if keras.backend.backend() != "tensorflow" or is_channels_first(model):
        raise ValueError(
            "Expected the TensorFlow backend and channels last: the gradient of pixels is taken "
            f"there. Received: {keras.backend.backend()!r}, {keras.config.image_data_format()!r}"
        )
    import tensorflow as tf

    network = _of_any_size(keras.Model(model.input, tensor))

    pixels_of_any_size = tf.TensorSpec((None, None, None, image_shape(model)[2]))

    @tf.function(input_signature=[pixels_of_any_size], autograph=False)
    def gradient(pixels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            features = network(network_input(model, pixels), training=False)
            features = tf.cast(features, tf.float32)
            if channels is None:
                height = tf.reduce_sum(tf.square(features))
            else:
                chosen = tf.gather(
                    features, tf.constant(list(channels))[:, None], axis=-1, batch_dims=1
                )
                height = tf.reduce_sum(chosen)
        return tape.gradient(height, pixels)

    return lambda pixels: gradient(tf.constant(pixels, tf.float32)).numpy()


def _of_any_size(network: keras.Model) -> keras.Model:
    """Return a model with the same layers and weights for images of any size."""
    pixels = keras.Input((None, None, network.input_shape[-1]))
    copy = keras.models.clone_model(network, input_tensors=pixels)
    copy.set_weights(network.get_weights())
    return copy


def _climbed(images: np.ndarray, gradient: Gradient, ascent: Ascent) -> np.ndarray:
    """Return the images after all octaves; each octave's change is carried over to the next."""
    random = np.random.default_rng(ascent.seed)
    images = images.astype(np.float32)
    change = np.zeros_like(images)
    for size in octave_sizes(images.shape[1], images.shape[2], ascent):
        original = resize_floats(images, size)
        pixels = original + resize_floats(change, size)
        for _ in range(ascent.steps):
            shift = tuple(random.integers(-ascent.jitter, ascent.jitter + 1, 2))
            moved = np.roll(pixels, shift, (1, 2))
            slope = np.roll(gradient(moved), (-shift[0], -shift[1]), (1, 2))
            steepness = np.sqrt(np.square(slope).mean(axis=(1, 2, 3), keepdims=True))
            step = ascent.step_size * slope / np.maximum(steepness, _FLAT)
            pixels = np.clip(pixels + step, 0, _HIGHEST_PIXEL)
        change = pixels - original
    return np.round(pixels).astype(np.uint8)
