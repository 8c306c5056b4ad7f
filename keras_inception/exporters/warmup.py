"""Warm-up requests for TensorFlow Serving, in its own protocol buffers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

# The path that TensorFlow Serving reads, below the folder of the SavedModel.
WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")


def write_warmup(folder: Path, sample: np.ndarray) -> bool:
    """Write one request per signature, so that a server's first response is not slower.

    Args:
        folder: a SavedModel of `export_saved_model`.
        sample: one image, uint8 h x w x C.

    Returns:
        Whether it was written; it needs the package tensorflow-serving-api.
    """
    try:
        from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
    except ModuleNotFoundError:
        return False
    pixels = tf.make_tensor_proto(sample[None].astype(np.float32))
    requests = {
        "serving_default": {"images": tf.make_tensor_proto([tf.io.encode_png(sample).numpy()])},
        "images": {"pixels": pixels},
        "features": {"pixels": pixels},
    }
    path = folder / WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name="default", signature_name=signature),
                inputs=inputs,
            )
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
    return True
