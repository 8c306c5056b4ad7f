"""The Predict API with the stubs of tensorflow-serving-api, over gRPC on the loopback interface."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_inception.data.sample import load_sample
from keras_inception.exporters.saved_model import export_saved_model
from keras_inception.images.conventions import preprocess_input
from keras_inception.network.build import build_network
from keras_inception.spec.variants import VARIANTS

pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api (docs/serving.md)")
grpc = pytest.importorskip("grpc", reason="needs grpcio")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_network(VARIANTS["nano"])


@pytest.fixture(scope="module")
def folder(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "saved_model"
    data = load_sample()
    export_saved_model(model, path, samples=data.test.images[:4], labels=data.class_names)
    return path


def predict(signatures: Any, request: Any) -> Any:
    """Handle a request like a server: look up the signature, run it, name the outputs."""
    from tensorflow_serving.apis import predict_pb2

    serve = signatures[request.model_spec.signature_name]
    inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
    outputs = serve(**{key: tf.constant(value) for key, value in inputs.items()})
    return predict_pb2.PredictResponse(
        model_spec=request.model_spec,
        outputs={key: tf.make_tensor_proto(value.numpy()) for key, value in outputs.items()},
    )


@pytest.fixture(scope="module")
def stub(folder: Path) -> Iterator[Any]:
    from tensorflow_serving.apis import prediction_service_pb2_grpc as service

    signatures = tf.saved_model.load(str(folder)).signatures

    class Servicer(service.PredictionServiceServicer):
        def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            return predict(signatures, request)

    server = grpc.server(ThreadPoolExecutor(2))
    service.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield service.PredictionServiceStub(channel)
    server.stop(None)


def test_a_predict_request_of_files_returns_labels(model: keras.Model, stub: Any) -> None:
    from tensorflow_serving.apis import model_pb2, predict_pb2

    data = load_sample()
    files = [tf.io.encode_png(image).numpy() for image in data.test.images[:3]]
    request = predict_pb2.PredictRequest(
        model_spec=model_pb2.ModelSpec(name="nano", signature_name="serving_default"),
        inputs={"images": tf.make_tensor_proto([*files, b"no image"])},
    )

    answer = stub.Predict(request, timeout=60)

    outputs = {key: tf.make_ndarray(value) for key, value in answer.outputs.items()}
    scores = model.predict_on_batch(preprocess_input(data.test.images[:3], convention="tf"))
    assert outputs["valid"].tolist() == [True, True, True, False]
    assert outputs["indices"][:3, 0].tolist() == scores.argmax(axis=1).tolist()
    np.testing.assert_allclose(outputs["scores"][:3, 0], scores.max(axis=1), atol=1e-5)
    first = [name.decode() for name in outputs["classes"][:3, 0]]
    assert first == [data.class_names[index] for index in scores.argmax(axis=1)]


def test_the_warmup_requests_run_each_signature(folder: Path) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    signatures = tf.saved_model.load(str(folder)).signatures

    names = [log.predict_log.request.model_spec.signature_name for log in logs]
    assert sorted(names) == ["features", "images", "serving_default"]
    for log in logs:
        response = predict(signatures, log.predict_log.request)
        assert response.outputs
        if "valid" in response.outputs:
            assert tf.make_ndarray(response.outputs["valid"]).all()
