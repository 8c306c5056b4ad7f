"""Writes small files that readers of weights must refuse, and reads each in a limited process.

    python hostile_files.py FOLDER    # writes them, reads them, prints {name: [exit code, output]}

The process that reads has 1.5 GB of address space beyond its imports, two minutes of processor
time, and writes no file above 300 MB: what takes more memory, disk or time than that ends it.
"""

import gzip
import io
import json
import os
import pickle
import resource
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
from onnx import TensorProto, helper

MANY = 800_000_000  # float32 numbers: 3.2 GB
SECRET = "what is in a private file " * 10


def hdf5(folder: Path) -> None:
    """A file of Keras's layout in which the bias of one layer is what the name says."""

    def edited(name: str, edit) -> None:
        with h5py.File(folder / f"{name}.weights.h5", "w") as file:
            variables = file.create_group("layers/conv2d/vars")
            variables.attrs["name"] = "conv1_conv"
            variables["0"] = np.zeros((7, 7, 3, 64), np.float32)
            edit(file, variables)

    secret = folder / "secret.bin"
    secret.write_text(SECRET)
    with h5py.File(folder / "other.h5", "w") as other:
        other["1"] = np.arange(64, dtype=np.float32)
    layout = h5py.VirtualLayout((64,), "f4")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "1", (64,))
    shape = (64,)

    def data(**settings):
        return lambda file, variables: variables.create_dataset("1", dtype="f4", **settings)

    def compressed(file, variables) -> None:
        chunks = variables.create_dataset(
            "1", (MANY,), "f4", chunks=(1_000_000,), compression="gzip"
        )
        chunks[:10] = 1

    def one_chunk(file, variables) -> None:
        array = variables.create_dataset(
            "1", (10,), "f4", maxshape=(None,), chunks=(MANY,), compression="gzip"
        )
        array.id.write_direct_chunk((0,), zlib.compress(b""))  # to be unpacked whole

    def link(value):
        return lambda file, variables: variables.__setitem__("1", value)

    def cycle(file, variables) -> None:
        variables["1"] = file["layers"]

    def second(file, variables) -> None:
        variables["1"] = variables["0"]

    def layers(file, variables) -> None:
        del file["layers"]
        file["layers"] = np.zeros(3)

    def vars_(file, variables) -> None:
        del file["layers/conv2d/vars"]
        file["layers/conv2d/vars"] = np.zeros(3)

    def name(file, variables) -> None:
        variables.attrs["name"] = np.arange(3)

    def many(file, variables) -> None:
        for index in range(50):  # each within the limits, together not
            variables.create_dataset(str(index + 1), (10_000_000,), "u1", chunks=(10_000,))[:1] = 1

    def tiny_chunks(file, variables) -> None:
        variables.create_dataset("1", (10_000_000,), "f4", chunks=(10,))[:10] = 1

    def unknown_filter(file, variables) -> None:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk(shape)
        settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
        space, kind = h5py.h5s.create_simple(shape), h5py.h5t.IEEE_F32LE
        held = h5py.h5d.create(variables.id, b"1", kind, space, settings)
        held.write_direct_chunk((0,), b"what the filter made", 0)

    edited("external", data(shape=shape, external=[(str(secret), 0, 256)]))
    edited("virtual", lambda file, variables: variables.create_virtual_dataset("1", layout))
    edited("soft-link", link(h5py.SoftLink("/layers/conv2d/vars/0")))
    edited("external-link", link(h5py.ExternalLink(str(folder / "other.h5"), "1")))
    edited("cycle", cycle)
    edited("second-link", second)
    edited("unallocated", data(shape=(MANY,)))
    edited("compressed", compressed)
    edited("one-chunk", one_chunk)
    edited("together", many)
    edited("tiny-chunks", tiny_chunks)
    edited("groups", lambda file, variables: [file.create_group(str(i)) for i in range(20_001)])
    edited("strings", link(np.array([b"text"], object)))
    edited("pairs", link(np.zeros(3, [("a", "f4"), ("b", "f4")])))
    edited("group", lambda file, variables: variables.create_group("1"))
    edited("layers-array", layers)
    edited("vars-array", vars_)
    edited("name-array", name)
    edited("endless-heap", lambda file, variables: None)
    path = folder / "endless-heap.weights.h5"
    data = bytearray(path.read_bytes())
    first = data.index(b"GCOL") + 16  # of the heap's objects; a size of 0 has HDF5 loop for ever
    data[first : first + 16] = bytes(16)
    path.write_bytes(data)
    edited("unknown-filter", unknown_filter)
    edited("references", link(np.array([b""], h5py.ref_dtype)))
    edited("committed", lambda file, variables: variables.__setitem__("1", np.dtype("f4")))
    (folder / "text.weights.h5").write_text("no HDF5")


