"""JSON of other people: specs, recipes, and every file of a search or run, of any shape."""

import copy
import gzip
import json
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import PIL.Image
import pytest
from test_tuning_report import folder as searched

from keras_inception.data.record import recorded_fingerprint, recorded_source
from keras_inception.data.scan import load_scan, save_scan
from keras_inception.data.sources import open_data
from keras_inception.runtimes.timing import Conditions
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import QUICK, Recipe
from keras_inception.spec.variants import NANO
from keras_inception.training.run import _read_metrics
from keras_inception.training.snapshot import Snapshot, Snapshots
from tuning.engine.oracles import make_oracle
from tuning.fidelity import load_choice
from tuning.latency import LatencyModel
from tuning.report.page import write_report
from tuning.run import best_spec
from tuning.trials import read_search, read_trials, search_progress

__all__ = ["searched"]  # a fixture: twelve trials
HUGE = 10**400
METRICS = {"top_1": 0.5, "top_5": 1.0, "seconds": 2, "images": 9, "per_class": {"a": 0.5}}
# Values of other types and sizes than a document has in a place.
OTHERS = (None, [], {}, "text", "", -1, 0.5, True, [[]], {"a": {}}, HUGE, float("nan"), ["x"])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document, the whole first."""
    yield path
    if not isinstance(value, dict | list):
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(item, (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return changed


def mutations(document: Any, count: int) -> Iterator[Any]:
    """Documents with one value replaced: each place once, the rest at random up to `count`."""
    draw = random.Random(0)
    every = list(places(document))
    chosen = every[:count] + [draw.choice(every) for _ in range(count - len(every))]
    for path in chosen:
        yield replaced(document, path, draw.choice(OTHERS))


def assert_told(file: Path, read: Callable[[], Any], count: int = 250) -> int:
    """Read a file with one value replaced at a time: only ValueError may come; returns how often.

    Warnings are no errors here: they say what is set aside.
    """
    text, messages = file.read_text(), []
    for document in mutations(json.loads(text), count):
        file.write_text(json.dumps(document))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read()
            except ValueError as error:
                messages.append(str(error))
        for aside in file.parent.glob("*.unreadable"):
            aside.unlink()
    for text_of_no_shape in ("[" * 100_000, "9" * 5000, "", "\xff", "null", '"text"'):
        file.write_text(text_of_no_shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read()
            except ValueError as error:
                messages.append(str(error))
    file.write_text(text)
    assert max(map(len, messages), default=0) < 3000
    return len(messages)


@pytest.mark.parametrize("value", ["1e400", "NaN", "Infinity", "-Infinity", str(HUGE), "9" * 5000])
def test_numbers_that_no_float_holds_are_refused(value):
    spec = json.loads(NANO.to_json())
    spec["stages"][0]["modules"][0]["filters_1x1"] = "HERE"
    spec["dropout_rate"] = "THERE"
    text = json.dumps(spec)
    for place, other in (("HERE", '"THERE"'), ("THERE", '"HERE"')):
        document = text.replace(f'"{place}"', value).replace(other, "0")
        with pytest.raises(ValueError, match="Expected"):
            NetworkSpec.from_json(document)
    for field in ("epochs", "base_learning_rate", "mixup", "class_weights", "seed"):
        recipe = json.loads(QUICK.to_json()) | {field: "HERE"}
        number = f"[{value}, 1]" if field == "class_weights" else value
        with pytest.raises(ValueError, match="Expected"):
            Recipe.from_json(json.dumps(recipe).replace('"HERE"', number))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 200 + "]" * 200])
def test_deep_nesting_is_refused(text):
    for read in (NetworkSpec.from_json, Recipe.from_json):
        with pytest.raises(ValueError, match=r"Expected the JSON.*nested|deep"):
            read(text)


@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[31mred", "a/b", "..\\x", "\x00", "\u202ethere", "\ud800", "x" * 101, ""]
)
def test_names_that_no_folder_or_terminal_should_have_are_refused(name):
    for document, read in ((NANO, NetworkSpec.from_json), (QUICK, Recipe.from_json)):
        with pytest.raises(ValueError, match="`name`") as refused:
            read(json.dumps(json.loads(document.to_json()) | {"name": name}))
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 500


def test_thousands_of_modules_take_linear_time(tmp_path):
    """5,000 modules, in a process of 30 seconds of processor time; quadratic, it took 161."""
    script = """
