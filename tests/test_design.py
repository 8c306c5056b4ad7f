"""Design from statistics: from activations to widths within a budget, and the report."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from test_correlation import CORNERS_AND_CENTRE, planted
from typer.testing import CliRunner

from keras_inception.cli import app
from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.data.sample import load_sample
from keras_inception.data.splits import ImageData, Split
from keras_inception.design import procedure
from keras_inception.design.measurement import (
    DesignOptions,
    ModuleMeasurement,
    measure,
    module_inputs,
)
from keras_inception.design.procedure import Design, design_network, grow_network, truncated
from keras_inception.design.proposal import propose, proposed_module
from keras_inception.design.report import width_rows, write_design_report
from keras_inception.design.statistics import CorrelationDecay
from keras_inception.network.build import build_network
from keras_inception.spec.network import BranchSpec, ModuleSpec, NetworkSpec
from keras_inception.spec.recipe import Recipe
from keras_inception.spec.variants import NAIVE, NANO, PAPER
from keras_inception.training.run import fitted_to_data

MODULE = ModuleSpec(
    name="3a",
    filters_1x1=10,
    spatial=(
        BranchSpec(kernel_size=3, reduce=10, filters=40),
        BranchSpec(kernel_size=5, reduce=10, filters=30),
    ),
    filters_pool_proj=20,
)


def measurement(module="3a", channels=50, **changes):
    flat = CorrelationDecay(np.ones(5), np.zeros(5))
    values = {
        "module": module,
        "endpoint": "below",
        "grid": (7, 7),
        "channels": channels,
        "decay": flat,
        "null": flat,
        "counts": {1: 10.0, 3: 6.0, 5: 4.0},
        "sweep": {0.5: {1: 0.5, 3: 0.3, 5: 0.2}, 0.7: {1: 0.9, 3: 0.1, 5: 0.0}},
        "extents": np.array([0.5, 0.1, 0.2, 0.0, 0.2]),
        "dimensions": {1: 30.0, 3: 12.4, 5: 30.0},
        "pooled_dimension": 5.0,
    }
    return ModuleMeasurement(**values | changes)


def test_each_module_is_measured_at_its_input():
    inputs = module_inputs(PAPER)
    assert inputs == {
        "3a": "pool2", "3b": "3a", "4a": "pool3", "4b": "4a", "4c": "4b", "4d": "4c", "4e": "4d",
        "5a": "pool4", "5b": "5a",
    }  # fmt: skip
    assert module_inputs(replace(PAPER, stem=()))["3a"] == PAPER.input_name


class TestProposedModule:
    def test_outputs_are_split_by_clusters_and_pooled_dimension(self):
        # 100 outputs over 10 + 6 + 4 clusters and a dimension of 5: 4 filters each.
        assert proposed_module(MODULE, measurement()) == ModuleSpec(
            name="3a",
            filters_1x1=40,
            spatial=(
                BranchSpec(kernel_size=3, reduce=12, filters=24),
                BranchSpec(kernel_size=5, reduce=16, filters=16),  # not wider than its filters
            ),
            filters_pool_proj=20,
        )

    def test_a_branch_of_less_than_half_a_step_is_omitted(self):
        # 100 outputs over 25: .9 clusters are 3.6 filters, 1.1 are 4.4.
        found = measurement(counts={1: 0.9, 3: 18.0, 5: 1.1})
        proposal = proposed_module(MODULE, found)
        assert proposal.filters_1x1 == 0
        assert [(b.kernel_size, b.filters) for b in proposal.spatial] == [(3, 72), (5, 4)]
        assert [
            b.kernel_size for b in proposed_module(MODULE, found, width_divisor=10).spatial
        ] == [3]
        without = measurement(counts={1: 0.9, 3: 18.0, 5: 1.1}, pooled_dimension=0.5)
        assert proposed_module(MODULE, without).filters_pool_proj == 0

    def test_a_module_without_a_pooling_branch_gets_none(self):
        module = replace(MODULE, filters_pool_proj=0)
        proposal = proposed_module(module, measurement())  # 80 outputs over 20
        assert proposal.filters_pool_proj == 0
        assert proposal.filters_1x1 == 40

    def test_a_naive_module_gets_reductions_and_a_projection(self):
        naive = NAIVE.modules[0]  # 64 + 128 + 32 and the 192 channels of its input
        proposal = proposed_module(naive, measurement(channels=192))
        assert proposal.filters_1x1 == round(10 * 416 / 25)
        assert [b.reduce for b in proposal.spatial] == [12, 30]
        assert proposal.filters_pool_proj == round(5 * 416 / 25)

    def test_other_kernels(self):
        found = measurement(counts={1: 5.0, 3: 0.0, 7: 15.0}, dimensions={1: 9.0, 3: 5.0, 7: 0.2})
        proposal = proposed_module(MODULE, found)
        assert proposal.spatial == (BranchSpec(kernel_size=7, reduce=1, filters=60),)

    def test_an_empty_module_keeps_a_branch(self):
        module = replace(MODULE, filters_1x1=1, spatial=(), filters_pool_proj=0)
        proposal = proposed_module(module, measurement(counts={1: 1.0, 3: 1.0, 5: 1.0}))
        assert (proposal.filters_1x1, proposal.spatial) == (1, ())


def test_the_proposal_uses_its_budget_and_keeps_the_proportions():
    found = [
        measurement(module.name, channels=50, counts={1: 10.0, 3: 20.0, 5: 10.0})
        for module in PAPER.modules
    ]
    proposal = propose(PAPER, found, Budget(macs=1_500_000_000))
    total = network_cost(proposal).total
    assert 0.99 * 1_500_000_000 < total.macs <= 1_500_000_000
    assert proposal.stem == PAPER.stem
    for module in proposal.modules:
        three, five = module.spatial
        assert three.filters / module.filters_1x1 == pytest.approx(2, rel=0.1)
        assert five.filters / module.filters_1x1 == pytest.approx(1, rel=0.1)
    with pytest.raises(ValueError, match="Expected a budget of at least"):
        propose(PAPER, found, Budget(macs=200_000_000))


def planted_network(groups, grid=12):
    """A model whose pixels are the planted activations: an identity under a module's name."""
    inputs = keras.Input((grid, grid, sum(len(group) for group in groups)), name="pixels_tf")
    return keras.Model(inputs, keras.layers.Identity(name="3a")(inputs))