def keras_files(folder: Path) -> None:
    """`.keras` files of a small model, with one part replaced."""
    pixels = keras.Input((8, 8, 3), name="pixels_tf")
    x = keras.layers.Dense(2, name="predictions_logits")(
        keras.layers.GlobalAveragePooling2D(name="avg_pool")(pixels)
    )
    scores = keras.layers.Softmax(name="predictions")(x)
    keras.Model(pixels, scores, name="tiny").save(folder / "whole.keras")
    keras.Model(pixels, pixels, name="alone").save(folder / "input-alone.keras")
    wide = keras.layers.MaxPooling2D(513, 1, padding="same", name="wide")(pixels)
    keras.Model(pixels, wide, name="windowed").save(folder / "window.keras")
    with zipfile.ZipFile(folder / "whole.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def archived(name: str, changes: dict, compression: int = zipfile.ZIP_DEFLATED) -> Path:
        path = folder / f"{name}.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for member, content in (parts | changes).items():
                archive.writestr(member, content)
        return path

    def config(name: str, edit) -> None:
        document = json.loads(parts["config.json"])
        edit(document["config"]["layers"])
        archived(name, {"config.json": json.dumps(document)})

    def units(layers) -> None:
        layers[2]["config"]["units"] = 10**9

    def sizes(layers) -> None:
        layers[0]["config"]["batch_shape"] = [None, 100_000, 100_000, 3]
        layers[1]["build_config"] = None

    def loop(layers) -> None:
        history = layers[1]["inbound_nodes"][0]["args"][0]["config"]
        history["keras_history"] = ["predictions_logits", 0, 0]

    def unrolled(layers) -> None:
        layers[1]["class_name"] = "LSTM"

    def dotted(layers) -> None:
        layers[1] |= {"module": "keras", "class_name": "layers.StringLookup"}
        layers[1]["config"]["vocabulary"] = "/etc/passwd"

    def called(layers) -> None:
        layers[1]["inbound_nodes"] *= 2000

    def tiled(layers) -> None:
        layers[1] |= {"module": "keras.src.ops.numpy", "class_name": "Tile"}
        layers[1]["config"] = {"name": "avg_pool", "repeats": [1, 10_000, 10_000, 1]}
        layers[1]["build_config"] = None
        history = layers[2]["inbound_nodes"][0]["args"][0]["config"]
        history["shape"] = [None, 80_000, 80_000, 3]

    def function(layers) -> None:
        set_backend = {"module": "keras.config", "class_name": "function", "config": "set_backend"}
        layers[2]["config"]["activation"] = set_backend

    def quantized(layers) -> None:
        policy = {"mode": "int8", "source_name": "float32"}
        named = {"module": "keras", "class_name": "QuantizedDTypePolicy", "config": policy}
        layers[2]["config"]["dtype"] = named

    config("function", function)
    config("quantized", quantized)
    config("words", lambda layers: layers[0]["config"].update(dtype="string"))
    config("unrolled", unrolled)
    config("dotted", dotted)
    config("called", called)
    config("tiled", tiled)
    listed = [{"class_name": "Activation", "config": {"activation": "relu"}}] * 101
    sequence = {"class_name": "Sequential", "config": {"layers": listed}}
    archived("sequence", {"config.json": json.dumps(sequence)})
    config("many-units", units)
    config("large-input", sizes)
    config("loop", loop)
    archived("member-bomb", {"model.weights.h5": bytes(300_000_000)})
    archived("other-bomb", {"assets/x": bytes(300_000_000)})
    archived("config-bomb", {"config.json": b" " * 100_000_000 + parts["config.json"]})
    archived("deep", {"config.json": "[" * 100_000 + "]" * 100_000})
    archived("nested", {"config.json": "[" * 500 + "]" * 500})
    archived("values", {"config.json": "[" + "0," * 2_000_000 + "0]"})
    archived("list", {"config.json": "[]"})
    archived("empty-config", {"config.json": "{}"})
    archived("long-number", {"config.json": "9" * 5000})
    archived("bzip2", {}, zipfile.ZIP_BZIP2)
    archived("outside", {"../outside": b""})
    with io.BytesIO() as content:
        with h5py.File(content, "w") as file:
            file["layers"] = h5py.ExternalLink(str(folder / "other.h5"), "1")
        archived("linked", {"model.weights.h5": content.getvalue()})
    link = zipfile.ZipInfo("model.weights.h5")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(folder / "member-link.keras", "w") as archive:
        archive.writestr("config.json", parts["config.json"])
        archive.writestr(link, b"/etc/passwd")
    with zipfile.ZipFile(folder / "twice.keras", "w") as archive:
        for name in ("config.json", "config.json", "model.weights.h5"):
            archive.writestr(name, parts[name])
    _overlapping(archived("overlap", {}, zipfile.ZIP_STORED))
    _encrypted(archived("encrypted", {}))
    path = archived("two-directories", {}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes() + path.read_bytes())  # ZipFile reads the last one
    path = archived("comment", {})
    path.write_bytes(path.read_bytes()[:-2] + b"\4\0text")
    with zipfile.ZipFile(folder / "many-members.keras", "w") as archive:
        for index in range(66_000):
            archive.writestr(f"{index:060}", b"")
    (folder / "directory.keras").mkdir()
    os.mkfifo(folder / "pipe.keras")
    os.mkfifo(folder / "pipe.weights.h5")
    (folder / "zeros.weights.h5").symlink_to("/dev/zero")


def _overlapping(path: Path) -> None:
    """Let the directory's last entry point at the first member."""
    data = bytearray(path.read_bytes())
    last = data.rfind(b"PK\1\2")
    data[last + 42 : last + 46] = struct.pack("<L", 0)
    path.write_bytes(data)


def _encrypted(path: Path) -> None:
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\1\2")
    data[entry + 8] |= 1
    path.write_bytes(data)


def messages(folder: Path) -> None:
    """Caffe, TensorFlow and ONNX: protocol buffers."""
    from tensorflow.core.framework import graph_pb2

    (folder / "layers.caffemodel").write_bytes(b"\x12\x00" * 4_000_000)
    (folder / "blobs.caffemodel").write_bytes(b"\x12\x80\x89\x7a" + b"\x32\x00" * 1_000_000)
    (folder / "group.caffemodel").write_bytes(b"\x13" * 1000)
    (folder / "text.caffemodel").write_text("no network")
    with (folder / "hole.caffemodel").open("wb") as file:
        file.truncate(5 << 30)

    def graph(name: str, shape: list[int], count: int = 1) -> None:
        found = graph_pb2.GraphDef()
        for index in range(max(count, 1)):
            node = found.node.add(name=f"{name}{index}" if count else name, op="Const")
            tensor = node.attr["value"].tensor
            tensor.dtype = 1
            tensor.float_val.append(1)
            for size in shape:
                tensor.tensor_shape.dim.add(size=size)
        for index in range(2):  # the constants of inception5h
            node = found.node.add(name=f"lrn{index}", op="LRN")
            node.attr["depth_radius"].i = 5
            for key, value in (("alpha", 1e-4), ("beta", 0.5), ("bias", 2.0)):
                node.attr[key].f = value
        (folder / f"{name}.pb").write_bytes(found.SerializeToString())

    graph("large", [40_000, 40_000])
    graph("together", [4_000_000], 100)
    graph("softmax2_b", [40_000_000], 0)
    graph("negative", [-1, 3])
    graph("axes", [1] * 40)
    (folder / "nodes.pb").write_bytes(b"\x0a\x00" * 4_000_000)
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tensorflow_inception_graph.pb", bytes(300_000_000))
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("x", b"")
    onnx_files(folder)


def onnx_files(folder: Path) -> None:
    """ONNX graphs that cannot be walked from an output to the input."""
    outputs = [helper.make_tensor_value_info("a", TensorProto.FLOAT, (1, 1000))]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 224, 224))]

    def saved(name: str, nodes, initializers=(), outputs=outputs) -> None:
        graph = helper.make_graph(nodes, name, inputs, outputs, list(initializers))
        (folder / f"{name}.onnx").write_bytes(helper.make_model(graph).SerializeToString())

    identity = helper.make_node
    saved("cycle", [identity("Identity", ["a"], ["b"]), identity("Identity", ["b"], ["a"])])
    saved("self", [identity("Dropout", ["a"], ["a"])])
    saved("no-output", [identity("Identity", ["x"], ["a"])], outputs=[])
    for kind in ("Softmax", "Identity", "Gemm", "Add", "If"):
        saved(f"bare-{kind}", [identity(kind, [], ["a"])])
    saved("bare-constant", [identity("Constant", [], ["a"]), identity("Constant", [], [])])
    matmul = identity("MatMul", ["p", "k"], ["m"])
    add = identity("Add", ["m", "m"], ["a"])
    saved("add-itself", [matmul, add])
    tensor = TensorProto(name="k", data_type=1, dims=[40_000, 40_000], raw_data=b"")
    dense = [identity("MatMul", ["p", "k"], ["a"])]
    saved("large-tensor", dense, [tensor])
    negative = TensorProto(name="k", data_type=1, dims=[-1, -4], raw_data=bytes(16))
    saved("negative-tensor", dense, [negative])
    words = TensorProto(name="k", data_type=8, dims=[1], string_data=[b"text"])
    saved("word-tensor", [identity("Identity", ["k"], ["a"])], [words])
    for name, place in (("passwd", "/etc/passwd"), ("beside", "secret.bin"), ("up", "../x")):
        outside = TensorProto(name="k", data_type=1, dims=[64], data_location=1)
        for key, value in (("location", place), ("length", "256")):
            outside.external_data.add(key=key, value=value)
        saved(f"external-{name}", [identity("Identity", ["k"], ["a"])], [outside])
    repeated = [
        TensorProto(name=f"k{i}", data_type=1, dims=[4], data_location=1) for i in range(30)
    ]
    for tensor in repeated:
        tensor.external_data.add(key="location", value="external-repeated.onnx.data")
    saved("external-repeated", [identity("Identity", ["k0"], ["a"])], repeated)
    (folder / "external-repeated.onnx.data").write_bytes(bytes(10_000_000))
    (folder / "nodes.onnx").write_bytes(b"\x3a\x80\x92\xf4\x01" + b"\x0a\x00" * 2_000_000)
    (folder / "text.onnx").write_text("no network")


