"""Import rules (docs/design.md), read from the sources: a folder imports only from lower layers.

A new folder is added to `LAYERS`, with the packages that it may import.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# From below upwards, each with the packages that its modules may import beside the standard
# library. Packages that are imported inside functions are free from `OPTIONAL_FROM` upwards.
LAYERS: dict[str, set[str]] = {
    "keras_inception": set(),  # the modules that lie in no folder
    "keras_inception.spec": set(),
    "keras_inception.cost": set(),
    "keras_inception.weights": {
        *("keras", "numpy", "h5py", "google", "tensorflow", "onnx", "torch", "safetensors")
    },
    "keras_inception.network": {"keras"},
    "keras_inception.images": {"keras", "numpy", "PIL", "tensorflow"},
    "keras_inception.data": {"keras", "numpy", "PIL", "tensorflow"},
    "keras_inception.runtimes": {"keras", "numpy", "tensorflow"},
    "keras_inception.evaluation": {"keras", "matplotlib", "numpy", "PIL"},
    "keras_inception.reports": {"jinja2", "keras", "numpy", "PIL"},
    "keras_inception.exporters": {"keras", "numpy", "PIL", "tensorflow"},
    "keras_inception.training": {"keras", "numpy", "tensorflow"},
    "keras_inception.inference": {"keras", "numpy", "PIL"},
    "keras_inception.design": {"keras", "matplotlib", "numpy", "scipy", "threadpoolctl"},
    "tuning.engine": {"grpc", "keras_tuner", "optuna"},
    "tuning": {"keras", "keras_tuner", "lazy_loader", "numpy", "scipy", "tensorflow"},
    "tuning.report": {"matplotlib", "numpy", "plotly", "sklearn", "tensorboard", "tensorflow"},
    "keras_inception.cli": {"rich", "typer"},
}
# The exceptions within a layer.
MODULE_PACKAGES: dict[str, set[str]] = {
    "keras_inception": {"lazy_loader"},  # the public names
    "keras_inception.locks": {"filelock"},
    "keras_inception.keras_compat": {"keras"},
    "keras_inception.cost.keras_model": {"keras"},
    "keras_inception.network.batch_norm": {"keras", "tensorflow"},  # its fused kernel
    "keras_inception.network.imagenet": {"numpy"},
    "keras_inception.inference.server_connections": {"h11", "uvicorn"},
    "keras_inception.exporters.litert_metadata": {"flatbuffers", "numpy"},
    "keras_inception.network.max_pool_jax": {"jax"},
    "keras_inception.training.jax_arrays": {"jax"},
    "keras_inception.training.jax_devices": {"jax"},
    "keras_inception.training.jax_engine": {"jax"},
}
PLACES = {layer: place for place, layer in enumerate(LAYERS)}
OPTIONAL_FROM = PLACES["keras_inception.images"]


class Import(NamedTuple):
    """A module that is imported, and whether at the level of modules."""

    name: str
    at_top: bool


def sources() -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    paths = [
        path for package in ("keras_inception", "tuning") for path in (ROOT / package).rglob("*.py")
    ]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(paths)
    }


def layer_of(module: str) -> str:
    """The longest entry of `LAYERS` that holds a module; in the root only what is a file there."""
    if module == "keras_inception.__main__":
        return "keras_inception.cli"
    parts = module.split(".")
    for count in range(len(parts), 1, -1):
        name = ".".join(parts[:count])
        if name in LAYERS:
            return name
    if parts[0] in LAYERS and (
        len(parts) == 1 or ROOT.joinpath(*parts).with_suffix(".py").exists()
    ):
        return parts[0]
    raise KeyError(f"{module} is in no layer")


def imports(tree: ast.Module) -> Iterator[Import]:
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
            for alias in node.names:  # `from keras_inception import cost` imports the folder
                folder = f"{node.module}.{alias.name}"
                yield Import(folder if folder in LAYERS else str(node.module), at_top)


def violations(module: str, source: str) -> list[str]:
    """What a module's source imports and may not."""
    own, found = layer_of(module), []
    allowed = sys.stdlib_module_names | LAYERS[own] | MODULE_PACKAGES.get(module, set())
    for name, at_top in imports(ast.parse(source)):
        package = name.partition(".")[0]
        if package in ("keras_inception", "tuning"):
            if PLACES[layer_of(name)] > PLACES[own]:
                found.append(f"{module} imports {name}, which is not below it")
        elif (at_top or PLACES[own] < OPTIONAL_FROM) and package not in allowed:
            found.append(f"{module} imports {package}")
    return found


