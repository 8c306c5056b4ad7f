"""`keras-inception tune`: one-line usage errors, and the files and output of a search."""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import ENVIRONMENT, free_ports
from test_cli import assert_mistake, run
from test_tuning_search import pretended

from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.runtimes.timing import Conditions
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import NANO
from keras_inception.training.progress import TrainingDivergedError
from tuning.candidate import TrialResult
from tuning.latency import LatencyModel
from tuning.latency_fit import Wanted
from tuning.latency_timing import random_networks
from tuning.space import Space

QUICK = (
    "tune",
    "--variant",
    "nano",
    "--set",
    "epochs=1",
    "--oracle",
    "random",
    "--finalists",
    "0",
    "--out",
)


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of floors and distinct networks draws few points."""
    monkeypatch.setattr("tuning.base.POINTS", 5)


def test_mistakes(tmp_path: Path) -> None:
    out = tmp_path / "search"
    assert_mistake(run(*QUICK, out, "--budget-macs", 100_000), "Expected a budget of at least")
    assert_mistake(
        run(*QUICK, out, "--oracle", "best"),
        "Expected --oracle tpe, bayesian, random or hyperband. Received: 'best'",
    )
    assert_mistake(
        run(*QUICK, out, "--second-objective", "price", "--min-budget-share", 0.7),
        "Expected --second-objective macs or params. Received: 'price'",
    )
    assert_mistake(
        run(*QUICK, out, "--halving-epochs", "a,b"), "Expected --halving-epochs such as 2,6,18"
    )
    assert_mistake(run(*QUICK, out, "--kernels", "3;5"), "Received: kernels='3;5'")
    assert_mistake(
        run("tune", "--oracle", "hyperband", "--halving-epochs", 1, "--trials", 4, "--out", out),
        "Received: --trials 4",
    )
    assert not out.exists()
    assert_mistake(run("tune-report", tmp_path), "Expected the folder of a search")


def test_a_search_its_report_and_another_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[NetworkSpec] = []

    def counting(spec: NetworkSpec, *_: Any, **__: Any) -> Any:
        trained.append(spec)
        return pretended(spec)

    monkeypatch.setattr(importlib.import_module("tuning.run"), "train_candidate", counting)
    out = tmp_path / "search"
    result = run(*QUICK, out, "--trials", 3)
    assert result.exit_code == 0, result.output
    assert "3 trials by random over 14 hyperparameters" in result.output
    assert "5 random points: 5 with a width at its floor (" in result.output
    assert "Warning: a width lies on its floor in most points" in result.output
    assert len(trained) == 3
    best = max(trained, key=lambda spec: spec.modules[0].filters_pool_proj)
    written = NetworkSpec.from_json((out / "best_spec.json").read_text())
    assert written.modules == best.modules
    assert (out / "report.html").exists()

    result = run(*QUICK, out, "--trials", 3)
    assert result.exit_code == 0
    assert len(trained) == 3
    other = run(*QUICK, out, "--trials", 3, "--budget-macs", 3_500_000)
    assert_mistake(other, "- space.budget.macs: 3999440 + space.budget.macs: 3500000")
    assert run("tune-report", out).exit_code == 0


def test_trials_that_all_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than would end the search; the last reason is still printed."""

    def failing(*_: Any, **__: Any) -> Any:
        raise FloatingPointError("Received: a loss of nan")

    monkeypatch.setattr(importlib.import_module("tuning.run"), "train_candidate", failing)
    result = run(*QUICK, tmp_path / "search", "--trials", 2)
    assert result.exit_code == 2
    told = result.stderr.splitlines()[-1]
    assert told.startswith("Error: Expected a completed trial.")
    assert told.endswith("FloatingPointError: Received: a loss of nan")


@pytest.fixture
def heeded_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a process, also where nohup started the tests."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 1), ("SIGTERM", 75), ("SIGHUP", 75)])
def test_a_signal_while_the_way_of_training_is_chosen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    heeded_signals: None,
    name: str,
    code: int,
) -> None:
    def signalled(*_: Any, **__: Any) -> Any:
        if name == "SIGINT":
            raise KeyboardInterrupt  # background processes of a shell ignore SIGINT
        number = getattr(signal, name)
        handler = signal.getsignal(number)
        assert callable(handler)  # the command's: without one, the signal ends the process
        handler(number, None)

    monkeypatch.setattr("tuning.fidelity.train_candidate", signalled)
    result = run(*QUICK, tmp_path / "search", "--measure-proxy")
    assert result.exit_code == code
    # Nothing of it was kept.
    assert result.stderr.startswith("Stopped. There is nothing to resume, and no folder is left.")
    assert not (tmp_path / "search").exists()