def tars(folder: Path) -> None:
    """TF-Slim's tarball."""

    def packed(name: str, *members: tarfile.TarInfo, mode: str = "w") -> None:
        path = folder / name
        with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
            for member in members:
                content = io.BytesIO(bytes(member.size)) if member.isreg() else None
                archive.addfile(member, content)

    def member(name: str = "inception_v1.ckpt", **fields) -> tarfile.TarInfo:
        made = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(made, field, value)
        return made

    size = 20 << 30
    sparse = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(size)}
    sparse |= {"GNU.sparse.map": f"{size},0", "GNU.sparse.name": "inception_v1.ckpt"}
    packed("sparse.tar", member(pax_headers=sparse))
    packed("sparse.tar.gz", member(pax_headers=sparse), mode="w:gz")
    packed("bomb.tar.gz", member(size=300_000_000), mode="w:gz")
    packed("long-name.tar", member("x" * 100_000 + ".ckpt"))
    packed("link.tar", member(type=tarfile.SYMTYPE, linkname="/etc/passwd"))
    packed("hard-link.tar", member(type=tarfile.LNKTYPE, linkname="/etc/passwd"))
    packed("pipe.tar", member(type=tarfile.FIFOTYPE))
    packed("members.tar", *(member(f"{index}.ckpt") for index in range(5000)))
    header = bytearray(member().tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12  # minus one in base 256
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (folder / "negative.tar").write_bytes(header * 2 + bytes(1024))
    pax = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    pax[156:157] = b"x"
    pax[148:156] = b"        "
    pax[148:156] = b"%06o\0 " % sum(pax)
    (folder / "headers.tar").write_bytes(pax * 5000 + bytes(1024))
    (folder / "text.tar.gz").write_text("no tar")
    (folder / "members.tar.gz").write_bytes(gzip.compress(b"") * 1_000_000)
    # A name of 150 million bytes, which Python's gzip reads one by one.
    name = b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 150_000_000 + bytes(1)
    (folder / "name.tar.gz").write_bytes(name + gzip.compress(b"no tar")[10:])
    with (folder / "hole.tar.gz").open("wb") as file:
        file.write(b"\x1f\x8b")
        file.truncate(5 << 30)
    (folder / "text.ckpt").write_text("no checkpoint")
    (folder / "empty-folder").mkdir()
    piped = folder / "piped"
    piped.mkdir()
    (piped / "model.ckpt.index").write_bytes(b"")
    os.mkfifo(piped / "model.ckpt.data-00000-of-00001")
    import tensorflow as tf

    (folder / "words").mkdir()
    tf.raw_ops.SaveV2(
        prefix=str(folder / "words" / "model.ckpt"),
        tensor_names=["InceptionV1/Logits/Conv2d_0c_1x1/biases"],
        shape_and_slices=[""],
        tensors=[tf.constant(["text"])],
    )
    (folder / "overflow").mkdir()
    prefix = folder / "overflow" / "model.ckpt"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=["InceptionV1/Logits/Conv2d_0c_1x1/biases"],
        shape_and_slices=[""],
        tensors=[tf.zeros([0, 1 << 40, 1 << 40])],
    )
    _overflowing(prefix.with_name("model.ckpt.index"))


