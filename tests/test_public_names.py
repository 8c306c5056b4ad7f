"""The public names: imports of documents, notebooks, benchmarks and scripts, and lazy imports."""

import ast
import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import keras_inception
import tuning
from keras_inception.packages import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"keras_inception": keras_inception, "tuning": tuning}
# Scripts that start the command line name its module.
COMMAND_LINE = "keras_inception.cli"


def python_texts() -> Iterator[tuple[str, str]]:
    """Return sources that use only the public API: (name, text)."""
    for folder in ("notebooks", "benchmarks", "scripts"):
        for path in sorted((ROOT / folder).glob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    pages = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for path in pages:
        blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        for number, block in enumerate(blocks):
            yield f"{path.relative_to(ROOT)}:{number}", textwrap.dedent(block)


def not_public(text: str) -> list[str]:
    """Return the names of the two packages that a source uses and that are not public."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            root = PACKAGES.get(node.module.partition(".")[0])
            if root is None or node.module == COMMAND_LINE:
                continue
            names = [alias.name for alias in node.names]
            known = root.__all__ if node.module in PACKAGES else []
            found += [f"{node.module}.{name}" for name in names if name not in known]
        elif isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names if "." in alias.name]
            found += [name for name in dotted if name.partition(".")[0] in PACKAGES]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            root = PACKAGES.get(node.value.id)
            if root is not None and node.attr not in (*root.__all__, "__version__"):
                found.append(f"{node.value.id}.{node.attr}")
    return found


TEXTS = dict(python_texts())


@pytest.mark.parametrize("name", TEXTS)
def test_documents_and_scripts_use_public_names_only(name: str) -> None:
    assert not_public(TEXTS[name]) == []


def test_the_sources_are_found() -> None:
    assert {name.partition("/")[0] for name in TEXTS} >= {"notebooks", "benchmarks", "docs"}
    assert "README.md:0" in TEXTS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import keras_inception\nkeras_inception.GoogLeNet()", []),
        ("import keras\nfrom keras_inception import load, train", []),
        ("from keras_inception.cli import main", []),
        ("from keras_inception.files import aside", ["keras_inception.files.aside"]),
        ("def f():\n    from tuning import plan", ["tuning.plan"]),
        ("import keras_inception.spec.network", ["keras_inception.spec.network"]),
        ("import tuning\ntuning.engine", ["tuning.engine"]),
    ],
)
def test_deeper_names_are_detected(text: str, found: list[str]) -> None:
    assert not_public(text) == found


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_can_be_imported(package: str) -> None:
    root = PACKAGES[package]
    assert sorted(root.__all__) == sorted(set(root.__all__))
    assert [name for name in root.__all__ if not hasattr(root, name)] == []


def path_parameters() -> Iterator[tuple[str, str]]:
    """Every parameter of a public function that takes a path, and its annotation."""
    for package in PACKAGES.values():
        for name in package.__all__:
            item = getattr(package, name)
            if not callable(item) or dataclasses.is_dataclass(item):
                continue  # a result's fields are no arguments
            for parameter in inspect.signature(item).parameters.values():
                annotation = str(parameter.annotation)
                if re.search(r"Path(Like)?\b", annotation):
                    yield f"{package.__name__}.{name}({parameter.name})", annotation


def test_every_path_may_be_a_string() -> None:
    found = dict(path_parameters())
    expected = {
        "keras_inception.load(path)",
        "keras_inception.train(folder)",
        "tuning.search(folder)",
    }
    assert expected <= found.keys()
    both = re.compile(r"\bstr\b")
    assert [name for name, annotation in found.items() if not both.search(annotation)] == []


def test_common_tasks_are_public() -> None:
    wanted = {"GoogLeNet", "train", "evaluate", "load", "export", "open_data", "network_cost"}
    assert wanted <= set(keras_inception.__all__)


def run_python(code: str, **environment: str) -> str:
    """Return the output of a new process."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=600,  # a command that should be refused, but runs
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_are_lazy_and_need_neither_keras_nor_fcntl() -> None:
    """Both packages and the command line, in a Python without `fcntl` as on Windows."""
    loaded = run_python(
        """
        import json, sys
        sys.modules["fcntl"] = None
        import keras_inception, tuning, keras_inception.cli, keras_inception.files
        from keras_inception import VARIANTS, network_cost
        network_cost(VARIANTS["bn"])
        print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
        """
    )
    assert not {"keras", "tensorflow", "numpy", "keras_tuner", "PIL"} & set(json.loads(loaded))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("-m keras_inception --version", f"keras-inception {keras_inception.__version__}\n"),
        ("-m keras_inception summary -h", "Usage: keras-inception summary"),
    ],
)
def test_the_package_runs_as_a_module(words: str, shown: str) -> None:
    done = subprocess.run([sys.executable, *words.split()], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout


def test_a_folder_is_locked_without_fcntl(tmp_path: Path) -> None:
    """Without `flock`, the lock is a file that names its owner."""
    printed = run_python(
        f"""
        import sys
        sys.modules["fcntl"] = None
        from pathlib import Path
        from keras_inception.locks import only_run_in
        folder = Path({str(tmp_path)!r})
        with only_run_in(folder):
            try:
                with only_run_in(folder):
                    print("twice")
            except ValueError as error:
                print(error)
        with only_run_in(folder):
            print("again")
        """
    )
    refusal, again = printed.splitlines()
    assert "Expected a folder in which no other run is going on." in refusal
    assert again == "again"


def test_without_tensorflow_networks_build_and_the_rest_is_a_one_line_error(
    tmp_path: Path,
) -> None:
    """Under JAX, features that need TensorFlow raise an error with the install command."""
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "saved_model.pb").touch()
    printed = run_python(
        f"""
        import sys
        sys.modules["tensorflow"] = None
        import keras_inception
        from keras_inception import GoogLeNet, load, open_data
        from keras_inception.cli import app
        from typer.testing import CliRunner
        model = GoogLeNet(weights=None, variant="nano")
        model.save({str(tmp_path / "model.keras")!r})
        print(load({str(tmp_path)!r}).network.labels, open_data("sample").name)
        for call in (
            lambda: keras_inception.export,
            lambda: load({str(saved)!r}),
            lambda: open_data("tfds:mnist"),
        ):
            try:
                call()
            except ImportError as error:
                print(error)
        result = CliRunner().invoke(app, ["export", {str(tmp_path)!r}])
        print(result.exit_code, result.stderr, end="")
        """,
        KERAS_BACKEND="jax",
    )
    first, *lines = printed.splitlines()
    assert first == f"{tuple(str(label) for label in range(10))} fashion_mnist_sample"
    needed = "Expected the package 'tensorflow'. It is not installed: pip install"
    assert [line[: len(needed)] for line in lines[:3]] == [needed] * 3
    assert [line[: len(needed) + 9] for line in lines[3:]] == [f"2 Error: {needed}"]
    assert all(line.endswith('"keras-inception[cpu]"') for line in lines)


