"""KerasTuner's private API: used in one module, checked at import, and its lock released."""

import ast
import threading
from pathlib import Path

import keras_tuner
import pytest

from tuning.engine.keras_tuner_compat import USES, Use, require_private_api
from tuning.engine.oracles import RandomOracle

TUNING = Path(__file__).parents[1] / "tuning"
COMPAT = TUNING / "engine" / "keras_tuner_compat.py"
KERAS_TUNER = Path(keras_tuner.__file__).parent


def private_uses(source: str) -> set[str]:
    """Return imports of KerasTuner's source folder, and attributes that only its classes have."""
    names = {use.name for use in USES if use.name.startswith("_")}
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("keras_tuner.src"):
            found.add(str(node.module))
        if isinstance(node, ast.Attribute) and node.attr in names:
            found.add(node.attr)
        if isinstance(node, ast.FunctionDef) and node.name in names:
            found.add(node.name)
    return found


def test_private_names_are_used_in_one_module() -> None:
    others = [path for path in TUNING.rglob("*.py") if path != COMPAT]
    assert len(others) > 20
    assert {str(path): private_uses(path.read_text()) for path in others} == {
        str(path): set() for path in others
    }
    assert {use.name for use in USES if use.name.startswith("_")} <= private_uses(
        COMPAT.read_text()
    )


@pytest.mark.parametrize("use", USES, ids=lambda use: use.name)
def test_each_use_names_its_line_of_the_source(use: Use) -> None:
    """In the installed version, which is the one that the comments name."""
    name, _, line = use.source.removeprefix("keras_tuner/").partition(":")
    assert use.name in (KERAS_TUNER / name).read_text().splitlines()[int(line) - 1]


def test_a_missing_private_name_is_one_line_at_import() -> None:
    gone = Use(keras_tuner.Oracle, "_no_such_method", "oracle.py:1", "queue lost trials again")
    with pytest.raises(ImportError, match=r"Expected KerasTuner with '_no_such_method'.*1\.4\.8"):
        require_private_api([*USES, gone])


def test_a_call_that_raises_does_not_block_the_next(tmp_path: Path) -> None:
    """KerasTuner's own decorator does not release the lock, so other threads wait forever."""

    def blocks(kind: type) -> bool:
        oracle = kind(
            objective=keras_tuner.Objective("score", "max"),
            max_trials=1,
            hyperparameters=keras_tuner.HyperParameters(),
        )
        oracle.verbose = 0
        oracle._set_project_dir(str(tmp_path), kind.__name__)
        failing = threading.Thread(target=quiet, args=(oracle,))
        failing.start()
        failing.join()
        other = threading.Thread(target=oracle.create_trial, args=("one",), daemon=True)
        other.start()
        other.join(timeout=5)
        return other.is_alive()

    def quiet(oracle: keras_tuner.Oracle) -> None:
        with pytest.raises(LookupError):
            oracle.update_trial("unknown", {"score": 1.0})

    assert blocks(keras_tuner.oracles.RandomSearchOracle)
    assert not blocks(RandomOracle)
