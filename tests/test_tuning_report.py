"""The report of a simulated search: numbers, plots, and the page in a browser without network."""

import csv
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.runtimes.timing import Conditions
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import PAPER, SMALL
from tuning.latency import LatencyBudget, LatencyModel, latency_features
from tuning.report import page as page_module
from tuning.report.page import importance, write_report
from tuning.report.tables import finalists
from tuning.space import Space
from tuning.trials import best_first, pareto_front, read_trials, search_progress, stage_shares
from tuning.verdict import Finalist, Verdict

SPACE = Space(base=SMALL, budget=Budget(macs=8_000_000), width_divisor=4, min_budget_share=0.5)
TRIALS = 12


def metrics(**values: float) -> dict[str, object]:
    observed = {
        name: {"direction": "max", "observations": [{"value": [value], "step": 0}]}
        for name, value in values.items()
    }
    return {"metrics": observed}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve trials: the last failed, the one before is running.

    Accuracy depends only on the width of stage 4.
    """
    document = {"space": json.loads(SPACE.to_json()), "data": {"name": "cats <and> dogs"}}
    (tmp_path / "search.json").write_text(json.dumps(document))
    for number in range(TRIALS):
        status = {10: "RUNNING", 11: "FAILED"}.get(number, "COMPLETED")
        width = (number * 7 % 10 - 5) / 8
        values = {"stage_4/width": width, "budget/share": -(number % 4) / 4}
        state = {
            "trial_id": f"{number:02d}",
            "status": status,
            "score": 0.8 + width / 10 if status == "COMPLETED" else None,
            "best_step": 0,
            "message": "Traceback\nFloatingPointError: a <loss> of nan" if number == 11 else None,
            "hyperparameters": {"space": [], "values": values | {"tuner/search": "abc"}},
            "metrics": metrics(val_accuracy=0.8 + width / 10, val_loss=0.5, seconds=20.0)
            if status == "COMPLETED"
            else {"metrics": {}},
        }
        trial = tmp_path / f"trial_{number:02d}"
        trial.mkdir()
        (trial / "trial.json").write_text(json.dumps(state))
    return tmp_path


def test_trials_round_trip(folder: Path) -> None:
    trials = read_trials(folder)
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert trials[3].values == {
        "stage_4/width_ratio": 2**-0.5,
        "budget/fraction": 2**-0.75,
    }  # their names and units were others
    assert trials[3].spec == SPACE.spec(trials[3].values)
    best = best_first(trials)
    assert len(best) == 10
    assert best[0].number == 7  # 7 * 7 % 10 = 9, the largest remainder
    assert best[0].accuracy == pytest.approx(0.85)
    front = pareto_front(trials)
    assert front[-1].number == 7
    assert [trial.macs for trial in front] == sorted(trial.macs for trial in front)


def test_progress_of_a_running_search(folder: Path) -> None:
    """Ten of twenty are done, one failed: nine remain at 20 s each, on two workers."""
    now = search_progress(folder, max_trials=20, workers=2)
    assert (now.completed, now.failed, now.running) == (10, 1, 1)
    assert now.best == pytest.approx(0.85)
    assert now.seconds_left == pytest.approx(9 * 20 / 2)
    assert search_progress(folder / "none", max_trials=20, workers=2).seconds_left is None


def test_importance_finds_the_hyperparameter_behind_the_accuracy(folder: Path) -> None:
    weights = importance(read_trials(folder), SPACE.dimensions)
    assert next(iter(weights)) == "stage_4/width_ratio"
    assert weights["stage_4/width_ratio"] > 0.8
    assert sum(weights.values()) == pytest.approx(1)
    assert importance(read_trials(folder)[:5], SPACE.dimensions) == {}


def test_the_papers_stages_by_hand() -> None:
    """Stage 3: 3a 128 and 32, 3b 192 and 96; reductions 96 and 16 of 192 channels, 128 and 32 of
    256; outputs 256 and 480."""
    shares = stage_shares(PAPER)
    assert shares["3"]["3x3 : 5x5"] == pytest.approx((128 + 192) / (32 + 96))
    assert shares["3"]["spatial"] == pytest.approx((128 + 32 + 192 + 96) / (256 + 480))
    assert shares["3"]["reduce 3x3"] == pytest.approx((96 + 128) / (192 + 256))
    assert shares["3"]["reduce 5x5"] == pytest.approx((16 + 32) / (192 + 256))
    assert shares["5"]["3x3 : 5x5"] == pytest.approx((320 + 384) / (128 + 128))
    assert list(shares) == ["3", "4", "5"]


def test_files_of_a_report(folder: Path) -> None:
    full = {"epochs": 9, "data_fraction": 1.0, "resolution": None, "seconds": 50.0}
    full |= {"rank_correlation": 1.0}
    chosen = full | {"epochs": 3, "seconds": 20.0, "rank_correlation": 0.75}
    choice = {"chosen": chosen, "full": full, "measured": [chosen, full], "networks": 12}
    (folder / "fidelity.json").write_text(
        json.dumps({"trainings": {}, "choice": choice | {"seconds": 600.0}})
    )
    page = write_report(folder).read_text()
    for name in ("pareto", "importance", "stages", "progress"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows[:2]] == ["7", "4"]
    assert float(rows[0]["stage_4/width_ratio"]) == pytest.approx(2**0.5)
    spec = NetworkSpec.from_json((folder / "best_spec.json").read_text())
    assert spec == replace(
        SPACE.spec({"stage_4/width": 0.5, "budget/share": -0.75}), name="small_tuned"
    )
    assert "cats &lt;and&gt; dogs" in page
    assert "a &lt;loss&gt; of nan" in page
    assert (
        "Trials train for 3 epochs (rank correlation with full trainings 0.75; 12 networks" in page
    )
    leaderboard = page.partition('id="leaderboard"')[2].partition("</table>")[0]
    headings = re.findall(r"<th><button>(.*?)</button>", leaderboard)
    assert headings == [
        *("place", "trial", "accuracy", "multiply-adds", "parameters", "seconds"),
        "train it fully",
    ]  # every trial has the recipe's epochs: no column without numbers
    values = re.findall(r'<tr><td data-value="(\d+)">\1</td><td data-value="(\d+)"', leaderboard)
    assert [trial for _, trial in values] == [row["trial"] for row in rows]
    assert not re.search(
        r"<(script|link|img)[^>]+https?:", page
    )  # nothing is loaded from other hosts


def test_a_stored_network_has_its_next_command(folder: Path) -> None:
    (folder / "trial_07" / "spec.json").write_text(PAPER.to_json())
    (folder / "data.json").write_text(json.dumps({"source": "dir:my pets"}))
    page = write_report(folder).read_text()
    commands = re.findall(r'data-text="([^"]*)"', page)
    spec = folder / "trial_07" / "spec.json"
    expected = f"keras-inception train --spec {spec} --data 'dir:my pets'"
    assert [html.unescape(text) for text in commands] == [expected]


@pytest.mark.parametrize(
    ("macs", "params", "axes"),
    [
        ((100, 104, 102), (10, 30, 20), ["parameters"]),
        ((100, 200, 300), (10, 30, 20), ["multiply-adds", "parameters"]),
        ((100, 100, 100), (10, 10, 10), []),
    ],
)
def test_a_cost_that_all_networks_have_is_no_axis(macs, params, axes, folder: Path) -> None:
    trials = [
        replace(trial, macs=one, params=other)
        for trial, one, other in zip(read_trials(folder)[:3], macs, params, strict=True)
    ]
    figures = page_module._pareto_figures(trials, Budget(macs=1))
    assert [figure.layout.xaxis.title.text for figure in figures] == axes
    if axes:  # trials 0, 1, 2 have .7375, .825, .7875: by parameters, 10, 20 are not beaten
        assert list(figures[-1].data[1].x) == [10, 20, 30]
        assert list(figures[-1].data[1].y) == pytest.approx([0.7375, 0.7875, 0.825])


def test_a_latency_budget_is_an_axis(folder: Path) -> None:
    coefficients = dict.fromkeys(latency_features(network_cost(PAPER)), 0.0)
    coefficients["network"] = 0.5
    coefficients["convolution: million multiply-adds"] = 0.001
    model = LatencyModel(conditions=Conditions(), coefficients=coefficients, error=0.1)
    trials = [
        replace(trial, macs=100, params=10, spec=spec)
        for trial, spec in zip(read_trials(folder)[:2], (PAPER, SMALL), strict=True)
    ]
    (figure,) = page_module._pareto_figures(trials, LatencyBudget(milliseconds=9.0, model=model))
    assert figure.layout.xaxis.title.text == "predicted ms an image"
    # The family's table, in millions, without the classifier's multiply-adds.
    paper, small = 1582.671872 - 1.024, 17.150848 - 0.0032  # 1024 x 1000 and 320 x 10
    assert list(figure.data[0].x) == pytest.approx([0.5 + paper / 1000, 0.5 + small / 1000])


def test_no_report_without_a_search_or_a_completed_trial(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"which holds search\.json"):
        write_report(tmp_path / "nothing")
    for path in sorted(folder.glob("trial_*"))[:10]:
        shutil.rmtree(path)
    with pytest.raises(ValueError, match="with 2 trials, none of them completed"):
        write_report(folder)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_page_in_a_browser_without_network(folder: Path) -> None:
    """The plots are drawn, and a click on a point keeps its network on the page."""
    page = write_report(folder)
    click = """