def test_each_missing_package_is_one_line_with_its_extra(tmp_path: Path) -> None:
    """All optional packages except TensorFlow are missing."""
    for name in ("model.onnx", "model.xml", "a.pth", "a.safetensors", "b.onnx"):
        (tmp_path / name).write_text("x")
    printed = run_python(
        f"""
        import sys
        from pathlib import Path
        from keras_inception import packages
        for name in packages.EXTRAS:
            if name != "tensorflow":
                sys.modules[name] = None
        import keras_inception, tuning
        folder = Path({str(tmp_path)!r})
        GoogLeNet, load = keras_inception.GoogLeNet, keras_inception.load
        model = GoogLeNet(weights=None, variant="nano")
        keras_inception.train  # needs none of them
        def serve():
            from keras_inception.inference.server import build_app
            build_app(folder)
        for call in (
            lambda: keras_inception.write_design_report,
            lambda: tuning.search,
            lambda: tuning.write_report,
            lambda: load(folder / "model.onnx"),
            lambda: load(folder / "model.xml"),
            lambda: keras_inception.export(model, folder / "out", ["onnx"]),
            lambda: GoogLeNet(weights=folder / "a.pth"),
            lambda: GoogLeNet(weights=folder / "a.safetensors"),
            lambda: GoogLeNet(weights=folder / "b.onnx"),
            serve,
        ):
            try:
                call()
                print("nothing is missing")
            except ImportError as error:
                print(error)
        print(keras_inception.available_formats())
        """
    )
    *lines, formats = printed.splitlines()
    message = (
        r'Expected the package \'\w+\'. It is not installed: pip install "keras-inception\[(\w+)\]"'
    )
    extras = [re.fullmatch(message, line) for line in lines]
    expected = ["report", "tune", "tune", "onnx", "openvino", "onnx", "torch", "torch", "onnx"]
    assert [found and found[1] for found in extras] == [*expected, "serve"], printed
    assert formats == "('saved_model', 'saved_model-bfloat16')"


def test_every_extra_that_is_named_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    distributions = {
        "ai_edge_litert": "ai-edge-litert",
        "python_multipart": "python-multipart",
        "sklearn": "scikit-learn",
        "tensorflow": "tensorflow-cpu",
    }
    for package, extra in EXTRAS.items():
        names = {re.split(r"[<>=\[]", text)[0] for text in extras[extra]}
        assert distributions.get(package, package) in names, package
