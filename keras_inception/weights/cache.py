"""Download and convert a published set once, and keep both files in Keras's cache."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras

from keras_inception.bounded import Allowance, read_file
from keras_inception.files import aside, write_text
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import VARIANTS
from keras_inception.weights.assign import assign
from keras_inception.weights.download import download
from keras_inception.weights.manifest import Digest, WeightsEntry
from keras_inception.weights.readers import read_source
from keras_inception.weights.source import converted

# Part of the names of converted files: increase it when the output of a reader changes.
_CONVERSION = 1
_MOST_PIN = 1000
Build = Callable[[NetworkSpec], keras.Model]


def cache_folder() -> Path:
    """Return the cache folder, `models/keras_inception` in `$KERAS_HOME` (default `~/.keras`)."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(home) / "models" / "keras_inception"


def fetch(entry: WeightsEntry) -> Path:
    """Return the published file of a set; download it to the cache and check its digest.

    Raises:
        OSError: if it cannot be downloaded whole.
        ValueError: if the file is not the published one.
    """
    path = cache_folder() / entry.filename
    if path.is_file():
        _check_digest(path, path, entry, f"Delete it to fetch it again from {entry.url}.")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as partial:
        try:
            wrong = download(entry.url, partial)
        except OSError as error:
            raise _not_fetched(entry, path, str(error)) from error
        if wrong is not None and not _fits(partial, path, entry):
            raise _not_fetched(entry, path, wrong)
        _check_digest(partial, path, entry, f"It came from {entry.url} and was not kept.")
    return path


def _not_fetched(entry: WeightsEntry, path: Path, reason: str) -> OSError:
    return OSError(
        f"Expected to fetch the {entry.name!r} weights from {entry.url}. Received: {reason}. "
        f"Without a network, put the file at {path} yourself, or use weights=None for a fresh "
        "network."
    )


def pin_digest(entry: WeightsEntry) -> None:
    """Record the sha256 of a cached file, once, if its source does not publish a complete digest.

    To be called when its keys and shapes have been found right. The file must have the same digest
    from then on.
    """
    path = cache_folder() / entry.filename
    pin = _pin_of(path)
    if (entry.digest is not None and entry.digest.is_complete) or pin.exists():
        return
    found = _digest_of(path, "sha256")
    write_text(pin, f"{found}\n")
    warnings.warn(
        f"No source publishes a complete digest of {entry.filename}. Its keys and shapes fit; its "
        f"sha256 {found} is recorded in {pin} and checked from now on.",
        stacklevel=2,
    )


def _pin_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


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
    pin_digest(entry)
    with aside(path) as partial:
        model.save_weights(partial)
    return path


def _has_heads(arrays: dict, spec: NetworkSpec) -> bool:
    return any(name.startswith(f"{aux.name}_") for aux in spec.aux for name in arrays)


def _digests(path: Path, entry: WeightsEntry) -> list[Digest]:
    """Return the published digest and the recorded one of a cached file, as far as they exist."""
    digests = [] if entry.digest is None else [entry.digest]
    pin = _pin_of(path)
    if pin.exists():
        value = read_file(pin, Allowance(pin, _MOST_PIN)).decode("ascii", "replace").strip()
        digests.append(Digest(algorithm="sha256", value=value, source=str(pin)))
    return digests


def _fits(file: Path, path: Path, entry: WeightsEntry) -> bool:
    """Return whether a file has a digest of the set, and every digest of it."""
    digests = _digests(path, entry)
    return bool(digests) and all(
        _digest_of(file, digest.algorithm).startswith(digest.value) for digest in digests
    )


def _check_digest(file: Path, path: Path, entry: WeightsEntry, remedy: str) -> None:
    for digest in _digests(path, entry):
        found = _digest_of(file, digest.algorithm)
        if not found.startswith(digest.value):
            raise ValueError(
                f"Expected the {digest.algorithm} {digest.value} (source: {digest.source}). "
                f"Received: {found} of {file}. The file is damaged or another one. {remedy}"
            )


def _digest_of(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
