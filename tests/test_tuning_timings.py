"""Timings of exported networks: tables of any machine, their fit, and real exports."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.exporters.formats import FORMATS, Format
from keras_inception.runtimes.exported import open_exported
from keras_inception.runtimes.timing import (
    COLUMNS,
    Conditions,
    read_timings,
    time_models,
    write_timings,
)
from keras_inception.spec.layers import LRNSpec
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import NANO
from tuning.latency_fit import Wanted, fit_table
from tuning.latency_timing import (
    export_format,
    measure_latency_model,
    random_networks,
    write_networks,
)
from tuning.space import Space

SPACE = Space(base=NANO, budget=Budget(macs=10**9), width_divisor=2)
Rows = list[dict[str, object]]


def milliseconds(spec: NetworkSpec) -> float:
    """A linear law: .03 ms a convolution, .2 a million multiply-adds of them, .1 a network."""
    macs = [layer.macs for layer in network_cost(spec).layers if layer.kind == "convolution"]
    return 0.1 + 0.03 * len(macs) + 0.2 * sum(macs) / 1e6


def written(folder: Path, specs: list[NetworkSpec], **changes: object) -> Rows:
    """Rows of a table by hand, with the specs beside it."""
    rows: Rows = []
    for number, spec in enumerate(specs):
        (folder / f"net_{number}.json").write_text(spec.to_json())
        row = {
            "model": f"net_{number}_int8.tflite",
            "runtime": "litert",
            "precision": "int8",
            "batch_size": 1,
            "threads": 4,
            "device": "a board, 4 cores",
            "ms_an_image": milliseconds(spec),
        }
        rows.append(row | changes)
    return rows


def table_of(folder: Path, rows: Rows) -> Path:
    path = folder / "timings.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_linear_law_is_recovered_from_a_table(tmp_path: Path) -> None:
    specs = random_networks(SPACE, 24, seed=1)
    table = table_of(tmp_path, written(tmp_path, specs))
    model = fit_table(table, NANO, Wanted(runtime="litert", threads=4))
    assert model.error < 0.01
    expected = {"runtime": "litert", "precision": "int8", "batch_size": 1, "threads": 4}
    assert vars(model.conditions) == expected | {"device": "a board, 4 cores"}
    for other in random_networks(SPACE, 8, seed=2):  # that no row has
        assert model.milliseconds(network_cost(other)) == pytest.approx(
            milliseconds(other), rel=0.02
        )


def test_repeated_rows_are_one_network_by_its_median(tmp_path: Path) -> None:
    rows = written(tmp_path, random_networks(SPACE, 24, seed=1))
    outliers = [
        row | {"ms_an_image": factor * float(str(row["ms_an_image"]))}
        for row in rows
        for factor in (0.5, 9.0)
    ]
    assert fit_table(table_of(tmp_path, rows + outliers), NANO, Wanted()).error < 0.01


def test_the_random_networks_differ_in_depth_and_cost() -> None:
    specs = random_networks(SPACE, 40)
    costs = [network_cost(spec).total.macs / network_cost(NANO).total.macs for spec in specs]
    assert len({len(spec.modules) for spec in specs}) > 1
    assert min(costs) < 0.5
    assert 2 < max(costs) <= 4


def no_column(rows: Rows, folder: Path) -> None:
    for row in rows:
        row["ms"] = row.pop("ms_an_image")


def other_size(rows: Rows, folder: Path) -> None:
    (folder / "net_3.json").write_text(replace(NANO, input_shape=(64, 64, 1)).to_json())


def other_classes(rows: Rows, folder: Path) -> None:
    (folder / "net_3.json").write_text(replace(NANO, classes=7).to_json())


def no_spec(rows: Rows, folder: Path) -> None:
    (folder / "net_3.json").unlink()


def torn_spec(rows: Rows, folder: Path) -> None:
    (folder / "net_3.json").write_text("{")


def few(rows: Rows, folder: Path) -> None:
    del rows[11:]


def two_devices(rows: Rows, folder: Path) -> None:
    rows[0]["device"] = "another"


def no_number(rows: Rows, folder: Path) -> None:
    rows[2]["ms_an_image"] = "fast"


def no_time(rows: Rows, folder: Path) -> None:
    rows[2]["ms_an_image"] = 0


def half_a_batch(rows: Rows, folder: Path) -> None:
    rows[2]["batch_size"] = 0.5


def other_layers(rows: Rows, folder: Path) -> None:
    normalized = replace(NANO, stem=(*NANO.stem, LRNSpec(name="norm1")))
    rows[:] = written(folder, random_networks(replace(SPACE, base=normalized), 12))


@pytest.mark.parametrize(
    ("break_table", "message"),
    [
        (no_column, "Expected a table of timings with the columns model, runtime.*Received: .*ms"),
        (other_size, r"input_shape \(28, 28, 1\), as in this search. Received: \(64, 64, 1\)"),
        (other_classes, "classes 10, as in this search. Received: 7"),
        (other_layers, r"with layers of the kinds .* Received: .*'lrn'"),
        (no_spec, "Expected the spec of the network 'net_3_int8.tflite'"),
        (torn_spec, "net_3.json"),
        (few, "Expected at least 12 networks .* Received: 11"),
        (two_devices, "Expected timings under one of the conditions .* another; .* 4 cores"),
        (no_number, "Expected a number of ms_an_image. Received: 'fast'. In line 4"),
        (no_time, "Expected `ms_an_image` of Timing to be a positive.* In line 4"),
        (half_a_batch, "Expected a number of batch_size. Received: '0.5'"),
    ],
)
def test_tables_that_do_not_fit(
    break_table: Callable[[Rows, Path], None], message: str, tmp_path: Path
) -> None:
    rows = written(tmp_path, random_networks(SPACE, 12))
    assert fit_table(table_of(tmp_path, rows), NANO, Wanted()).error >= 0
    break_table(rows, tmp_path)
    with pytest.raises(ValueError, match=message):
        fit_table(table_of(tmp_path, rows), NANO, Wanted())


def test_conditions_that_no_row_has(tmp_path: Path) -> None:
    table = table_of(tmp_path, written(tmp_path, random_networks(SPACE, 12)))
    with pytest.raises(ValueError, match=r"Expected timings with precision float32 .*litert int8"):
        fit_table(table, NANO, Wanted(precision="float32"))


# Of benchmark_model with --enable_op_profiling and --profiling_output_csv_file: the form of a
# profile, and the last lines of a log, with other numbers. Times are microseconds.
PROFILE = """Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
AllocateTensors, 0.029, 0.029, 100%, 100%, 0, 1, AllocateTensors/0

