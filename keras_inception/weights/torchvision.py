"""torchvision's state dict of `googlenet`: `.pth` (both formats of torch.save) or `.safetensors`.

A state dict does not record whether its network had `transform_input`. The released one has it, and
the spec's pixels "tf" are the input of its first convolution. For a network without it, pass
`replace(VARIANTS["torchvision"], pixels="torch")` as `spec`.

Names: torchvision/models/googlenet.py.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_inception.archives import check_zip, read_zip
from keras_inception.bounded import read_file, shown
from keras_inception.packages import explained_imports
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import TORCHVISION
from keras_inception.weights.source import (
    Arrays,
    Source,
    allowance,
    pair_units,
    with_classes,
    with_heads_of,
)

_PARTS = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# torch's older format has five pickles before the tensors; the first two are these numbers.
_PICKLES = 5
_PROTOCOL = b"\x80"  # the first operation of a pickle
_MAGIC = (0x1950A86A20F9469CFC6C, 1001)
# A state dict has some ten thousand operations, and names a tensor's elements once.
_MOST_OPERATIONS = 1_000_000
_ITEM_SIZE = 4
# Of safetensors; GoogLeNet's has some 50,000 bytes.
_MOST_HEADER = 1_000_000
# What the pickle of ordinary tensors calls. Others allocate what they like, such as bytearray.
_CALLED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage"
)
# Operations that also call something; torch writes none of them.
_OTHER_CALLS = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
# What torch writes once and names again. Of a tuple that holds another twice, and so on, the hash
# takes for ever.
_NAMED_AGAIN = ("GLOBAL", "BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING", "BINSTRING")
_UNPICKLER = "WeightsUnpickler error:"
_COUNTER = ".num_batches_tracked"  # number of training steps; not used in inference


def read(path: Path, spec: NetworkSpec | None = None) -> Arrays:
    """Return all arrays of a state dict, without the batch counters.

    Raises:
        MissingPackageError: torch, or safetensors, is not installed.
        ValueError: if it is not a state dict, or contains more than tensors.
    """
    read = _read_safetensors if path.suffix.lower() == ".safetensors" else _read_torch
    tensors = read(path, spec)
    return {name: array for name, array in tensors.items() if not name.endswith(_COUNTER)}


def source(path: Path, spec: NetworkSpec | None) -> Source:
    """Read a state dict for a spec, by default `torchvision`."""
    arrays = read(path, spec)
    spec = spec or with_classes(TORCHVISION, arrays, "fc.bias", 0)
    names = with_heads_of(arrays, name_map(spec), spec)
    return Source(path=path, spec=spec, arrays=arrays, names=names, channels_first=True)


def name_map(spec: NetworkSpec) -> dict[str, str]:
    """This package's variables -> torchvision's; aux1 is on 4a in both, for any output order."""
    units = pair_units(
        spec,
        stem=("conv1", "conv2", "conv3"),
        module=lambda name: f"inception{name}.",
        parts=_PARTS,
    )
    dense = {"predictions_logits": "fc"}
    for index, aux in enumerate(spec.aux, start=1):
        units[f"{aux.name}_proj"] = f"aux{index}.conv"
        dense[f"{aux.name}_dense"] = f"aux{index}.fc1"
        dense[f"{aux.name}_logits"] = f"aux{index}.fc2"
    names = {}
    for own, unit in units.items():
        names[f"{own}_conv/kernel"] = f"{unit}.conv.weight"
        for variable, theirs in _BATCH_NORM.items():
            names[f"{own}_bn/{variable}"] = f"{unit}.bn.{theirs}"
    for own, layer in dense.items():
        names[f"{own}/kernel"] = f"{layer}.weight"
        names[f"{own}/bias"] = f"{layer}.bias"
    return names


def _read_torch(path: Path, spec: NetworkSpec | None) -> Arrays:
    with explained_imports():
        import torch
    _check_torch(path, spec)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that are then refused
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).rpartition(_UNPICKLER)[2].strip()  # before it: how to run its code
        raise ValueError(
            f"Expected a state dict of tensors. Received: {str(path)!r} "
            f"({reason.partition(chr(10))[0]})"
        ) from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        kind = sorted(state)[:10] if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"Expected a state dict: names and tensors alone. Received: {kind} in {str(path)!r}. "
            "Save `model.state_dict()` of the network."
        )
    allowed = allowance(path, spec)
    for name, tensor in state.items():
        # One number may stand for all of an array, by strides of 0.
        allowed.take_array(str(name), tensor.shape, tensor.element_size())
    try:
        return {str(name): tensor.detach().numpy() for name, tensor in state.items()}
    except (RuntimeError, TypeError) as error:  # sparse, quantized, bfloat16 or without storage
        raise ValueError(
            f"Expected a state dict of ordinary tensors. Received: {str(path)!r} ({error})"
        ) from error


def _check_torch(path: Path, spec: NetworkSpec | None) -> None:
    """Bound what torch allocates for a file: zipped as its members say, or by the pickles' numbers.

    Raises:
        ValueError: no regular file, or larger than weights are.
    """
    data = read_file(path, allowance(path, spec))
    if data.startswith(b"PK"):
        names = check_zip(path, allowance(path, spec))
        pickles = [name for name in names if name.lower().endswith("data.pkl")]
        content = read_zip(path, allowance(path, spec), *pickles)
    else:
        content = [data]
    for pickled in content:
        arguments = _arguments(pickled, path)
        numbers = sum(abs(number) for number in arguments if isinstance(number, int))
        allowance(path, spec).take("sizes of tensors", numbers * _ITEM_SIZE)


def _arguments(data: bytes, path: Path) -> Iterator[Any]:
    """Yield the arguments of the operations in the pickles of a file, without running them."""
    stream, count = io.BytesIO(data), 0
    try:
        for _ in range(_PICKLES):
            for argument in _checked_operations(stream):
                count += 1
                if count > _MOST_OPERATIONS:
                    raise ValueError(f"over {_MOST_OPERATIONS:,} operations")
                if argument not in _MAGIC:
                    yield argument
            if data[stream.tell() : stream.tell() + 1] != _PROTOCOL:
                break
    except (ValueError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Expected a state dict of tensors. Received: {str(path)!r} ({error})"
        ) from error


def _checked_operations(stream: io.BytesIO) -> Iterator[Any]:
    """Yield the arguments of one pickle, of a kind that `torch.save` writes for tensors."""
    kinds: dict[Any, str] = {}
    last = ""
    for operation, argument, _ in pickletools.genops(stream):
        name = operation.name
        if name in _OTHER_CALLS or (name == "GLOBAL" and not _CALLED.fullmatch(str(argument))):
            raise ValueError(f"calls {shown(argument or name)}, which no tensors need")
        if name == "MEMOIZE":
            kinds[len(kinds)] = last
        elif name.endswith("PUT"):
            kinds[argument] = last
        elif name.endswith("GET") and kinds.get(argument) not in _NAMED_AGAIN:
            raise ValueError("uses a value twice that is no text")
        else:
            last = name
        yield argument


def _read_safetensors(path: Path, spec: NetworkSpec | None) -> Arrays:
    with explained_imports():
        import safetensors
        import safetensors.numpy
    data = read_file(path, allowance(path, spec))
    size = int.from_bytes(data[:8], "little")
    if size > _MOST_HEADER:
        raise ValueError(
            f"Expected a file of safetensors with at most {_MOST_HEADER:,} bytes of names and "
            f"shapes. Received: {str(path)!r} with a header of {size:,} bytes."
        )
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected a file of safetensors. Received: {str(path)!r} ({error})"
        ) from error