class TestMeasure:
    groups = ([(0, 0)] * 3, CORNERS_AND_CENTRE, CORNERS_AND_CENTRE)

    def measured(self, activations, **options):
        batches = np.array_split(activations.astype(np.float32), 3)
        model = planted_network(self.groups)
        return measure(model, {"3b": "3a"}, lambda: batches, DesignOptions(**options))[0]

    def test_planted_structure_is_measured(self):
        found = self.measured(planted(self.groups))
        assert (found.module, found.endpoint) == ("3b", "3a")
        assert (found.grid, found.channels) == ((12, 12), 13)
        assert found.counts == pytest.approx({1: 1, 3: 2, 5: 0})
        np.testing.assert_allclose(found.extents, [1 / 3, 0, 2 / 3, 0, 0])
        # r = 1 / 1.09 within a cluster: .92 at the distance 0 for the three in one place; the
        # others lie 1 off their nearest.
        np.testing.assert_allclose(found.decay.strongest[0], 3 / 13 / 1.09, atol=0.03)
        np.testing.assert_allclose(found.decay.itself, [1, 0, 0, 0, 0], atol=0.02)
        assert found.null.strongest.max() < 0.1
        assert found.sweep[0.6] == pytest.approx({1: 1 / 3, 3: 2 / 3, 5: 0})
        # Three latents and noise of a tenth of their variance in 13 channels.
        assert 3 <= found.dimensions[1] <= 13
        assert found.dimensions[5] < found.dimensions[1] + 1

    def test_order_of_the_images_does_not_matter(self):
        activations = planted(self.groups)
        first, second = self.measured(activations), self.measured(activations[::-1])
        assert first.counts == second.counts
        assert first.dimensions == second.dimensions
        np.testing.assert_allclose(first.decay.itself, second.decay.itself, atol=1e-6)

    def test_pooled_map_and_kernels(self):
        found = self.measured(planted(self.groups), kernel_sizes=(1, 3), threshold=0.5)
        assert sorted(found.counts) == sorted(found.dimensions) == [1, 3]
        assert len(found.extents) == len(found.decay.itself) == 3
        # A maximum over 3 x 3 is similar at neighbours, so its dimension is lower than the map's.
        assert 0 < found.pooled_dimension < found.dimensions[3]

    def test_no_images(self):
        with pytest.raises(ValueError, match="at least one batch"):
            measure(planted_network(self.groups), {"3b": "3a"}, list, DesignOptions())

    def test_channels_first(self, channels_first):
        model = build_network(fitted_size(tiny_spec()))
        images = [np.random.default_rng(0).normal(size=(6, 3, 16, 24)).astype(np.float32)]
        found = measure(model, {"3a": "conv2"}, lambda: images, DesignOptions())[0]
        assert (found.grid, found.channels) == ((4, 6), 6)


