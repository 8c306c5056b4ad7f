"""What happens when Keras or TensorFlow is imported after this package, without importing either.

`keras.saving.load_model` finds a custom layer only if it is registered. Importing Keras for that
would cost seconds to programs that only ask for `--help` or read a spec. TensorFlow is imported
without its log lines. Standard library only.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from keras_inception.quiet import LOGGER, quiet_logger, quiet_tensorflow

LAYERS = "keras_inception.network.registered_layers"


def follow_imports() -> None:
    """Register the layers with Keras, now or right after its import; keep both imports quiet."""
    if "keras" in sys.modules:
        importlib.import_module(LAYERS)
    else:
        sys.meta_path.insert(0, _Import("keras", then=LAYERS))
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _Import("tensorflow"))


class _Import(importlib.abc.MetaPathFinder):
    """Finds a package as the other finders do; imports the module `then` once it has run."""

    def __init__(self, package: str, then: str | None = None) -> None:
        self._package = package
        self._then = then

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the package, with a loader that does what this class does."""
        if name != self._package:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_quietly(module: ModuleType) -> None:
            level = logging.getLogger(LOGGER).level
            with quiet_tensorflow():
                execute(module)
            if name == "tensorflow":
                quiet_logger(level)
            if self._then is not None:
                importlib.import_module(self._then)

        spec.loader.exec_module = execute_quietly  # type: ignore[method-assign]
        return spec