import json, resource
from dataclasses import replace
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
from keras_inception.cost.layers import network_cost
from keras_inception.spec.module import BranchSpec
from keras_inception.data.scan import load_scan, save_scan
from keras_inception.data.sources import open_data
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import NANO
module = NANO.modules[0]
modules = tuple(replace(module, name=f"m{index}") for index in range(5000))
branches = tuple(BranchSpec(kernel_size=2 * k + 3, reduce=1, filters=1) for k in range(5000))
wide = replace(module, name="wide", spatial=branches)
stage = replace(NANO.stages[0], modules=(*modules, wide))
spec = NetworkSpec.from_json(replace(NANO, stages=(stage,)).to_json())
cost = network_cost(spec)
print(len(cost.by_module()), len(cost.by_stage()), len(spec.module_inputs()))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    modules, stages, inputs = map(int, result.stdout.split())
    assert (modules >= 5001, stages, inputs) == (True, 3, 5001)


def test_every_value_of_a_spec_and_a_recipe(tmp_path):
    for document, read in ((NANO, NetworkSpec.from_json), (QUICK, Recipe.from_json)):
        file = tmp_path / f"{document.name}.json"
        file.write_text(document.to_json())
        assert assert_told(file, lambda file=file, read=read: read(file.read_text()), 500) > 100


def test_every_value_of_a_search_and_its_trials(searched):
    def read() -> None:
        read_search(searched)
        read_trials(searched)
        best_spec(searched)
        search_progress(searched, max_trials=12, workers=1)

    for file in searched.glob("trial_0[1-9]"):  # one of each status is enough
        (file / "trial.json").unlink()
    assert assert_told(searched / "search.json", read) > 50
    assert_told(
        searched / "trial_00" / "trial.json", read, 400
    )  # most are left out, with a warning
    spec = searched / "trial_00" / "spec.json"
    spec.write_text(NANO.to_json())
    assert assert_told(spec, read, 100) > 50


def test_a_trial_that_cannot_be_read_is_named(searched):
    file = searched / "trial_00" / "trial.json"
    file.write_text("null")
    with pytest.warns(UserWarning, match=r"trial_00/trial\.json is left out"):
        assert len(read_trials(searched)) == 11


def test_every_value_of_the_files_beside_a_search(tmp_path):
    way = {
        "epochs": 1,
        "data_fraction": 0.5,
        "resolution": None,
        "seconds": 2.0,
        "rank_correlation": 0.8,
    }
    choice = {"chosen": way, "full": way, "measured": [way], "networks": 12, "seconds": 60.0}
    file = tmp_path / "fidelity.json"
    file.write_text(json.dumps({"trainings": {}, "choice": choice}))
    assert assert_told(file, lambda: load_choice(tmp_path)) > 20
    model = LatencyModel(coefficients={"network": 1.0}, error=0.1, conditions=Conditions())
    file = tmp_path / "latency.json"
    file.write_text(model.to_json())
    assert assert_told(file, lambda: LatencyModel.from_json(file.read_text())) > 50
    (tmp_path / "data.json").write_text(json.dumps({"source": "sample", "fingerprint": "abc"}))

    def recorded() -> None:
        recorded_source(tmp_path)
        recorded_fingerprint(tmp_path)

    assert assert_told(tmp_path / "data.json", recorded) > 50
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    metrics = tmp_path / "metrics.json"
    assert assert_told(metrics, lambda: _read_metrics(metrics)) > 50


