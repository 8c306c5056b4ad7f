"""Images and labels: data sets by name, and their tf.data streams. No model."""

from keras_inception.data.sample import SAMPLE_PATH, load_sample
from keras_inception.data.sources import open_data
from keras_inception.data.splits import AnySplit, FileSplit, ImageData, Split
from keras_inception.data.stream import (
    evaluation_batches,
    sample_pixels,
    training_batches,
)
from keras_inception.data.views import crop_views

__all__ = [
    "SAMPLE_PATH",
    "AnySplit",
    "FileSplit",
    "ImageData",
    "Split",
    "crop_views",
    "evaluation_batches",
    "load_sample",
    "open_data",
    "sample_pixels",
    "training_batches",
]
