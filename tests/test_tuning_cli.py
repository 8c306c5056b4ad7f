"""`keras-inception tune`: mistakes in one line, and what a search leaves and says."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import ENVIRONMENT
from test_cli import assert_mistake, run
from test_tuning_search import pretended

from keras_inception.spec import NetworkSpec

QUICK = ("tune", "--variant", "nano", "--set", "epochs=1", "--oracle", "random", "--out")


def test_mistakes(tmp_path: Path) -> None:
    out = tmp_path / "search"
    assert_mistake(run(*QUICK, out, "--budget-macs", 100_000), "Expected a budget of at least")
    assert_mistake(run(*QUICK, out, "--oracle", "best"), "Received: kind='best'")
    assert_mistake(
        run(*QUICK, out, "--against", "price", "--least-share", 0.7), "Received: 'price'"
    )
    assert_mistake(run(*QUICK, out, "--rounds", "a,b"), "Expected --rounds such as 2,6,18")
    assert_mistake(run(*QUICK, out, "--kernels", "3;5"), "Received: kernels='3;5'")
    assert not out.exists()
    assert_mistake(run("tune-report", tmp_path), "Expected the folder of a search")


def test_a_search_its_report_and_another_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[NetworkSpec] = []

    def counting(spec: NetworkSpec, *_: Any, **__: Any) -> Any:
        trained.append(spec)
        return pretended(spec)

    monkeypatch.setattr(importlib.import_module("tuning.search"), "train_candidate", counting)
    out = tmp_path / "search"
    result = run(*QUICK, out, "--trials", 3)
    assert result.exit_code == 0, result.output
    assert "3 trials by random over 9 hyperparameters" in result.output
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
