"""From a trained model to something that serves. The parity check is on by default."""

from keras_inception.export.formats import FORMATS
from keras_inception.export.images import Images, folder_images, sample_images
from keras_inception.export.inference import folded, merged
from keras_inception.export.job import Exported, available_formats, export_model
from keras_inception.export.saved_model import export_saved_model

__all__ = [
    "FORMATS",
    "Exported",
    "Images",
    "available_formats",
    "export_model",
    "export_saved_model",
    "folded",
    "folder_images",
    "merged",
    "sample_images",
]
