"""Every release reads the documents of earlier ones.

`tests/documents` holds one of each schema version, written by hand and never changed. A change of
the fields of a spec, a recipe or a search
space, other than a new field with a default, needs a new SCHEMA_VERSION,
a function in MIGRATIONS and a document here.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from keras_inception.cost.budget import Budget
from keras_inception.runtimes.timing import Conditions
from keras_inception.spec import network, recipe
from keras_inception.spec.network import (
    AuxSpec,
    BatchNormSpec,
    BranchSpec,
    ConvSpec,
    LRNSpec,
    ModuleSpec,
    NetworkSpec,
    PoolSpec,
    StageSpec,
)
from keras_inception.spec.recipe import Recipe
from keras_inception.spec.validation import json_document
from tuning import space
from tuning.latency import LatencyBudget, LatencyModel
from tuning.space import Space

DOCUMENTS = Path(__file__).parent / "documents"

SPEC = NetworkSpec(
    name="frozen",
    input_shape=(None, 64, 1),
    stem=(
        ConvSpec(name="conv1", filters=8, kernel_size=7, stride=2, padding="symmetric"),
        PoolSpec(name="pool1", size=2, stride=2, padding="ceil"),
        LRNSpec(name="norm1", window_size=7, alpha_per_window=0.001, beta=0.5, bias=2.0),
    ),
    stages=(
        StageSpec(
            name="3",
            downsample=None,
            modules=(
                ModuleSpec(
                    name="3a",
                    filters_1x1=4,
                    spatial=(
                        BranchSpec(kernel_size=3, reduce=2, filters=6),
                        BranchSpec(kernel_size=5, reduce=None, filters=3),
                    ),
                    filters_pool_proj=5,
                ),
            ),
        ),
        StageSpec(
            name="4",
            downsample=PoolSpec(name="pool3", size=3, stride=2, padding="valid"),
            modules=(ModuleSpec(name="4a", filters_1x1=0, spatial=(), filters_pool_proj=None),),
        ),
    ),
    aux=(
        AuxSpec(
            name="aux_1",
            after="3a",
            pool="adaptive",
            pool_size=4,
            pool_stride=1,
            filters=9,
            units=10,
            dropout_rate=0.5,
        ),
    ),
    batch_norm=BatchNormSpec(scale=False, momentum=0.9, epsilon=0.01),
    dropout_rate=0.25,
    classes=7,
    pixels="torch",
    initializer="caffe_xavier",
    bias_initial_value=0.2,
)

RECIPE = Recipe(
    name="frozen",
    epochs=3,
    batch_size=128,
    micro_batches=4,
    optimizer="sgd",
    base_learning_rate=0.1,
    schedule="staircase",
    warmup=0.0,
    decay_factor=0.5,
    decay_epochs=2,
    weight_decay=0.0002,
    momentum=0.5,
    clip_norm=2.0,
    label_smoothing=0.1,
    class_weights=(1.0, 0.5),
    aux_loss_weight=0.2,
    average="exponential",
    average_momentum=0.9,
    average_start=0.25,
    precision="mixed_bfloat16",
    jit_compile=True,
    freeze_until="4a",
    flip=False,
    shift=1,
    crop="paper",
    photometric=True,
    mixup=0.2,
    seed=7,
)


SPACE = Space(
    base=NetworkSpec(
        name="frozen",
        input_shape=(8, 8, 1),
        stem=(ConvSpec(name="conv1", filters=8, kernel_size=3),),
        stages=(
            StageSpec(
                name="3",
                downsample=None,
                modules=(
                    ModuleSpec(
                        name="3a",
                        filters_1x1=8,
                        spatial=(BranchSpec(kernel_size=3, reduce=4, filters=8),),
                        filters_pool_proj=4,
                    ),
                ),
            ),
        ),
        classes=2,
    ),
    budget=Budget(macs=200_000),
    width_divisor=4,
    depth=True,
    kernels=("3,5",),
    stem=True,
    min_budget_share=0.5,
)


def _text(kind: str, version: int) -> str:
    return (DOCUMENTS / f"{kind}_{version}.json").read_text(encoding="utf-8")


def test_spec_of_version_1() -> None:
    assert NetworkSpec.from_json(_text("spec", 1)) == SPEC


def test_recipe_of_version_1() -> None:
    assert Recipe.from_json(_text("recipe", 1)) == RECIPE


@pytest.mark.parametrize("version", [1, 2])  # version 1 had "step" and "least_share"
def test_space_of_version(version: int) -> None:
    assert Space.from_json(_text("space", version)) == SPACE


def test_space_of_version_3_has_pools() -> None:
    assert Space.from_json(_text("space", 3)) == replace(SPACE, pools=True)


def test_space_of_version_4_has_the_conditions_of_its_timings() -> None:
    kinds = ("convolution", "pool", "concatenate", "dense")
    rates = {f"{kind}: million multiply-adds": 10.0 for kind in kinds}
    others = {f"{kind}: {part}": 0.0 for kind in kinds for part in ("layer", "million elements")}
    conditions = Conditions(
        runtime="onnx", precision="int8", batch_size=1, threads=2, device="a board"
    )
    model = LatencyModel(
        coefficients={"network": 0.0} | rates | others, error=0.05, conditions=conditions
    )
    budget = LatencyBudget(milliseconds=2.0, model=model, budget=Budget(macs=200_000))
    assert Space.from_json(_text("space", 4)) == replace(SPACE, pools=True, budget=budget)


@pytest.mark.parametrize(
    ("kind", "module"), [("spec", network), ("recipe", recipe), ("space", space)]
)
def test_every_version_has_a_document_and_a_migration(kind: str, module: ModuleType) -> None:
    versions = range(1, module.SCHEMA_VERSION + 1)
    assert {path.name for path in DOCUMENTS.glob(f"{kind}_*.json")} == {
        f"{kind}_{version}.json" for version in versions
    }
    assert set(module.MIGRATIONS) == set(versions[:-1])


def test_fields_with_a_default_may_be_missing() -> None:
    spec = {"schema_version": 1, "name": "short", "input_shape": [8, 8, 3], "stem": []}
    spec["stages"] = [{"name": "3", "downsample": {"kind": "pool", "name": "pool1"}}]
    spec["stages"][0]["modules"] = [
        {"name": "3a", "filters_1x1": 2, "spatial": [], "filters_pool_proj": 0}
    ]
    assert NetworkSpec.from_json(json.dumps(spec)) == NetworkSpec(
        name="short",
        input_shape=(8, 8, 3),
        stem=(),
        stages=(
            StageSpec(
                name="3",
                downsample=PoolSpec(name="pool1", size=3, stride=2, padding="same"),
                modules=(ModuleSpec(name="3a", filters_1x1=2, spatial=(), filters_pool_proj=0),),
            ),
        ),
        aux=(),
        batch_norm=None,
        dropout_rate=0.4,
        classes=1000,
        pixels="tf",
        initializer="he",
        bias_initial_value=0.0,
    )


def _renamed(data: dict[str, Any]) -> dict[str, Any]:
    return {"width": data.pop("size"), **data}


def _doubled(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"width": 2 * data["width"]}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"schema_version": 1, "size": 4, "a": 1}, {"width": 8, "a": 1}),
        ({"schema_version": 2, "width": 4}, {"width": 8}),
        ({"schema_version": 3, "width": 4}, {"width": 4}),
    ],
)
def test_older_documents_pass_each_migration_in_turn(
    document: dict[str, Any], expected: dict[str, Any]
) -> None:
    migrations = {1: _renamed, 2: _doubled}
    assert json_document(json.dumps(document), "toy", 3, migrations) == expected


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(4, "Install a newer keras-inception"), (0, "Write it again with `to_json`")],
)
def test_unknown_versions_are_refused(version: int, remedy: str) -> None:
    message = f"Expected a toy with schema_version 1 to 3. Received: schema_version={version}. "
    with pytest.raises(ValueError, match=re.escape(message + remedy)):
        json_document(json.dumps({"schema_version": version}), "toy", 3, {1: dict, 2: dict})
