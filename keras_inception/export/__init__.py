"""From a trained model to something that serves. The parity check is on by default."""

from keras_inception.export.inference import folded
from keras_inception.export.saved_model import export_saved_model

__all__ = ["export_saved_model", "folded"]
