# Serves an exported model: a page on port 8000, and POST /predict.
#
#     docker build -t keras-inception .
#     docker run --rm -p 8000:8000 -v "$PWD/export:/model:ro" keras-inception
#
# With TensorFlow Serving's own image instead, a SavedModel in export/saved_model:
#
#     docker run --rm -p 8501:8501 -v "$PWD/export/saved_model:/models/googlenet/1:ro" -e MODEL_NAME=googlenet tensorflow/serving
FROM python:3.12-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY keras_inception keras_inception
COPY tuning tuning
RUN pip install --no-cache-dir ".[cpu,serve,onnx]"

RUN useradd --create-home server
USER server
EXPOSE 8000
# Names by which requests may address the server: add your own by a further --allow-host.
ENTRYPOINT ["keras-inception", "serve", "--host", "0.0.0.0", "--port", "8000", "--allow-host", "localhost"]
CMD ["/model/saved_model"]
