"""Who may import whom (docs/design.md), read from the sources: a room imports from below only.

A new room is added to `ROWS`, with the packages it needs in `PACKAGES`.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PUBLIC = "keras_inception"  # the package's own __init__: the public names

# From below upwards: the rows of docs/design.md, and within a row what uses the others of it.
# A room may import the rooms of the lines above its own.
ROWS: list[tuple[int, set[str]]] = [
    (0, {"validation", "atomic", "layout"}),
    (0, {"spec", "recipe", "crops"}),
    (0, {"variants"}),
    (1, {"cost", "correlation"}),
    (1, {"budget", "imagenet"}),
    (2, {"blocks", "preprocessing", "weights"}),
    (2, {"strategy", "snapshot", "averaging", "optimizer"}),
    (2, {"model_cost"}),
    (3, {"network"}),
    (4, {"googlenet", "data", "plots", "runtimes"}),
    (4, {"predict", "visualize"}),
    (4, {"export"}),
    (4, {"serve"}),
    (4, {"evaluate"}),
    (4, {"trainer", "initial", "tensorboard"}),
    (4, {"loop"}),
    (4, {"keras_fit"}),
    (4, {"train"}),
    (4, {"design"}),
    (4, {PUBLIC}),
    (5, {"tuning.latency", "tuning.launcher"}),
    (5, {"tuning.space"}),
    (5, {"tuning.oracle", "tuning.training", "tuning.hypermodel"}),
    (5, {"tuning.tpe", "tuning.service", "tuning.trials"}),
    (5, {"tuning.oracles", "tuning.tuner"}),
    (5, {"tuning.search"}),
    (5, {"tuning.trust", "tuning.pictures", "tuning.hparams"}),
    (5, {"tuning.report"}),
    (5, {"tuning"}),
    (6, {"cli"}),
]
# Packages beside the standard library: up to row 3 anywhere in the room, above at the level of
# modules (inside functions optional packages are free). A room that is not here needs none.
PACKAGES: dict[str, set[str]] = {
    "correlation": {"numpy", "scipy"},
    "blocks": {"keras"},
    "preprocessing": {"keras", "numpy", "PIL"},
    "imagenet": {"numpy"},
    "weights": {"keras", "numpy", "h5py", "google", "tensorflow", "onnx", "torch", "safetensors"},
    "model_cost": {"keras"},
    "strategy": {"tensorflow"},
    "snapshot": {"numpy"},
    "averaging": {"tensorflow"},
    "optimizer": {"keras"},
    "network": {"keras"},
    "googlenet": {"keras"},
    "data": {"keras", "numpy", "tensorflow", "PIL"},
    "evaluate": {"keras", "numpy", "sklearn"},
    "export": {"keras", "numpy", "PIL", "tensorflow"},
    "runtimes": {"keras", "numpy", "tensorflow"},
    "plots": {"numpy", "matplotlib"},
    "predict": {"numpy"},
    "visualize": {"keras", "numpy"},
    "serve": {"keras", "numpy", "PIL"},
    "trainer": {"keras", "numpy", "tensorflow"},
    "initial": {"keras"},
    "tensorboard": {"keras", "numpy", "tensorflow"},
    "loop": {"keras", "numpy", "tensorflow"},
    "keras_fit": {"keras"},
    "train": {"keras", "numpy", "tensorflow"},
    "design": {"keras", "numpy", "matplotlib"},
    "tuning.latency": {"numpy", "scipy", "tensorflow"},
    "tuning.oracle": {"keras_tuner"},
    "tuning.training": {"keras", "numpy", "tensorflow"},
    "tuning.hypermodel": {"keras", "keras_tuner", "tensorflow"},
    "tuning.tpe": {"keras_tuner", "optuna"},
    "tuning.service": {"keras_tuner", "grpc"},
    "tuning.oracles": {"keras_tuner"},
    "tuning.tuner": {"keras_tuner"},
    "tuning.search": {"keras_tuner", "tensorflow"},
    "tuning.trust": {"scipy", "tensorflow"},
    "tuning.pictures": {"numpy", "matplotlib"},
    "tuning.hparams": {"tensorflow", "tensorboard"},
    "tuning.report": {"numpy", "plotly", "sklearn"},
    "cli": {"typer", "rich"},
}
PLACES = {room: place for place, (_, rooms) in enumerate(ROWS) for room in rooms}
LAST_STRICT_ROW = 3


class Import(NamedTuple):
    """A module that is imported, and whether at the level of modules."""

    name: str
    at_top: bool


def _sources() -> dict[Path, str]:
    """Every module of the two packages, and its room."""
    found = {}
    for package in ("keras_inception", "tuning"):
        for path in sorted((ROOT / package).rglob("*.py")):
            found[path] = _room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return found


def _room(module: str) -> str:
    """The room of a module: "cost" of keras_inception.cost, "cli" of keras_inception.cli.train."""
    package, _, rest = module.removesuffix(".__init__").partition(".")
    if package == PUBLIC:
        return rest.partition(".")[0] or PUBLIC
    return f"{package}.{rest}" if rest else package


def _imports(tree: ast.Module) -> Iterator[Import]:
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        at_top = id(node) not in inside
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"Expected absolute imports. Received: {ast.unparse(node)}")
            yield from _from_imports(node, at_top)


def _from_imports(node: ast.ImportFrom, at_top: bool) -> Iterator[Import]:
    """`from keras_inception import cost` imports the room; other names come from the package."""
    module = node.module or ""
    for alias in node.names:
        submodule = f"{module}.{alias.name}"
        yield Import(submodule if _room(submodule) in PLACES else module, at_top)


def violations(room: str, source: str) -> list[str]:
    """What a room's source imports and may not."""
    found = []
    row, _ = ROWS[PLACES[room]]
    for name, at_top in _imports(ast.parse(source)):
        package = name.partition(".")[0]
        if package in ("keras_inception", "tuning"):
            other = _room(name)
            if other != room and PLACES.get(other, len(ROWS)) >= PLACES[room]:
                found.append(f"{room} imports {other}, which is not below it")
        elif (at_top or row <= LAST_STRICT_ROW) and package not in (
            sys.stdlib_module_names | PACKAGES.get(room, set())
        ):
            found.append(f"{room} imports {package}")
    return found


