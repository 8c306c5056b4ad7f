"""From a trained model to something that serves. The parity check is on by default."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_inception.network import inference_model
from keras_inception.preprocessing import model_preprocessing, preprocess_input

# Largest difference of a score that float32 rounding explains.
TOLERANCE = 1e-5


def export_saved_model(model: keras.Model, folder: Path, *, samples: np.ndarray) -> None:
    """Write a SavedModel that takes raw pixels; it needs neither Keras nor this package to serve.

    Its signature `serving_default` takes `pixels`, float32 N x h x w x C in [0, 255], RGB or grey,
    and returns `scores`, float32 N x classes. The pixel convention is inside the graph. Under the
    data format channels_first, pixels are N x C x h x w.

    Args:
        model: a classifier whose input names its pixel convention; auxiliary classifiers are
            left out.
        folder: of the SavedModel; must not exist.
        samples: pixels as the signature takes them, at least one image, on which the written
            SavedModel must give the Python model's scores to 1e-5.

    Raises:
        ValueError: the folder exists, or the SavedModel's scores differ: nothing is left then.
    """
    if folder.exists():
        raise ValueError(f"Expected a new folder for the SavedModel. Received: {str(folder)!r}")
    model = inference_model(model)
    convention = model_preprocessing(model)
    archive = keras.export.ExportArchive()
    archive.track(model)

    def serve(pixels: Any) -> dict[str, Any]:
        return {"scores": model(preprocess_input(pixels, convention=convention), training=False)}

    signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="pixels")
    archive.add_endpoint("serving_default", serve, [signature])
    beside = folder.with_name(f".partial-{folder.name}")
    try:
        archive.write_out(beside, verbose=False)
        _check_parity(model, beside, samples.astype(np.float32), convention)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _check_parity(model: keras.Model, folder: Path, pixels: np.ndarray, convention: Any) -> None:
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    served = serve(pixels=tf.constant(pixels))["scores"].numpy()
    expected = model.predict_on_batch(preprocess_input(pixels, convention=convention))
    difference = float(np.max(np.abs(served - expected)))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"Expected the SavedModel's scores within {TOLERANCE} of the model's. Received: a "
            f"difference of {difference}."
        )
