"""Pretrained weights: what exists, readers of each public format, strict assignment.

One reader for each format; each gives a `Source`: the file's arrays under the file's own names,
and a map from this package's variable names to them. No reader knows a model: `assign` alone
touches one. docs/weights.md says which network each public set is.
"""

from keras_inception.weights.assign import assign, without_absent_heads
from keras_inception.weights.files import read_source
from keras_inception.weights.manifest import MANIFEST, WeightsEntry, imagenet_entry
from keras_inception.weights.source import Source, converted

__all__ = [
    "MANIFEST",
    "Source",
    "WeightsEntry",
    "assign",
    "converted",
    "imagenet_entry",
    "read_source",
    "without_absent_heads",
]
