"""Crafted files: each is refused in one line, in little memory, time and disk.

`hostile_files.py` writes them and reads them in a process with limits, once for all tests.
"""

import importlib.util
import json
import re
import signal
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hostile_files import SECRET

from keras_inception import GoogLeNet, isolated
from keras_inception.archives import read_zip
from keras_inception.bounded import Allowance
from keras_inception.network.build import build_network
from keras_inception.runtimes.keras_model import load_keras
from keras_inception.spec.variants import VARIANTS
from keras_inception.weights.readers import read_source
from keras_inception.weights.source import allowance

HAS_TORCH = importlib.util.find_spec("torch") is not None
# By file, what the refusal names.
REFUSED = {
    "external.weights.h5": "stored outside of the file",
    "virtual.weights.h5": "stored outside of the file",
    "soft-link.weights.h5": "but SoftLink",
    "external-link.weights.h5": "but ExternalLink",
    "cycle.weights.h5": "a second link to the same object",
    "second-link.weights.h5": "a second link to the same object",
    "unallocated.weights.h5": "announced, but not stored",
    "compressed.weights.h5": "of 3,200,000,000 bytes",
    "one-chunk.weights.h5": "'a chunk of /layers/conv2d/vars/1' of 3,200,000,000 bytes",
    "together.weights.h5": "at most 200,000,000 bytes",
    "tiny-chunks.weights.h5": "is in over 100,000 chunks",
    "groups.weights.h5": "one of over 20,000 objects",
    "endless-heap.weights.h5": "s to read)",
    "unknown-filter.weights.h5": "Expected HDF5 as Keras saves it",
    "references.weights.h5": "not numbers",
    "committed.weights.h5": "is a Datatype",
    "strings.weights.h5": "not numbers",
    "pairs.weights.h5": "not numbers",
    "group.weights.h5": "Expected arrays in layer 'conv1_conv'. Received: a group",
    "name-array.weights.h5": "a name that is no text",
    "layers-array.weights.h5": "with a group `layers`",
    "vars-array.weights.h5": "which does not hold them",
    "text.weights.h5": "Expected a `.weights.h5` or `.keras` file",
    "pipe.weights.h5": "a pipe, device or socket",
    "zeros.weights.h5": "a pipe, device or socket",
    "pipe.keras": "a pipe, device or socket",
    "directory.keras": "a folder",
    "member-bomb.keras": "at most 200,000,000 bytes",
    "other-bomb.keras": "at most 200,000,000 bytes",
    "config-bomb.keras": "at most 200,000,000 bytes",
    "many-members.keras": "at most 10,000 members",
    "deep.keras": "nested too deep",
    "nested.keras": "nested at most 100 deep",
    "values.keras": "at most 1,000,000 values",
    "list.keras": "the configuration of a model",
    "long-number.keras": "Expected the JSON of a `.keras` file",
    "bzip2.keras": "compression method 12",
    "outside.keras": "a name outside of the archive",
    "linked.keras": "but ExternalLink",
    "member-link.keras": "is a link",
    "twice.keras": "3 members, 2 names",
    "overlap.keras": "overlaps another one",
    "encrypted.keras": "is encrypted",
    "two-directories.keras": "Expected a zip, with nothing before it",
    "comment.keras": "without a comment or anything else after it",
    "layers.caffemodel": "at most 200,000 fields",
    "blobs.caffemodel": "at most 200,000 fields",
    "group.caffemodel": "wire type 3",
    "text.caffemodel": "Expected a .caffemodel. Received",
    "hole.caffemodel": "at most 200,000,000 bytes",
    "large.pb": "at most 200,000,000 bytes",
    "softmax2_b.pb": "'its network' of ",  # of 40 million classes
    "together.pb": "at most 200,000,000 bytes",
    "negative.pb": "0 or more elements",
    "axes.pb": "at most 32 axes",
    "nodes.pb": "at most 200,000 fields",
    "bomb.zip": "at most 200,000,000 bytes",
    "other.zip": "Expected a zip that holds tensorflow_inception_graph.pb",
    "cycle.onnx": "Expected Softmax or Gemm or MatMul or Add",
    "self.onnx": "Expected Softmax or Gemm or MatMul or Add",
    "no-output.onnx": "lacks parts that its format always has",
    "bare-Softmax.onnx": "lacks parts that its format always has",
    "bare-Identity.onnx": "lacks parts that its format always has",
    "bare-Gemm.onnx": "lacks parts that its format always has",
    "bare-Add.onnx": "lacks parts that its format always has",
    "bare-If.onnx": "lacks parts that its format always has",
    "add-itself.onnx": "lacks parts that its format always has",
    "bare-constant.onnx": "Expected Softmax or Gemm or MatMul or Add",
    "large-tensor.onnx": "at most 200,000,000 bytes",
    "negative-tensor.onnx": "0 or more elements",
    "word-tensor.onnx": "Expected Softmax or Gemm or MatMul or Add",
    "external-passwd.onnx": "with tensors in '/etc/passwd'",
    "external-beside.onnx": "with tensors in 'secret.bin'",
    "external-up.onnx": "with tensors in '../x'",
    "external-repeated.onnx": "of 10,000,000 bytes, with 0 left",
    "nodes.onnx": "at most 200,000 fields",
    "text.onnx": "Expected an ONNX model. Received",
    "sparse.tar": "Expected a tar of ordinary files",
    "sparse.tar.gz": "Expected a tar of ordinary files",
    "bomb.tar.gz": "at most 200,000,000 bytes",
    "long-name.tar": "Expected a tarball of a TF-Slim checkpoint",
    "link.tar": "Expected a tar of ordinary files",
    "hard-link.tar": "Expected a tar of ordinary files",
    "pipe.tar": "Expected a tar of ordinary files",
    "members.tar": "at most 1,000 members",
    "negative.tar": "Expected a tar of ordinary files",
    "headers.tar": "Expected a tar. Received",
    "text.tar.gz": "Expected a tar. Received",
    "members.tar.gz": "over 100 members",
    "name.tar.gz": "Expected a tar. Received",
    "hole.tar.gz": "at most 200,000,000 bytes",
    "text.ckpt": "Expected a TF-Slim checkpoint",
    "empty-folder": "Expected one checkpoint",
    "piped": "a pipe, device or socket",
    "words": "is of string, not of numbers",
    "overflow": "its reader ended with status -6",
    "older.pth": "'sizes of tensors' of 640,000,000,",
    "operations.pth": "over 1,000,000 operations",
    "twice.pth": "uses a value twice that is no text",
    "again.pth": "calls 'builtins bytearray'",
    "calls.pth": "calls 'STACK_GLOBAL'",
    "text.pth": "Expected a state dict of tensors",
    "tar.pth": "Expected a state dict of tensors",
    "bomb.pth": "at most 200,000,000 bytes",
    "lie.safetensors": "Expected a file of safetensors",
    "bf16.safetensors": "Expected a file of safetensors",
    "long.safetensors": "a header of 4,611,686,018,427,387,904 bytes",
    "many.safetensors": "a header of ",
}
OF_TORCH = {
    "expanded.pth": "'fc.bias' of 6,400,000,000 bytes",
    "sparse.pth": "calls 'torch._utils _rebuild_sparse_tensor'",
    "meta.pth": "calls 'torch._utils _rebuild_meta_tensor_no_storage'",
    "bfloat16.pth": "Expected a state dict of ordinary tensors",
    "code.pth": "Expected a state dict of tensors. Received",
    "no-tensors.pth": "Expected a state dict: names and tensors alone",
}
# Models that the reader of weights does not build.
LOADED = {
    "many-units.keras": "'predictions_logits/kernel' of 12,000,000,000 bytes",
    "large-input.keras": "of shape (1, 100000, 100000, 3)",
    "loop.keras": "loops or disconnected nodes",
    "function.keras": "the function 'set_backend'",
    "quantized.keras": "Received: 'QuantizedDTypePolicy'",
    "words.keras": "the dtype 'string'",
    "window.keras": "513 in layer 'wide'",
    "unrolled.keras": "Expected layers of a classifier of images. Received: 'LSTM'",
    "dotted.keras": "Received: 'layers.StringLookup'",
    "called.keras": "Expected at most 2,000 layers and calls of layers",
    "sequence.keras": "Received: 0 and 101",
    "tiled.keras": "of shape (1, 80000, 80000, 3)",
    "input-alone.keras": "output_shape=(8, 8, 3)",
    "empty-config.keras": "Expected a model. Received: dict",
    "member-bomb.keras": "at most 200,000,000 bytes",
    "other-bomb.keras": "at most 200,000,000 bytes",
    "linked.keras": "but ExternalLink",
    "member-link.keras": "is a link",
    "overlap.keras": "overlaps another one",
    "deep.keras": "nested too deep",
    "pipe.keras": "or a .keras file",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """The exit code and the output for each file."""
    folder = tmp_path_factory.mktemp("hostile")
    script = Path(__file__).with_name("hostile_files.py")
    result = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]  # below 0: a limit ended it
    assert not (folder / "to.weights.h5").exists()
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", REFUSED)
def test_a_crafted_file_is_refused_in_one_line(answers, name):
    code, output = answers[name]
    assert code == 2, output
    assert output.startswith("Error: Expected ")
    assert output.count("\n") == 1
    assert REFUSED[name] in output
    assert SECRET[:20] not in output
    assert len(output) < 2000