def test_trials_train_in_the_way_that_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All ways rank alike here, so the cheapest is one epoch of a quarter of the images. Of 6,000
    images 1,001 are held out: a sixth of each class, rounded."""
    measured: list[tuple[int, int]] = []
    trained: list[tuple[int, int]] = []

    def measuring(spec: NetworkSpec, data: Any, *_: Any, epochs: int, **__: Any) -> TrialResult:
        measured.append((len(data.train), epochs))
        accuracy = network_cost(spec).total.params / 1e6
        seconds = epochs * len(data.train) / 1000
        return TrialResult(accuracy, 1.0, seconds, 0.0, seconds, curve=(accuracy,) * epochs)

    def counting(spec: NetworkSpec, data: Any, *_: Any, epochs: int, **__: Any) -> TrialResult:
        trained.append((len(data.train), epochs))
        return pretended(spec)

    monkeypatch.setattr("tuning.fidelity.train_candidate", measuring)
    monkeypatch.setattr(importlib.import_module("tuning.run"), "train_candidate", counting)
    out = tmp_path / "search"
    command = (*QUICK, out, "--set", "epochs=4", "--trials", 60, "--measure-proxy")
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert "Trials train for 1 epoch, 25% of the images" in result.output
    assert measured == [(4999, 4)] * 12 + [(2500, 2)] * 12 + [(1250, 2)] * 12
    assert set(trained) == {(1250, 1)}
    assert len(trained) == 60
    assert run(*command).exit_code == 0  # resumed: nothing is measured or trained again
    assert len(measured) == 36
    assert len(trained) == 60


def test_networks_that_diverge_and_other_mistakes_before_the_way_of_training_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*_: Any, **__: Any) -> Any:
        raise TrainingDivergedError("Received: a loss of nan")

    monkeypatch.setattr("tuning.fidelity.train_candidate", diverging)
    out = tmp_path / "search"
    assert_mistake(run(*QUICK, out, "--measure-proxy"), "a loss of nan")
    both = run(*QUICK, out, "--measure-proxy", "--data-fraction", 0.5)
    assert_mistake(both, "Expected no --halving-epochs, --resolution, --data-fraction and --join")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    assert_mistake(run(*QUICK, tmp_path / "other", "--measure-proxy"), "which holds other files")


def test_a_table_of_timings_bounds_the_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the pretended board a million multiply-adds take 2 ms, so 1 ms allow half a million."""
    nets = tmp_path / "nets"
    nets.mkdir()
    rows = ["model,runtime,precision,batch_size,threads,device,ms_an_image"]
    for number, spec in enumerate(random_networks(Space(base=NANO, budget=Budget(macs=10**9)), 16)):
        (nets / f"net_{number}.json").write_text(spec.to_json())
        milliseconds = 2 * network_cost(spec).total.macs / 1e6
        rows.append(f"net_{number}.onnx,onnx,float32,1,4,board,{milliseconds}")
    (nets / "timings.csv").write_text("\n".join(rows))
    trained: list[NetworkSpec] = []

    def counting(spec: NetworkSpec, *_: Any, **__: Any) -> Any:
        trained.append(spec)
        return pretended(spec)

    monkeypatch.setattr(importlib.import_module("tuning.run"), "train_candidate", counting)
    options = (*QUICK, tmp_path / "search", "--budget-timings", nets / "timings.csv")
    divisor = ("--width-divisor", 1)
    result = run(*options, *divisor, "--budget-ms", 1, "--trials", 2)
    assert result.exit_code == 0, result.output
    assert "onnx float32, batch 1, 4 threads, board. Mean error" in result.output
    for spec in trained:
        assert 0.45e6 < network_cost(spec).total.macs <= 0.51e6
    other = (*options[:-3], tmp_path / "other", *options[-2:])
    assert_mistake(
        run(*other, "--budget-ms", 1, "--budget-runtime", "litert"),
        "Expected timings with runtime litert",
    )
    assert_mistake(run(*other), "Expected --budget-ms with --budget-timings")
    assert_mistake(run(*other, "--budget-ms", 0), "Received: --budget-ms 0")
    missing = (*QUICK, tmp_path / "other", "--budget-ms", 1, "--budget-timings", nets / "none.csv")
    assert_mistake(run(*missing), "Expected a table of timings, or a folder")
    assert_mistake(
        run(*QUICK, tmp_path / "other", "--budget-runtime", "onnx"),
        "Expected --budget-ms with --budget-runtime",
    )


