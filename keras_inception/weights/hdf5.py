"""Checks of HDF5 files before anything is read from them.

HDF5 can store an array in any other file of the machine, map it from other arrays, link to other
files, and announce sizes that it does not store. Keras writes none of these.

    python -m keras_inception.weights.hdf5 SECONDS BYTES PATH ALLOWANCE < FILE  # in `check_hdf5`
"""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from keras_inception.bounded import Allowance, shown
from keras_inception.isolated import REFUSED, check, limit

_MOST_OBJECTS = 20_000
_MOST_CHUNKS = 100_000
# Bytes that the HDF5 library takes for itself.
_LIBRARY = 20_000_000
_NUMBERS = "biufV"  # V: bfloat16, of two bytes


def check_hdf5(content: bytes, allowance: Allowance) -> None:
    """Refuse an HDF5 file with links, arrays outside of it, or arrays larger than the allowance.

    Everything in it is read once by a child process, since damaged files crash the HDF5 library,
    or have it loop for ever.

    Args:
        content: of the file.
        allowance: of the reader; all arrays together are taken from it.

    Raises:
        ValueError: naming what is refused.
    """
    path, size = str(allowance.path), allowance.size
    try:
        # Of each array, HDF5 holds a chunk, NumPy the array.
        memory = _LIBRARY + 2 * len(content) + 3 * size
        check(__spec__.name, content, memory, path, str(size))
    except ValueError as error:
        if str(error).startswith("Expected"):
            raise
        raise ValueError(
            f"Expected HDF5 as Keras saves it. Received: {path!r} ({error})"
        ) from error


def main() -> None:
    """Check the file on standard input within limits: seconds, bytes, its path, its allowance."""
    seconds, memory, path, size = sys.argv[1:]
    limit(float(seconds), int(memory))
    try:
        _check_objects(io.BytesIO(sys.stdin.buffer.read()), Allowance(Path(path), int(size)))
    except Exception as error:  # HDF5's errors for damage are of many kinds
        known = isinstance(error, ValueError) and str(error).startswith("Expected")
        print(error if known else f"{type(error).__name__}: {error}", end="")
        sys.exit(REFUSED)


def _check_objects(content: BinaryIO, allowance: Allowance) -> None:
    with h5py.File(content, "r") as file:
        seen = {_address(file)}
        _check_attributes(file, allowance)
        waiting = [file["/"]]
        while waiting:
            group = waiting.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise _refused(allowance, name, f"no array, but {type(link).__name__}")
                item = group[name]
                address = _address(item)
                if address in seen:
                    raise _refused(allowance, item.name, "a second link to the same object")
                seen.add(address)
                _check_attributes(item, allowance)
                if len(seen) > _MOST_OBJECTS:
                    raise _refused(allowance, item.name, f"one of over {_MOST_OBJECTS:,} objects")
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                else:
                    _check_array(item, allowance)


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def _check_array(item: Any, allowance: Allowance) -> None:
    if not isinstance(item, h5py.Dataset):
        raise _refused(allowance, item.name, f"a {type(item).__name__}")
    if item.is_virtual or item.external:
        raise _refused(allowance, item.name, "stored outside of the file")
    if item.shape is None or item.dtype.kind not in _NUMBERS or item.dtype.names:
        raise _refused(allowance, item.name, f"of the type {shown(item.dtype)}, not numbers")
    if item.size and not item.id.get_storage_size():
        raise _refused(allowance, item.name, "announced, but not stored")
    allowance.take_array(item.name, item.shape, item.dtype.itemsize)
    if item.chunks:  # HDF5 unpacks one chunk at a time, whatever the array's size
        counts = (-(-size // one) for size, one in zip(item.shape, item.chunks, strict=True))
        if math.prod(counts) > _MOST_CHUNKS:
            raise _refused(allowance, item.name, f"in over {_MOST_CHUNKS:,} chunks")
        allowance.take_array(f"a chunk of {item.name}", item.chunks, item.dtype.itemsize)
    item[()]


def _check_attributes(item: Any, allowance: Allowance) -> None:
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        allowance.take(f"attribute {name}", attribute.get_storage_size())
        item.attrs[name]


def _refused(allowance: Allowance, name: str, what: str) -> ValueError:
    return ValueError(
        f"Expected arrays of numbers inside the file, as Keras saves them. Received: "
        f"{str(allowance.path)!r}, in which {shown(name)} is {what}."
    )


if __name__ == "__main__":
    main()
