"""Checks of HDF5 files before anything is read from them.

HDF5 can store an array in any other file of the machine, map it from other arrays, link to other
files, and announce sizes that it does not store. Keras writes none of these.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import h5py

from keras_inception.bounded import Allowance, shown

_MOST_OBJECTS = 100_000
_NUMBERS = "biufV"  # V: bfloat16, of two bytes


def check_hdf5(content: BinaryIO, allowance: Allowance) -> None:
    """Refuse an HDF5 file with links, arrays outside of it, or arrays larger than the allowance.

    Args:
        content: the file, in memory or opened.
        allowance: of the reader; all arrays together are taken from it.

    Raises:
        ValueError: naming what is refused.
        OSError: no HDF5.
    """
    try:
        _check_objects(content, allowance)
    except (RuntimeError, TypeError, KeyError, AttributeError) as error:  # HDF5's, for damage
        raise ValueError(
            f"Expected HDF5 as Keras saves it. Received: {str(allowance.path)!r} "
            f"({type(error).__name__}: {error})"
        ) from error


def _check_objects(content: BinaryIO, allowance: Allowance) -> None:
    with h5py.File(content, "r") as file:
        seen = {_address(file)}
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
        allowance.take_array(f"a chunk of {item.name}", item.chunks, item.dtype.itemsize)


def _refused(allowance: Allowance, name: str, what: str) -> ValueError:
    return ValueError(
        f"Expected arrays of numbers inside the file, as Keras saves them. Received: "
        f"{str(allowance.path)!r}, in which {shown(name)} is {what}."
    )