@pytest.mark.parametrize("module", sources())
def test_modules_import_from_below_only(module: str) -> None:
    assert violations(module, sources()[module].read_text(encoding="utf-8")) == []


def test_every_layer_exists() -> None:
    assert {layer_of(module) for module in sources()} == set(LAYERS)


def test_specs_and_costs_need_the_standard_library_only() -> None:
    layers = ("keras_inception.spec", "keras_inception.cost")
    assert LAYERS["keras_inception"] == LAYERS[layers[0]] == LAYERS[layers[1]] == set()
    with_packages = set(MODULE_PACKAGES) - {"keras_inception"}  # its own are loaded at first use
    for module, path in sources().items():
        if layer_of(module) in layers and module not in with_packages:
            found = {item.name for item in imports(ast.parse(path.read_text(encoding="utf-8")))}
            assert not found & with_packages, module


def test_model_code_needs_keras_only() -> None:
    """So the same network runs on the JAX and torch backends."""
    assert LAYERS["keras_inception.network"] == {"keras"}


K = "keras_inception"


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("spec.network", "import json\nfrom __future__ import annotations", 0),
        ("spec.network", "import numpy as np", 1),
        ("spec.network", "def f():\n    import numpy", 1),
        ("network.build", "from tensorflow.keras import layers", 1),
        ("network.build", f"from {K}.network import blocks", 0),
        ("network.build", f"from {K} import weights", 0),
        ("exporters.formats", "import onnx.helper", 1),
        ("exporters.formats", "class A:\n    import onnx", 1),
        ("exporters.formats", "def f():\n    import onnx", 0),
        ("cost.layers", f"from {K}.spec.network import ConvSpec", 0),
        ("cost.layers", f"import {K}.cost.budget", 0),
        ("cost.layers", "import keras", 1),
        ("cost.keras_model", "import keras", 0),
        ("network.blocks", f"def f():\n    from {K}.images.decode import read_image", 1),
        ("network.blocks", f"from {K} import images", 1),
        ("network.blocks", f"from {K}.cli.common import console", 1),
        ("training.run", f"from {K}.data.splits import ImageData", 0),
        ("data.stream", f"from {K}.training.run import train", 1),
        ("training.run", "from tuning import search", 1),
        ("cli.train", f"from {K}.cli.common import console\nfrom {K} import training", 0),
        ("spec.network", f"from {K} import __version__", 0),
    ],
)
def test_violations_are_detected(module: str, source: str, count: int) -> None:
    assert len(violations(f"{K}.{module}", source)) == count


def test_the_root_imports_nothing_at_import() -> None:
    assert len(violations(K, f"from {K}.network.googlenet import GoogLeNet")) == 1


def layer_table() -> str:
    """The table of docs/design.md: each layer with its docstring's first line and packages."""
    lines = ["| layer | what it holds | packages |", "| --- | --- | --- |"]
    for layer, packages in LAYERS.items():
        path = ROOT / Path(*layer.split("."))
        path = path / "__init__.py"
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        summary = str(docstring).splitlines()[0]
        if layer == K:
            summary = "The public names; files, locks, limits of untrusted input, output."
        named = ", ".join(f"`{package}`" for package in sorted(packages, key=str.lower))
        lines.append(f"| `{layer}` | {summary} | {named or 'none'} |")
    return "\n".join(lines)


def test_the_document_shows_the_layers() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- layers -->\n")[2].partition("\n<!-- /layers -->")[0]
    assert shown == layer_table(), f"docs/design.md needs:\n{layer_table()}"


def test_an_unknown_folder_is_an_error() -> None:
    with pytest.raises(KeyError, match="in no layer"):
        violations(f"{K}.cost.layers", f"from {K}.forgotten import x")


def test_relative_imports_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected absolute imports"):
        violations(f"{K}.cost.layers", "from .spec import ConvSpec")