def fitted_size(spec):
    return replace(spec, input_shape=(16, 24, 3))


@pytest.mark.parametrize("changes", [{"kernel_sizes": (3, 5)}, {"kernel_sizes": (1,)},
                                     {"kernel_sizes": (1, 4)}, {"kernel_sizes": (1, 3, -5)},
                                     {"threshold": 1.0}, {"threshold": 0.0}])  # fmt: skip
def test_options_refuse(changes):
    ((name, value),) = changes.items()
    with pytest.raises(ValueError, match=re.escape(f"Received: {name}={value}")):
        DesignOptions(**changes)


def test_truncated():
    spec = tiny_spec(aux=True)
    upto_3a, upto_4a = truncated(spec, "3a"), truncated(spec, "4a")
    assert [module.name for module in upto_3a.modules] == ["3a"]
    assert [aux.name for aux in upto_3a.aux] == ["aux_1"]
    assert [stage.name for stage in upto_3a.stages] == ["3"]
    assert upto_4a.stages == spec.stages
    assert upto_4a.aux == spec.aux
    assert build_network(upto_3a).output_shape == (None, 5)
    with pytest.raises(ValueError, match=r"among 3a, 3b, 4a\. Received: '5b'"):
        truncated(spec, "5b")


@pytest.fixture
def few_images():
    pixels = np.random.default_rng(0).integers(0, 256, size=(40, 32, 32, 3), dtype=np.uint8)
    split = Split(pixels, np.arange(40) % 5)
    return ImageData(name="few", train=split, test=split, class_names=tuple("abcde"))


def test_design_changes_only_the_modules_widths(few_images):
    spec = fitted_to_data(tiny_spec(norm="bn"), few_images)
    budget = Budget(macs=3_000_000)
    options, said = DesignOptions(width_divisor=4), []
    found = design_network(spec, build_network(spec), few_images.test, budget, options, said.append)
    assert said == [
        f"measuring the input of {module}, {number} of 3"
        for number, module in enumerate(("3a", "3b", "4a"), 1)
    ]
    assert found.start == spec
    assert [item.module for item in found.measurements] == ["3a", "3b", "4a"]
    assert [item.channels for item in found.measurements] == [6, 11, 11]  # 2 + 3 + 4 + 2 filters
    assert [item.grid for item in found.measurements] == [(8, 8), (8, 8), (4, 4)]
    assert budget.used(network_cost(found.spec).total) <= 1
    kept = replace(found.spec, name=spec.name, stages=spec.stages)
    assert kept == spec
    assert NetworkSpec.from_json(found.spec.to_json()) == found.spec