@pytest.mark.torch
@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
@pytest.mark.parametrize("name", OF_TORCH)
def test_a_crafted_state_dict_of_torch_is_refused(answers, name):
    code, output = answers[name]
    assert (code, output.count("\n")) == (2, 1), output
    assert OF_TORCH[name] in output
    assert "weights_only" not in output  # torch tells how to run the file's code
    assert not Path("code-ran.pth").exists()


@pytest.mark.parametrize("name", LOADED)
def test_a_crafted_model_is_refused_before_it_is_loaded(answers, name):
    code, message = answers[f"predict {name}"]
    assert code == 2
    assert LOADED[name] in message


def test_keras_does_not_warn_of_a_file_that_it_cannot_load(tmp_path):
    build_network(VARIANTS["nano"]).save(tmp_path / "nano.keras")
    with h5py.File(tmp_path / "other.weights.h5", "w") as file:
        file.create_group("layers/conv2d/vars")
    other = tmp_path / "other.keras"
    with zipfile.ZipFile(tmp_path / "nano.keras") as whole, zipfile.ZipFile(other, "w") as archive:
        archive.writestr("config.json", whole.read("config.json"))
        archive.writestr("metadata.json", whole.read("metadata.json"))
        archive.write(tmp_path / "other.weights.h5", "model.weights.h5")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="Expected a model that Keras can load"):
            load_keras(other)
    assert [str(warning.message) for warning in shown] == []