def _overflowing(path: Path) -> None:
    """Take the first dimension, 0, from a shape of 0 x 2^40 x 2^40, and mend the checksum."""
    data = bytearray(path.read_bytes())
    end, _ = next(
        (end, crc)
        for end, crc in _checksums(data)
        if data[end : end + 4] == struct.pack("<L", _masked(crc))
    )
    place = data.index(b"\x12\x00\x12\x07")
    data[place] = 0x18  # the dimension of no size becomes "the rank is known"
    crc = next(crc for at, crc in _checksums(data) if at == end)
    data[end : end + 4] = struct.pack("<L", _masked(crc))
    path.write_bytes(data)


def _checksums(data: bytes) -> Iterator[tuple[int, int]]:
    """The CRC-32C (RFC 3720) of each beginning of the data, by its length."""
    crc = 0xFFFFFFFF
    for length, byte in enumerate(data, start=1):
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        yield length, crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    """As LevelDB stores a checksum."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


class _Code:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (os.system, ("touch code-ran.pth",))


def torch_files(folder: Path) -> None:
    """State dicts; torch is not needed to write the pickles of its older format."""

    def pickled(name: str, body: bytes) -> None:
        start = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
        keys = pickle.dumps(["0"], 2)
        (folder / f"{name}.pth").write_bytes(b"".join([*start, body, keys, bytes(16)]))

    # A dictionary of one tensor of MANY elements, as torch's older format writes it.
    number = b"\x8a\x08" + struct.pack("<q", 100 * MANY)
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number + b"NtQK\0"
    tensor += number + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    pickled("older", b"\x80\x02}X\x07\0\0\0fc.bias" + tensor + b"s.")
    pickled("operations", b"\x80\x02" + b"}0" * 2_000_000 + b"}.")
    # A tuple of a tuple, each held twice by the next: its hash takes 2^60 steps.
    twice = b"K\1\x85q\0" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    pickled("twice", b"\x80\x02}" + twice + b"K\1s.")
    # One number, named again by each of a hundred calls that allocate as much.
    again = b"J" + struct.pack("<i", 40_000_000) + b"q\0" + b"cbuiltins\nbytearray\nh\0\x85R" * 100
    pickled("again", b"\x80\x02(" + again + b"l.")
    pickled("calls", b"\x80\x02\x8c\x08builtins\x8c\x04eval\x93.")
    (folder / "text.pth").write_text("no pickle")
    with zipfile.ZipFile(folder / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/data/0", bytes(300_000_000))
    with tarfile.open(folder / "tar.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    header = json.dumps({"a": {"dtype": "F32", "shape": [MANY], "data_offsets": [0, 4]}}).encode()
    (folder / "lie.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (folder / "bf16.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    many = {
        f"{i:06}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)
    }
    header = json.dumps(many).encode()
    (folder / "many.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "long.safetensors").write_bytes(struct.pack("<Q", 1 << 62))
    try:
        import torch
    except ModuleNotFoundError:
        return
    for name, made in {
        "expanded": torch.zeros(1).expand(40_000, 40_000),
        "sparse": torch.sparse_coo_tensor([[0]], [1.0], (100 * MANY,)),
        "meta": torch.zeros(3, device="meta"),
        "bfloat16": torch.zeros(3, dtype=torch.bfloat16),
    }.items():
        torch.save({"fc.bias": made}, folder / f"{name}.pth")
    (folder / "code.pth").write_bytes(pickle.dumps(_Code(), 4))
    torch.save({("a", 1): 3}, folder / "no-tensors.pth")


def write(folder: Path) -> list[str]:
    """Write all files; the names of those to read."""
    for kind in (hdf5, keras_files, messages, tars, torch_files):
        kind(folder)
    others = ("secret.bin", "other.h5", "whole.keras", "external-repeated.onnx.data")
    return sorted(item.name for item in folder.iterdir() if item.name not in others)


def limit() -> None:
    """Bound this process as the module says."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + 1_500_000_000
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000_000, 300_000_000))
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 120, int(used) + 120))


def read(folder: Path, names: list[str]) -> dict[str, list]:
    """Convert each file by the command, and load a `.keras` file as `predict` does."""
    import tensorflow  # noqa: F401
    from typer.testing import CliRunner

    from keras_inception.cli import app
    from keras_inception.runtimes.keras_model import load_keras

    limit()
    found = {}
    for name in names:
        to = str(folder / "to.weights.h5")
        result = CliRunner().invoke(app, ["weights", "convert", str(folder / name), "--to", to])
        found[name] = [result.exit_code, result.output or repr(result.exception)]
        if name.endswith(".keras"):
            try:
                load_keras(folder / name)
                found[f"predict {name}"] = [0, ""]
            except ValueError as error:
                found[f"predict {name}"] = [2, str(error)]
    return found


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps(read(place, write(place))))