def test_every_value_of_a_snapshot_is_checked_before_it_is_used(tmp_path):
    """A snapshot of another shape counts as damaged: the one before it is used."""
    progress: dict[str, Any] = {"step": 3, "epoch": 1, "sums": {"loss": 0.1}, "seconds": 1.5}
    progress |= {"history": {"loss": [0.5]}, "finished": False}
    document = {"progress": progress, "identity": {"spec": {}}, "saved_at": 1.7e9}
    refused = 0
    for changed in mutations(document, 200):
        snapshots = Snapshots(tmp_path)
        snapshots.save(1, Snapshot(document, {"a": np.float32(1)}))
        snapshots.save(2, Snapshot(changed, {"a": np.float32(2)}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, numbers = snapshots.newest(), snapshots.newest_document()
        assert found is not None
        assert numbers is not None
        refused += float(found.arrays["a"]) == 1
        for file in tmp_path.iterdir():
            file.unlink()
    assert refused > 100


def oracle_of(folder: Path) -> Any:
    space = keras_tuner.HyperParameters()
    space.Float("x", 0.0, 1.0, default=0.5)
    made = make_oracle(
        "random",
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=4,
        hyperparameters=space,
        seed=1,
    )
    made.verbose = 0
    made._set_project_dir(str(folder), "search")
    return made


def test_every_value_of_what_an_oracle_reloads(tmp_path):
    """Whatever the files hold, the search is resumed, and lends a trial or ends."""
    first = oracle_of(tmp_path)
    for index in range(2):
        trial = first.create_trial("worker")
        first.update_trial(trial.trial_id, {"val_accuracy": 0.5 + index / 10})
        trial.status = "COMPLETED"
        first.end_trial(trial)
    first.create_trial("worker")
    first.save()
    saved = {file: file.read_text() for file in tmp_path.rglob("*.json")}

    def reload() -> None:
        again = oracle_of(tmp_path)
        again.reload()
        again.get_best_trials(3)
        assert again.create_trial("another").status in ("RUNNING", "IDLE", "STOPPED")

    for name in ("oracle.json", "trial_0/trial.json", "trial_2/trial.json"):
        text = saved[tmp_path / "search" / name]
        for document in mutations(json.loads(text), 120):
            for file, content in saved.items():
                file.write_text(content)
            (tmp_path / "search" / name).write_text(json.dumps(document))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reload()


def test_every_value_of_a_cached_scan(tmp_path):
    """A scan with a value of another type is not used at all: the folder is scanned anew."""
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(2):
            PIL.Image.new("L", (8, 6), index).save(tmp_path / "data" / name / f"{index}.png")
    source, kept = f"dir:{tmp_path / 'data'}", tmp_path / "scan.json.gz"
    expected = open_data(source).scanned
    save_scan(kept, dict(expected))
    document = json.loads(gzip.decompress(kept.read_bytes()))
    used = 0
    for changed in mutations(document, 400):
        kept.write_bytes(gzip.compress(json.dumps(changed).encode()))
        found = load_scan(kept)
        used += bool(found)
        for place, result in found.items():
            assert isinstance(result, str) or min(result[1:7]) >= 0
            assert [type(value) for value in place] == [str, int, int, int]
    assert 0 < used < 100  # a path replaced by another text, or a reason in place of an image
    kept.write_bytes(gzip.compress(json.dumps([changed]).encode()))
    assert open_data(source, scan_file=kept).scanned == expected


@pytest.mark.parametrize(
    "contents",
    [
        gzip.compress(b"[" * 100_000),
        gzip.compress(gzip.compress(b"{}")),
        gzip.compress(b"{}")[:-4],
        gzip.compress(b"{}")[:-8] + bytes(8),
        gzip.compress(b'{"rules": [], "rules": NaN, "images": 1e999}'),
        gzip.compress('{"rules": 1}'.encode("utf-16")),
        b"\x1f\x8b",
        b"",
    ],
    ids=["deep", "twice", "torn", "checksum", "numbers", "utf-16", "magic", "empty"],
)
def test_a_scan_that_is_none_is_not_used(tmp_path, contents):
    kept = tmp_path / "scan.json.gz"
    kept.write_bytes(contents)
    assert load_scan(kept) == {}
    kept.unlink()
    kept.mkdir()
    assert load_scan(kept) == {}


def test_a_scan_that_unpacks_to_a_hundred_times_its_size_is_not_parsed(tmp_path, monkeypatch):
    """Its 150 MB of empty lists would take 4 GB as Python objects."""
    kept = tmp_path / "scan.json.gz"
    lists = b"[]," * 50_000_000
    kept.write_bytes(gzip.compress(b'{"rules": [], "images": [' + lists + b"[]]}", 1))
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("parsed"))
    assert load_scan(kept) == {}


def test_a_completed_trial_with_a_torn_record_is_reported(tmp_path):
    first = oracle_of(tmp_path)
    trial = first.create_trial("worker")
    first.update_trial(trial.trial_id, {"val_accuracy": 0.5})
    trial.status = "COMPLETED"
    first.end_trial(trial)
    file = tmp_path / "search" / "trial_0" / "trial.json"
    text = file.read_text()
    file.write_text(text[: len(text) // 2])
    again = oracle_of(tmp_path)
    with pytest.warns(UserWarning, match=r"trial_0/trial\.json cannot be read .* set aside"):
        again.reload()
    assert "whether this trial was completed" in again.trials["0"].message
    assert file.with_suffix(".unreadable").read_text() == text[: len(text) // 2]


def test_names_are_escaped_in_the_page(searched):
    """Names of specs, data and errors; the fixture's data are "cats <and> dogs"."""
    (searched / "data.json").write_text(json.dumps({"source": "<script>alert(1)</script>"}))
    document = json.loads((searched / "search.json").read_text())
    document["space"]["base"]["name"] = "<b>&"
    (searched / "search.json").write_text(json.dumps(document))
    page = write_report(searched).read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>&" not in page.replace("<b>&amp;", "")
    assert "a <loss> of nan" not in page
