"""Images and labels: data sets by name, and their tf.data streams. No model."""

from keras_inception.data.sample import SAMPLE_PATH, load_sample
from keras_inception.data.sources import open_data
from keras_inception.data.splits import FileSplit, ImageData, ImageFile, Split
from keras_inception.data.stream import (
    evaluation_batches,
    network_pixels,
    sample_pixels,
    training_batches,
)

__all__ = [
    "SAMPLE_PATH",
    "FileSplit",
    "ImageData",
    "ImageFile",
    "Split",
    "evaluation_batches",
    "load_sample",
    "network_pixels",
    "open_data",
    "sample_pixels",
    "training_batches",
]
