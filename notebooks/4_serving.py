# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Serve a SavedModel
#
# Training writes a SavedModel that takes the bytes of image files and returns labels, without Keras
# or this package. This notebook calls it directly, shows a request for TensorFlow Serving, and
# queries the local server.

# %%
import base64
import io
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from keras_inception import RECIPES, VARIANTS, open_data, train

# %%
data = open_data("sample")
run = Path(tempfile.mkdtemp()) / "run"
train(VARIANTS["nano"], data, replace(RECIPES["quick"], epochs=3), run, verbose=0)
SAVED = run / "saved_model"
for path in sorted(path for path in SAVED.rglob("*") if path.is_file()):
    print(f"{path.stat().st_size:>9,}  {path.relative_to(SAVED)}")

# %% [markdown]
# ## In another process, with TensorFlow alone
#
# The process cannot import Keras or this package. It gets two PNG files and one file that is not an
# image. An invalid image does not fail its batch.

# %%
REQUEST = Path(tempfile.mkdtemp())
for number, row in enumerate((0, 1)):
    Image.fromarray(data.test.images[row, ..., 0]).resize((90, 90)).save(REQUEST / f"{number}.png")
(REQUEST / "2.png").write_text("not an image")

PROGRAM = """
import sys
sys.modules["keras"] = sys.modules["keras_inception"] = None  # importing them now raises an error
from pathlib import Path
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
images = [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
for name, values in serve(images=tf.constant(images)).items():
    print(name, values.numpy()[:, :2].tolist() if values.ndim == 2 else values.numpy().tolist())
"""
done = subprocess.run(
    [sys.executable, "-c", PROGRAM, str(SAVED), str(REQUEST)], capture_output=True, text=True
)
print(done.stdout or done.stderr)
print("true:", [data.class_names[label] for label in data.test.labels[:2]])

# %% [markdown]
# ## A request to TensorFlow Serving
#
# The TensorFlow Serving container loads this folder (`docker run`, see docs/serving.md). A request
# contains the files in base64:

# %%
body = {
    "instances": [{"b64": base64.b64encode((REQUEST / "0.png").read_bytes()).decode()[:40] + "..."}]
}
print("POST /v1/models/googlenet:predict")
print(json.dumps(body, indent=2))

# %% [markdown]
# ## The local server
#
# `keras-inception serve RUN` serves a web page and a JSON endpoint.

# %%
with socket.socket() as probe:  # find a free port
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
COMMAND = [sys.executable, "-c", "from keras_inception.cli import main; main()"]
server = subprocess.Popen(
    [*COMMAND, "serve", str(run), "--port", str(PORT)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
ADDRESS = f"http://127.0.0.1:{PORT}"


def post(path: str, content: bytes) -> dict:
    """Return the server's JSON response; retry until the server listens."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{ADDRESS}{path}", data=content, timeout=60) as answer:
                return json.load(answer)
        except ConnectionError:
            time.sleep(0.1)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            time.sleep(0.1)
    raise TimeoutError(f"no server listens at {ADDRESS}")


answer = post("/predict?top=3&maps=true", (REQUEST / "0.png").read_bytes())
print(json.dumps(answer["labels"], indent=2))

# %% [markdown]
# With `maps=true` the response also contains the activations of every branch, as shown on the page:

# %%
branches = answer["branches"]
figure, axes = plt.subplots(2, -(-len(branches) // 2), figsize=(12, 4.6))
for axis, branch in zip(axes.flat, branches, strict=True):
    axis.imshow(np.asarray(Image.open(io.BytesIO(base64.b64decode(branch["png"])))), cmap="gray")
    axis.set_title(branch["name"], fontsize=10)
    axis.axis("off")
plt.show()

# %%
server.terminate()
print("exit status of the server:", server.wait(timeout=30))