def test_every_module_is_in_the_table_and_no_other() -> None:
    assert set(_sources().values()) == set(PLACES)
    assert set(PACKAGES) <= set(PLACES)
    assert [row for row, _ in ROWS] == sorted(row for row, _ in ROWS)


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_from_below_only(path: Path) -> None:
    assert violations(_sources()[path], path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("room", ["validation", "spec", "recipe", "variants", "cost", "budget"])
def test_architecture_and_accounting_need_the_standard_library_only(room: str) -> None:
    assert room not in PACKAGES


@pytest.mark.parametrize("room", ["blocks", "network"])
def test_model_code_needs_keras_only(room: str) -> None:
    """So the same network runs on the JAX and torch backends."""
    assert PACKAGES[room] == {"keras"}


@pytest.mark.parametrize(
    ("room", "source", "expected"),
    [
        ("spec", "import json\nfrom __future__ import annotations", []),
        ("spec", "import numpy as np", ["spec imports numpy"]),
        ("spec", "def f():\n    import numpy", ["spec imports numpy"]),
        ("network", "def f():\n    import tensorflow as tf", ["network imports tensorflow"]),
        ("network", "from tensorflow.keras import layers", ["network imports tensorflow"]),
        ("network", "from keras_inception import blocks", []),
        ("export", "import onnx.helper", ["export imports onnx"]),
        ("export", "class A:\n    import onnx", ["export imports onnx"]),
        ("export", "def f():\n    import onnx", []),
        ("cost", "from keras_inception.spec import ConvSpec", []),
        ("cost", "import keras_inception.budget", ["cost imports budget, which is not below it"]),
        ("cost", "def f():\n    from keras_inception.budget import Budget", 1),
        ("blocks", "from keras_inception import network", 1),
        ("blocks", "from keras_inception import NetworkSpec", 1),
        ("blocks", "from keras_inception.preprocessing import read_image", 1),
        ("blocks", "from keras_inception.cli.common import console", 1),
        ("train", "from keras_inception.data import ImageData", []),
        ("data", "from keras_inception.train import train", 1),
        ("spec", "from keras_inception.recipe import Recipe", 1),
        (
            "cli",
            "from keras_inception.cli.common import app\nfrom keras_inception import train",
            [],
        ),
        ("train", "from tuning import search", 1),
        ("tuning", "import keras_inception", []),
        ("cost", "from keras_inception.forgotten import x", 1),
    ],
)
def test_violations_are_seen(room: str, source: str, expected: list[str] | int) -> None:
    found = violations(room, source)
    assert (len(found) if isinstance(expected, int) else found) == expected


def test_relative_imports_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected absolute imports"):
        violations("cost", "from .spec import ConvSpec")