def test_a_latency_budget_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model predicts 2 ms for the network, so 1.4 ms allow 70% of its multiply-adds."""
    macs = network_cost(NANO).total.macs
    measured = []

    def measure(space: Space, wanted: Wanted) -> LatencyModel:
        measured.append(wanted.batch_size)
        kinds = {layer.kind for layer in network_cost(space.base).layers}
        parts = ("layer", "million multiply-adds", "million elements")
        weights = {f"{kind}: {part}": 0.0 for kind in kinds for part in parts}
        weights |= {"network": 0.0} | {f"{kind}: {parts[1]}": 2e6 / macs for kind in kinds}
        conditions = Conditions(batch_size=wanted.batch_size or 0, threads=2)
        return LatencyModel(coefficients=weights, error=0.05, conditions=conditions)

    trained: list[NetworkSpec] = []

    def counting(spec: NetworkSpec, *_: Any, **__: Any) -> Any:
        trained.append(spec)
        return pretended(spec)

    monkeypatch.setattr("tuning.latency_timing.measure_latency_model", measure)
    monkeypatch.setattr(importlib.import_module("tuning.run"), "train_candidate", counting)
    for _ in range(2):
        result = run(*QUICK, tmp_path / "search", "--budget-ms", 1.4, "--trials", 2)
        assert result.exit_code == 0, result.output
    assert measured == [1]
    assert len(trained) == 2
    for spec in trained:
        assert 0.65 * macs < network_cost(spec).total.macs <= 0.7 * macs
    batched = ("--budget-batch-size", 64)
    assert_mistake(
        run(*QUICK, tmp_path / "search", "--budget-ms", 1.4, *batched),
        "Expected saved_model float32, batch 1, 2 threads, ",
    )
    other = tmp_path / "other"
    assert_mistake(
        run(*QUICK, other, "--budget-ms", 0.05, *batched),
        "Received: 0.05 ms an image (saved_model float32, batch 64, 2 threads).",
    )
    assert measured == [1, 64]
    assert_mistake(run(*QUICK, other, *batched), "Received: --budget-batch-size 64 alone")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "0.0.0.0:5000"], "Expected --secret-file with --address 0.0.0.0:5000"),
        (["--address", "10.1.2.3:5000"], "Expected --secret-file with --address 10.1.2.3:5000"),
        (["--join", "127.0.0.1:5000"], "Expected --secret-file with --join 127.0.0.1:5000"),
        (["--address", "127.0.0.1:5000", "--secret-file", "SHORT"], "at least 16 printable"),
        (["--join", "10.1.2.3:5000", "--secret-file", "NONE"], "a file with the secret"),
        (["--workers", "2", "--certificate", "SHORT"], "Expected --key with --certificate"),
        (
            ["--workers", "2", "--certificate", "NONE", "--key", "NONE"],
            "Expected a certificate as a PEM file",
        ),
        (["--workers", "2", "--key", "SHORT"], "a certificate with the key"),
    ],
)
def test_access_is_checked_before_the_search_starts(
    tmp_path: Path, options: list[str], message: str
) -> None:
    short = tmp_path / "short"
    short.write_text("abc\n")
    names = {"SHORT": str(short), "NONE": str(tmp_path / "none")}
    ended = run(*QUICK, tmp_path / "search", *(names.get(option, option) for option in options))
    assert_mistake(ended, message)
    assert not (tmp_path / "search").exists()


@pytest.mark.slow
def test_a_worker_on_another_machine(tmp_path: Path) -> None:
    """A chief accepts workers at an address; another command with its own folder joins."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [sys.executable, "-c", "from keras_inception.cli import main; main()", *QUICK]

    def start(name: str, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, str(tmp_path / name), "--trials", "6", *options],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-the-two-machines\n")
    secured = ("--secret-file", str(secret))
    here = start("here", "--address", address, *secured)
    there = start("there", "--join", address, *secured)
    for process in (here, there):
        output, _ = process.communicate()
        assert process.returncode == 0, output
    assert len(list((tmp_path / "here").glob("trial_*/trial.json"))) == 6
    logs = [path for name in ("here", "there") for path in (tmp_path / name).glob("logs/*.log")]
    assert len(logs) == 3  # the chief and one worker in one folder, one worker in the other
    assert (tmp_path / "here" / "best_spec.json").exists()


@pytest.mark.slow
def test_chief_and_two_workers_on_real_data(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from keras_inception.cli import main; main()", *QUICK]
    out = tmp_path / "search"
    result = subprocess.run(
        [*command, str(out), "--trials", "4", "--workers", "2"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    logs = "\n".join(path.read_text()[-2000:] for path in out.glob("logs/*.log"))
    assert result.returncode == 0, result.stderr + logs
    assert "4 of 4 trials done, 0 failed" in result.stdout
    assert len(list(out.glob("trial_*/trial.json"))) == 4