def test_layer_by_layer_each_module_is_measured_on_the_designed_ones(
    monkeypatch, few_images, tmp_path
):
    trained = []

    def untrained(spec, data, recipe, folder, *, strategy, callbacks=(), verbose=1, report):
        trained.append((spec, folder))
        return SimpleNamespace(model=build_network(spec))

    monkeypatch.setattr(procedure, "train", untrained)
    spec = fitted_to_data(tiny_spec(), few_images)
    recipe = Recipe(name="brief", epochs=1)
    budget = Budget(macs=3_000_000)
    found = grow_network(spec, few_images, recipe, budget, tmp_path, DesignOptions(width_divisor=4))
    specs = [spec for spec, _ in trained]
    assert [[module.name for module in s.modules] for s in specs] == [
        ["3a"], ["3a", "3b"], ["3a", "3b", "4a"]
    ]  # fmt: skip
    assert [folder for _, folder in trained] == [tmp_path / name for name in ("3a", "3b", "4a")]
    # The newest module is still that of the start; those below it are designed.
    for number, step in enumerate(specs):
        assert step.modules[-1] == spec.modules[number]
        for item, module in zip(found.measurements, step.modules[:-1], strict=False):
            start = next(m for m in spec.modules if m.name == module.name)
            assert module == proposed_module(start, item, width_divisor=4) != start
    assert budget.used(network_cost(found.spec).total) <= 1
    assert [item.endpoint for item in found.measurements] == ["conv2", "3a", "pool3"]


@pytest.fixture
def found():
    start = replace(PAPER, stages=PAPER.stages[:1], aux=())
    items = tuple(measurement(module.name) for module in start.modules)
    spec = propose(start, items, Budget(macs=900_000_000))
    return Design(start=start, spec=spec, measurements=items, threshold=0.65)


class TestReport:
    def test_files(self, found, tmp_path):
        write_design_report(found, tmp_path / "new")
        names = {path.name for path in (tmp_path / "new").iterdir()}
        assert names == {
            "spec.json", "measurements.json", "report.html",
            "correlation.png", "clusters.png", "widths.png",
        }  # fmt: skip
        text = (tmp_path / "new" / "spec.json").read_text(encoding="utf-8")
        assert NetworkSpec.from_json(text) == found.spec
        numbers = json.loads((tmp_path / "new" / "measurements.json").read_text(encoding="utf-8"))
        assert numbers["3b"]["clusters_by_kernel"] == {"1": 10.0, "3": 6.0, "5": 4.0}
        assert numbers["3a"]["pooled_dimension"] == 5.0
        for name in names:
            if name.endswith(".png"):
                picture = (tmp_path / "new" / name).read_bytes()
                assert picture.startswith(b"\x89PNG")
                assert b64encode(picture) in (tmp_path / "new" / "report.html").read_bytes()

    def test_text(self, found, tmp_path):
        write_design_report(found, tmp_path)
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        macs = network_cost(found.spec).total.macs
        assert f"<tr><td>paper_designed</td><td>{macs:,}</td>" in text
        assert "correlate by 0.65 or more" in text
        start = "1x1 64, 3x3 96-128, 5x5 16-32, pool 32"
        assert f"<tr><td>3a</td><td>{start}</td><td>1x1 " in text
        row = ["3a", "below, 7 x 7 x 50", "10.0", "6.0", "4.0", "30.0", "12.4", "30.0", "5.0"]
        assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" in text

    def test_width_rows(self, found):
        bare = replace(
            MODULE,
            filters_1x1=0,
            spatial=(BranchSpec(kernel_size=3, reduce=None, filters=7),),
            filters_pool_proj=None,
        )
        start = found.start.map_modules({"3a": bare})
        rows = width_rows(replace(found, start=start))
        assert [row[0] for row in rows] == ["3a", "3b"]
        assert rows[0][1] == "3x3 7, pool unprojected"
        assert rows[1][1] == "1x1 128, 3x3 128-192, 5x5 32-96, pool 64"