Number of nodes executed: 1
============================== Summary by node type ==============================
node type, count, avg_ms, avg %, cdf %, mem KB, times called
AllocateTensors, 1, 0.029, 100%, 100%, 0, 1

Timings (microseconds): count=1 curr=29
Memory (bytes): count=0
1 nodes observed


Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
CONV_2D, 0.11, 0.0930388, 44.8994%, 44.8994%, 0, 1, [predictions/Conv2D]:0

Number of nodes executed: 1
============================== Summary by node type ==============================
node type, count, avg_ms, avg %, cdf %, mem KB, times called
CONV_2D, 1, 0.093, 100%, 100%, 0, 1

Timings (microseconds): count=3166 first=947 curr=406 min=390 max=947 avg={average:.6g} std=14
Memory (bytes): count=0
1 nodes observed


"""
LOG = (
    "INFO: STARTING!\nINFO: Num threads: [4]\nINFO: Inference timings in us: Init: 38467, First "
    "inference: 15234, Warmup (avg): 83235, Inference (avg): {average:.6g}\n"
)


@pytest.mark.parametrize(("form", "suffix"), [(PROFILE, ".csv"), (LOG, ".txt")])
def test_what_benchmark_model_writes(form: str, suffix: str, tmp_path: Path) -> None:
    specs = random_networks(SPACE, 24, seed=1)
    for number, spec in enumerate(specs):
        (tmp_path / f"net_{number}.json").write_text(spec.to_json())
        text = form.format(average=1e3 * milliseconds(spec))
        (tmp_path / f"net_{number}_int8{suffix}").write_text(text)
    model = fit_table(tmp_path, NANO, Wanted())
    assert model.conditions == Conditions(runtime="litert", precision="int8")
    assert model.error < 0.01
    other = random_networks(SPACE, 1, seed=2)[0]
    assert model.milliseconds(network_cost(other)) == pytest.approx(milliseconds(other), rel=0.02)
    one = tmp_path / f"net_0_int8{suffix}"
    with pytest.raises(ValueError, match="Expected a table of timings"):
        fit_table(one, NANO, Wanted())


def test_a_folder_without_such_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"which has 1 .csv and .txt files and no such one"):
        fit_table(tmp_path, NANO, Wanted())


@pytest.mark.parametrize("kind", FORMATS)
def test_real_exports_of_every_runtime(kind: Format, tmp_path: Path) -> None:
    runtime, _, precision = kind.partition("-")
    wanted = Wanted(runtime=runtime, precision=precision or "float32")
    assert export_format(wanted) == kind
    (path,) = write_networks(SPACE, tmp_path, wanted, count=1)
    timed = time_models([path], batch_size=3)
    write_timings(tmp_path / "timings.csv", timed)
    (row,) = read_timings(tmp_path / "timings.csv")
    assert (row.model, row.conditions.runtime) == (path.name, runtime)
    assert row.conditions.precision == (precision or "float32")
    assert row.conditions.batch_size == 3
    assert row.ms_an_image == pytest.approx(timed[path][1], rel=1e-5)
    spec = NetworkSpec.from_json((tmp_path / "network_00.json").read_text())
    assert spec == random_networks(SPACE, 1)[0]


def test_int8_of_random_weights_keeps_no_layer_in_float32(tmp_path: Path) -> None:
    import onnx

    wanted = Wanted(runtime="onnx", precision="int8")
    (path,) = write_networks(SPACE, tmp_path, wanted, count=1)
    nodes = onnx.load(path).graph.node
    made_by = {name: node.op_type for node in nodes for name in node.output}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert convolutions
    assert {made_by[node.input[1]] for node in convolutions} == {"DequantizeLinear"}


@pytest.mark.parametrize("wanted", [Wanted(runtime="tensorrt"), Wanted(precision="int8")])
def test_exports_that_there_are_not(wanted: Wanted) -> None:
    with pytest.raises(ValueError, match="Expected a runtime and a precision among saved_model"):
        export_format(wanted)


def test_a_model_of_networks_that_are_timed_here() -> None:
    """Fitted on this machine to 12 networks: a network of ten times the cost takes longer."""
    model = measure_latency_model(SPACE, Wanted(runtime="litert", threads=1), count=12)
    assert model.conditions.threads == 1
    assert model.conditions.runtime == "litert"
    small, large = (
        replace(SPACE, budget=Budget(macs=macs)).spec({}) for macs in (10**6, 4 * 10**6)
    )
    assert model.milliseconds(network_cost(small)) < model.milliseconds(network_cost(large))


# Importing what a board lacks raises.
ON_A_BOARD = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("keras", "tensorflow", "keras_tuner", "optuna", "scipy", "jax"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from keras_inception.cli import main
sys.argv = ["keras-inception", *sys.argv[1:]]
main()
"""


def test_the_command_needs_the_runtime_alone(tmp_path: Path) -> None:
    paths = write_networks(SPACE, tmp_path, Wanted(runtime="litert", precision="int8"), count=2)
    command = [sys.executable, "-c", ON_A_BOARD, "time", *map(str, paths), "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "timings.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1].startswith("network_00_int8.tflite,litert,int8,1,1,")
    assert len(lines) == 3


def test_a_file_that_is_no_export(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"Expected an exported network: .*spec.json"):
        open_exported(file)