def test_every_file_that_is_written_is_tested(answers):
    tested = {*REFUSED, *LOADED, *(OF_TORCH if HAS_TORCH else {})}
    assert {name.removeprefix("predict ") for name in answers} == tested


def test_the_allowance_is_that_of_the_network():
    path = Path("file.caffemodel")
    assert allowance(path).size == 200_000_000
    assert allowance(path, VARIANTS["paper"]).size == 13_378_280 * 16  # facts of the paper's
    assert allowance(path, VARIANTS["nano"]).size == 200_000_000


def test_an_allowance_is_used_up():
    allowed = Allowance(Path("x"), 100)
    allowed.take_array("a", (5, 5), 4)
    allowed.take("nothing", 0)
    with pytest.raises(ValueError, match=r"'b' of 1 bytes, with 0 left"):
        allowed.take("b", 1)
    with pytest.raises(ValueError, match="0 or more elements"):
        allowed.take_array("c", (-1,), 0)


def test_a_zipped_member_that_is_longer_than_it_says_is_not_unpacked(tmp_path):
    path = tmp_path / "longer.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(100_000_000))
    data = bytearray(path.read_bytes())
    sizes = data.index(b"PK\1\2") + 24  # in the directory: the unpacked bytes
    data[sizes : sizes + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="Bad CRC-32 for file 'x'"):
            read_zip(path, Allowance(path), "x")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended with status -11"),
        ("raise OSError('no disk')", "status 1: 'OSError: no disk'"),
        ("isolated.limit(0.2, 0)\nwhile True: pass", "more than 5 s to read"),
        ("isolated.limit(9, 50_000_000)\nbytearray(10**9)", "status 1: 'MemoryError'"),
        ("isolated.limit(9, 50_000_000)\nPath('left').write_text('x')", "File too large"),
        ("print('a reason')\nsys.exit(isolated.REFUSED)", "a reason"),
    ],
    ids=["crash", "exception", "time", "memory", "disk", "refusal"],
)
def test_a_crash_of_the_reader_is_an_error(tmp_path, monkeypatch, body, reason):
    lines = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom keras_inception import isolated\n"
    )
    (tmp_path / "reader_of_the_test.py").write_text(lines + body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(reason)):
        isolated.check("reader_of_the_test", b"", 0)


def test_a_profiler_that_ignores_the_signal_does_not_lift_the_limit(tmp_path, monkeypatch):
    body = "from keras_inception import isolated\nisolated.limit(0.2, 0)\nwhile True: pass"
    (tmp_path / "endless_reader.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    try:
        with pytest.raises(ValueError, match="more than 5 s to read"):
            isolated.check("endless_reader", b"", 0)
    finally:
        signal.signal(signal.SIGPROF, before)


def test_a_network_larger_than_the_public_ones_is_read_from_our_own_file(tmp_path, monkeypatch):
    from keras_inception.weights import keras_file

    monkeypatch.setattr(keras_file, "LEAST_BYTES", 1000)  # nano's weights have 160 kB
    path = tmp_path / "nano.weights.h5"
    build_network(VARIANTS["nano"]).save_weights(path)
    assert len(read_source(path).arrays) > 50
    with h5py.File(path, "r+") as file:
        file.create_dataset("more", (10_000_000,), "u1", chunks=(1000,), compression="gzip")[:1] = 1
    with pytest.raises(ValueError, match="'/more' of 10,000,000 bytes"):
        read_source(path)


def test_compressed_arrays_are_read(tmp_path):
    """As h5repack writes them."""
    plain, packed = tmp_path / "plain.weights.h5", tmp_path / "packed.weights.h5"
    build_network(VARIANTS["nano"]).save_weights(plain)
    with h5py.File(plain) as source, h5py.File(packed, "w") as target:

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                target.create_dataset(name, data=item[()], compression="gzip", chunks=True)
            else:
                target.require_group(name).attrs.update(item.attrs)

        source.visititems(copy)
    for left, right in zip(
        GoogLeNet(weights=plain, variant="nano").get_weights(),
        GoogLeNet(weights=packed, variant="nano").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(left, right)
