"""`info` and model cards: what they say of runs, exports, models and specs."""

import json
from dataclasses import replace

import pytest
from conftest import tiny_spec
from test_cli import assert_mistake, run

from keras_inception.network.build import build_network
from keras_inception.runtimes.description import describe, describe_documents, model_card
from keras_inception.spec.recipe import RECIPES

SPEC = tiny_spec()
DATA = {
    "source": "dir:/pictures",
    "training images": 1200,
    "held-out images": 300,
    "classes": ["cat", "dog", "fox", "owl", "bee"],
}
METRICS = {"top_1": 0.5, "top_5": 1.0, "images": 300, "per_class": dict.fromkeys("abcde", 0.5)}


@pytest.fixture
def folder(tmp_path):
    """The documents of a run of five classes, without a model."""
    (tmp_path / "spec.json").write_text(SPEC.to_json())
    (tmp_path / "recipe.json").write_text(replace(RECIPES["quick"], epochs=7).to_json())
    (tmp_path / "data.json").write_text(json.dumps(DATA))
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    return tmp_path


def test_a_run(folder):
    (folder / "model.keras").touch()
    (folder / "export").mkdir()
    (folder / "export" / "model.onnx").touch()
    facts = describe(folder)
    assert facts["network"] == "tiny_for_tests, 32 x 32 x 3, 5 classes"
    assert facts["cost"].startswith(f"{build_network(SPEC).count_params():,} parameters")
    assert facts["data"] == "dir:/pictures: 1,200 training images, 300 held-out images"
    assert facts["recipe"].startswith("quick: 7 epochs")
    assert facts["accuracy"] == "50.00% of 300 held-out images"  # no top-5 of five classes
    assert facts["classes"] == "cat, dog, fox, owl, bee"
    assert facts["formats"] == "model.keras, export/model.onnx"
    assert describe(folder / "export")["network"] == facts["network"]


def test_top_5_of_more_classes():
    metrics = METRICS | {"per_class": dict.fromkeys("abcdef", 0.5)}
    facts = describe_documents({"metrics.json": json.dumps(metrics)})
    assert facts["accuracy"] == "50.00% of 300 held-out images, top-5 100.00%"


def test_a_spec_and_a_model_alone(folder, tmp_path):
    facts = describe(folder / "spec.json")
    assert set(facts) == {"network", "cost", "pixels"}
    alone = tmp_path / "alone" / "nested" / "tiny.keras"
    alone.parent.mkdir(parents=True)
    model = build_network(SPEC)
    model.save(alone)
    found = describe(alone)
    assert found["network"] == "tiny_for_tests, 32 x 32 x 3, 5 classes"
    assert found["cost"].startswith(f"{model.count_params():,} numbers")
    assert found["pixels"] == "tf: [-1, 1]"
    assert found["formats"] == "tiny.keras"


def test_the_command(folder):
    result = run("info", folder)
    assert result.exit_code == 0
    assert "tiny_for_tests, 32 x 32 x 3, 5 classes" in result.output
    assert_mistake(run("info", folder / "missing"), "a run, an export, a model or a spec")
    (folder / "empty").mkdir()
    (folder / "empty" / "inner").mkdir()
    assert_mistake(run("info", folder / "empty" / "inner"), "which has neither")
    (folder / "metrics.json").write_text("{")
    assert_mistake(run("info", folder), "Expected the JSON of a run's record", "metrics.json")


def test_names_in_a_card_are_escaped():
    card = model_card({"classes": "<b>|`x`\n[a](b)"}, "a_b", "run")
    assert "# a\\_b" in card
    assert r"| classes | \<b\>\|\`x\`\\n\[a\]\(b\) |" in card
