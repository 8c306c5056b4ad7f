"""TensorFlow's log lines in notebooks and scripts: left out after `import keras_inception`."""

import os
import subprocess
import sys

import pytest

# Everything that this package does with TensorFlow's noisiest parts.
PROGRAM = """
import os
import keras_inception
import tensorflow as tf
from keras_inception.network.build import build_network
from conftest import tiny_spec

formats = ("saved_model", "onnx", "openvino", "litert", "litert-float16")
keras_inception.export(build_network(tiny_spec(norm="lrn")), "exported", formats)
print(os.environ.get("TF_CPP_MIN_LOG_LEVEL"))
"""


def ended(program, tmp_path, **environment):
    """Run a program in a new folder, with no other log level than the given one."""
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", program],
        env=inherited | {"PYTHONPATH": paths} | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def test_nothing_of_tensorflow_is_printed(tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("tf2onnx")
    result = ended(PROGRAM, tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "None\n", "")


def test_a_level_that_the_user_set_decides(tmp_path):
    program = "import keras_inception, tensorflow, os; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    result = ended(program, tmp_path, TF_CPP_MIN_LOG_LEVEL="0")
    assert result.stdout == "0\n"
    assert "oneDNN" in result.stderr or "cpu_feature_guard" in result.stderr


LOGGER = """
import logging, sys
set_before or None
import keras_inception
import tensorflow as tf
logger = tf.get_logger()
logger.warning("first")
logger.error("second")
logging.getLogger("tensorflow.mine").warning("third")
logger.setLevel("INFO")
logger.info("fourth")
"""


@pytest.mark.parametrize(
    ("set_before", "shown"),
    [
        ("None", ["second", "third", "fourth"]),
        (
            "logging.getLogger('tensorflow').setLevel('WARNING')",
            ["first", "second", "third", "fourth"],
        ),
    ],
)
def test_records_of_the_logger_unless_its_level_was_set(tmp_path, set_before, shown):
    result = ended(LOGGER.replace("set_before", set_before), tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert [line.split(":")[-1].split()[-1] for line in lines] == shown


BLOCK = """
import os
from keras_inception.quiet import quiet_tensorflow
with quiet_tensorflow():
    os.write(2, b"I0000 00:00:1795697431.804752   20232 port.cc:153] oneDNN is on\\n")
    with quiet_tensorflow():
        os.write(2, b"somebody else's line\\n")
    raise_or_not
"""


def test_lines_of_others_are_shown_and_all_if_the_block_fails(tmp_path):
    assert ended(BLOCK.replace("raise_or_not", ""), tmp_path).stderr == "somebody else's line\n"
    failed = ended(BLOCK.replace("raise_or_not", "raise KeyError"), tmp_path).stderr
    assert failed.startswith("I0000 00:00:1795697431")
    assert "somebody else's line\n" in failed
