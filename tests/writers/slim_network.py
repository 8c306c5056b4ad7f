"""Write a real TF-Slim checkpoint of inception_v1 with random weights, and its outputs.

Runs in a separate environment without this package:

    python3.11 -m venv .venv-slim
    .venv-slim/bin/pip install tensorflow-cpu==2.12.1 tf-slim==1.1.0
    .venv-slim/bin/python tests/writers/slim_network.py FOLDER

Writes FOLDER/new/model.ckpt.* and FOLDER/old/model.ckpt (the released file's format), with the
state of a trainer's optimizer among the variables, and FOLDER/endpoints.npz: the `images`, N x 224
x 224 x 3 in [-1, 1], and every endpoint of the network on them.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import saver_pb2
from tf_slim import arg_scope
from tf_slim.nets import inception_v1


def main(folder: Path) -> None:
    tf.disable_eager_execution()
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    inputs = tf.placeholder(tf.float32, (None, 224, 224, 3))
    with arg_scope(inception_v1.inception_v1_arg_scope()):
        _, endpoints = inception_v1.inception_v1(inputs, num_classes=1001, is_training=False)
    network = tf.global_variables()
    step = tf.train.get_or_create_global_step()
    slot = tf.get_variable("InceptionV1/Conv2d_1a_7x7/weights/RMSProp", (7, 7, 3, 64))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for variable in network:
            variable.load(_random(variable, rng), session)
        for name, version in (("new", saver_pb2.SaverDef.V2), ("old", saver_pb2.SaverDef.V1)):
            (folder / name).mkdir(parents=True)
            saver = tf.train.Saver([*network, step, slot], write_version=version)
            saver.save(session, str(folder / name / "model.ckpt"), write_meta_graph=False)
        values = session.run(endpoints, {inputs: images})
    np.savez(folder / "endpoints.npz", images=images, **values)


def _random(variable: tf.Variable, rng: np.random.Generator) -> np.ndarray:
    """Weights that preserve the scale of activations, and statistics other than 0 and 1."""
    shape = variable.shape.as_list()
    if variable.op.name.endswith("moving_variance"):
        return rng.uniform(0.5, 1.5, shape)
    if variable.op.name.endswith("weights"):
        return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
    return rng.uniform(-0.2, 0.4, shape)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
