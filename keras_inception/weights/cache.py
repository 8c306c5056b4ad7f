"""Download and convert a published set once, and keep both files in Keras's cache."""

from __future__ import annotations

import hashlib
import os
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras

from keras_inception.files import aside
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import VARIANTS
from keras_inception.weights.assign import assign
from keras_inception.weights.manifest import Digest, WeightsEntry
from keras_inception.weights.readers import read_source
from keras_inception.weights.source import converted

# Part of the names of converted files: increase it when the output of a reader changes.
_CONVERSION = 1
Build = Callable[[NetworkSpec], keras.Model]


def cache_folder() -> Path:
    """Return the cache folder, `models/keras_inception` in `$KERAS_HOME` (default `~/.keras`)."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(home) / "models" / "keras_inception"


def fetch(entry: WeightsEntry) -> Path:
    """Return the published file of a set; download it to the cache and check its hash.

    Raises:
        OSError: if it cannot be downloaded.
        ValueError: if the file is not the published one.
    """
    path = cache_folder() / entry.filename
    if path.is_file():
        _check_digest(path, entry.digest, f"Delete it to fetch it again from {entry.url}.")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as partial:  # get_file writes in place
        try:
            keras.utils.get_file(
                partial.name, entry.url, cache_dir=path.parent, cache_subdir="", force_download=True
            )
        except Exception as error:  # get_file raises plain Exception
            if isinstance(error.__context__, urllib.error.HTTPError):
                error.__context__.close()  # it holds the connection that get_file leaves open
            raise OSError(
                f"Expected to fetch the {entry.name!r} weights from {entry.url}. Received: "
                f"{error}. Without a network, put the file at {path} yourself, or use "
                "weights=None for a fresh network."
            ) from error
        _check_digest(partial, entry.digest, f"It came from {entry.url} and was not kept.")
    return path


def imagenet_weights(entry: WeightsEntry, classes: int | None, build: Build) -> Path:
    """Return a set as a `.weights.h5` with all its classifiers; convert it to the cache.

    Args:
        entry: an entry of the manifest.
        classes: 1001 to keep TF-Slim's background; default the variant's.
        build: builds the model of a spec, with auxiliary classifiers if the spec has any.

    Raises:
        OSError: if it cannot be downloaded.
        ValueError: if the file is not the published one.
    """
    spec = VARIANTS[entry.variant]
    classes = spec.classes if classes is None else classes
    name = f"{entry.name}_{classes}_v{_CONVERSION}.weights.h5"
    path = cache_folder() / name
    if path.is_file():
        return path
    published = fetch(entry)
    try:
        source = read_source(published, classes=classes)
        arrays = converted(source)
        spec = replace(spec, classes=classes)
        model = build(spec if _has_heads(arrays, spec) else replace(spec, aux=()))
        assign(model, arrays)
    except ValueError as error:
        raise ValueError(f"{error}\nDelete {published} to fetch it again.") from error
    with aside(path) as partial:
        model.save_weights(partial)
    return path


def _has_heads(arrays: dict, spec: NetworkSpec) -> bool:
    return any(name.startswith(f"{aux.name}_") for aux in spec.aux for name in arrays)


def _check_digest(path: Path, digest: Digest | None, remedy: str) -> None:
    if digest is None:
        return  # only keys and shapes can be checked, during conversion
    with path.open("rb") as file:
        found = hashlib.file_digest(file, digest.algorithm).hexdigest()
    if not found.startswith(digest.value):
        raise ValueError(
            f"Expected the {digest.algorithm} {digest.value} (source: {digest.source}). Received: "
            f"{found} of {path}. The file is damaged or another one. {remedy}"
        )