<script>
addEventListener("load", () => {
  const plot = document.querySelectorAll(".plotly-graph-div")[1];
  const trace = plot.data[0];
  const number = trace.customdata.indexOf(7);
  plot.emit("plotly_click", {points: [{text: trace.text[number]}]});
});
</script></body>"""
    clicked = folder / "clicked.html"
    clicked.write_text(page.read_text().replace("</body>", click))
    dom = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000"),
            f"--user-data-dir={folder / 'browser'}",
            clicked.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert dom.count('class="main-svg"') >= 6
    shown = re.findall(r'class="shown"[^>]*>(.*?)</p>', dom, re.DOTALL)
    assert shown[0] == "Click a point to see its network here."  # of the other chart
    text = html.unescape(shown[1])
    assert "trial 7: 85.00%" in text
    module = SPACE.spec({"stage_4/width": 0.5, "budget/share": -0.75}).modules[1]
    assert f"3x3 {module.spatial[0].filters}," in text


def test_hparams_are_written_for_every_completed_trial(folder: Path) -> None:
    from tuning.report.hparams import write_hparams

    logs = write_hparams(folder)
    assert len(list(logs.glob("*/events*"))) == 10
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs / "7"))
    events.Reload()
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"stage_4/width" in plugin


def test_the_table_of_finalists_has_no_empty_columns():
    spec = SPACE.spec({})
    first = Finalist(number=3, spec=spec, trial_accuracy=0.7, accuracies=(0.81, 0.83))
    second = Finalist(number=1, spec=spec, trial_accuracy=0.75, accuracies=(0.6, 0.62))
    one = replace(first, accuracies=(0.81,))

    def table(*found: Finalist, worse: tuple[int, ...] = ()) -> list[tuple[str, ...]]:
        numbers = {"noise": None, "rank_correlation": None, "interval": None}
        columns, rows = finalists(Verdict(finalists=found, worse=worse, **numbers))
        return [tuple(columns), *(tuple(text for _, text in row) for row in rows)]

    assert finalists(None) == ([], [])
    assert table(one) == [
        ("place", "trial", "mean", "trainings", "in the trial"),
        ("1", "3", "81.00%", "1", "70.00%"),
    ]
    assert table(first, second, worse=(1,)) == [
        (
            *("place", "trial", "mean", "standard deviation", "trainings", "in the trial"),
            "beaten beyond noise",
        ),
        ("1", "3", "82.00%", "1.41%", "2", "70.00%", ""),
        ("2", "1", "61.00%", "1.41%", "2", "75.00%", "yes"),
    ]
