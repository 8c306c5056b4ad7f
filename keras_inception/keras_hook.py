"""Register this package's layer with Keras when Keras is imported, without importing it.

`keras.saving.load_model` finds a custom layer only if it is registered. Importing Keras here would
cost seconds to programs that only ask for `--help` or read a spec. Standard library only.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

LAYERS = "keras_inception.network.lrn"


def register_layers_with_keras() -> None:
    """Import the module with the layer now if Keras is there, otherwise right after Keras."""
    if "keras" in sys.modules:
        importlib.import_module(LAYERS)
    else:
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Finds Keras as the other finders do, and imports `LAYERS` once it has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            importlib.import_module(LAYERS)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