@pytest.fixture(autouse=True)
def small_sample(monkeypatch):
    """The command's sample has 100 images."""
    whole = load_sample()
    cut = Split(whole.test.images[:100], whole.test.labels[:100])
    sample = replace(whole, train=cut, test=cut)
    monkeypatch.setattr("keras_inception.data.sources.load_sample", lambda: sample)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """The files of a run that `measure` needs: an untrained tiny network and its spec."""
    folder = tmp_path_factory.mktemp("run")
    keras.utils.set_random_seed(0)
    spec = fitted_to_data(tiny_spec(norm="bn"), load_sample())
    build_network(spec).save(folder / "model.keras")
    (folder / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    return folder


class TestCommand:
    def test_a_finished_run(self, run_folder, tmp_path):
        out = tmp_path / "designed"
        command = ["design", "--model", str(run_folder), "--out", str(out)]
        result = CliRunner().invoke(app, [*command, "--budget-macs", "2000000", "--kernels", "1,3"])
        assert result.exit_code == 0, result.output
        spec = NetworkSpec.from_json((out / "spec.json").read_text(encoding="utf-8"))
        assert 1_900_000 < network_cost(spec).total.macs <= 2_000_000
        assert {branch.kernel_size for module in spec.modules for branch in module.spatial} <= {3}
        assert (out / "report.html").exists()
        assert f"{network_cost(spec).total.macs:,} multiply-adds" in result.output
        again = CliRunner().invoke(app, command)
        assert again.exit_code == 2
        assert "new or empty folder" in again.output

    def test_layer_by_layer(self, monkeypatch, run_folder, tmp_path):
        epochs = []

        def untrained(spec, data, recipe, folder, *, strategy, callbacks=(), verbose=1, report):
            epochs.append(recipe.epochs)
            return SimpleNamespace(model=build_network(spec))

        monkeypatch.setattr(procedure, "train", untrained)
        arguments = ["--spec", str(run_folder / "spec.json"), "--budget-params", "20000"]
        arguments += ["--layer-by-layer", "--epochs", "2", "--out", str(tmp_path / "designed")]
        result = CliRunner().invoke(app, ["design", *arguments])
        assert result.exit_code == 0, result.output
        assert epochs == [2, 2, 2]
        text = (tmp_path / "designed" / "spec.json").read_text(encoding="utf-8")
        assert 18_000 < network_cost(NetworkSpec.from_json(text)).total.params <= 20_000

    def test_the_budget_defaults_to_the_cost_of_the_start(self, monkeypatch, tmp_path):
        def refused(spec, model, images, budget, options, report):
            raise ValueError(f"{budget} {options.threshold}")

        monkeypatch.setattr("keras_inception.design.procedure.design_network", refused)
        folder = tmp_path / "run"
        folder.mkdir()
        build_network(NANO).save(folder / "model.keras")
        (folder / "spec.json").write_text(NANO.to_json(), encoding="utf-8")
        command = ["design", "--model", str(folder), "--out", str(tmp_path / "new")]
        result = CliRunner().invoke(app, command)
        macs = 3_999_440  # the family table's
        assert f"Budget(macs={macs}, params=None) {DesignOptions().threshold}" in result.output
        result = CliRunner().invoke(app, [*command, "--budget-params", "99999"])
        assert "Budget(macs=None, params=99999)" in result.output

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--kernels", "1,4"], "odd kernel sizes"),
            (["--kernels", "1,three"], "three"),
            (["--threshold", "1.5"], "between 0 and 1"),
            (["--budget-macs", "1000"], "budget of at least"),
            (["--data", "elsewhere"], "Received: 'elsewhere'"),
            (["--layer-by-layer"], "--model or --layer-by-layer"),
        ],
    )
    def test_mistakes(self, monkeypatch, run_folder, tmp_path, arguments, message):
        monkeypatch.setattr(
            "keras_inception.design.procedure.design_network", None
        )  # reported before any work is done
        command = ["design", "--model", str(run_folder), "--out", str(tmp_path / "new")]
        result = CliRunner().invoke(app, [*command, *arguments])
        assert result.exit_code == 2
        assert message in result.output
