"""Open an exported network in a child process with limits, before this process opens it.

The runtimes of ONNX, OpenVINO and LiteRT crash on some damaged files, and a network may compute for
ever or in any amount of memory. A child that does so is ended, and its file refused. A SavedModel
is opened without a child, which would take 6 s: it is a program that may also write files, so that
nobody should open one of unknown origin.
"""

from __future__ import annotations

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keras_inception import isolated
from keras_inception.bounded import bytes_on_disk, require_file
from keras_inception.packages import require_package
from keras_inception.runtimes.exported import RUNTIME_PACKAGES, open_exported, runtime_of

# Of processor time, to load and to classify one image; the paper's network takes 3 s or less.
_SECONDS = 30.0
# The paper's network takes 0.5 GB in the runtime that takes most; larger ones are larger files.
_LEAST_MEMORY = 2_000_000_000
_MEMORY_PER_BYTE = 20


def check_exported(path: Path) -> None:
    """Refuse an exported network that does not classify an image within the limits.

    Raises:
        MissingPackageError: its runtime is not installed.
        ValueError: naming the file.
    """
    package = RUNTIME_PACKAGES[str(runtime_of(path))]
    require_package(package)
    weights = path.with_suffix(".bin")  # of OpenVINO
    parts = path.rglob("*") if path.is_dir() else [path, *([weights] if weights.exists() else [])]
    files = [part for part in parts if not part.is_dir()]
    for file in files:
        require_file(file)  # a pipe would be read for ever
    if path.is_dir():
        return
    memory = _LEAST_MEMORY + _MEMORY_PER_BYTE * sum(map(bytes_on_disk, files))
    try:
        with ThreadPoolExecutor(1) as pool:
            child = pool.submit(isolated.check, __name__, b"", memory, str(path), seconds=_SECONDS)
            importlib.import_module(package)  # which takes as long, and is needed next
            child.result()
    except ValueError as error:
        if repr(str(path)) in str(error):
            raise
        raise ValueError(
            f"Expected a whole model, as `keras-inception export` writes it. Received: "
            f"{str(path)!r} ({error})"
        ) from error


def _main(seconds: str, memory: str, path: str) -> int:
    importlib.import_module(RUNTIME_PACKAGES[str(runtime_of(Path(path)))])
    isolated.limit(float(seconds), int(memory))
    try:
        open_exported(Path(path), threads=1)
    except ValueError as error:
        print(error)
        return isolated.REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
