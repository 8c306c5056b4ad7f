"""Options: those of `train` exist in `tune` and `design` under the same names, and mean the same.

Which options a command has is read from the command itself.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image
from test_cli import assert_mistake, run

from keras_inception.cli import design as cli_design
from keras_inception.cli import tune as cli_tune
from keras_inception.cli.program import _loaded
from keras_inception.cli.tune_options import ORACLES, PRUNINGS, SECOND_OBJECTIVES
from keras_inception.network.build import build_network
from keras_inception.spec.variants import variant_spec
from tuning.engine.oracles import Kind
from tuning.engine.pruning import Pruning
from tuning.plan import COSTS

_RUN = "`design --model` takes a run that `train` made with it"
# Options of `train` that a command does not have, each with the reason.
WITHOUT = {
    "tune": {
        "--init": "weights fit one network, a search has others",
        "--freeze-until": "all weights of a new network are random",
        "--snapshot-steps": "a search resumes with a trial",
        "--snapshot-minutes": "a search resumes with a trial",
        "--tensorboard": "tune-report writes the HParams of all trials",
        "--profile": "`train --spec` profiles one network",
        "--callback": "pruning and the objective are the search's",
    },
    "design": {
        "--init": _RUN,
        "--freeze-until": _RUN,
        "--snapshot-steps": _RUN,
        "--snapshot-minutes": _RUN,
        "--tensorboard": _RUN,
        "--profile": _RUN,
        "--callback": _RUN,
        "--resume": _RUN,
    },
}


def options(command: str) -> dict[str, Any]:
    """A command's options by name."""
    params = [item for item in _loaded(command).params if item.param_type_name == "option"]
    return {item.opts[0]: item for item in params}


@pytest.mark.parametrize("command", WITHOUT)
def test_options_of_train_exist_in_the_commands_that_train(command: str) -> None:
    assert set(options("train")) - set(options(command)) == set(WITHOUT[command])


@pytest.mark.parametrize("command", WITHOUT)
def test_options_of_one_name_take_the_same_values(command: str) -> None:
    trained, own = options("train"), options(command)
    for name in set(trained) & set(own):
        assert kind(trained[name]) == kind(own[name]), name
        if name != "--seed":  # 0 is no seed for KerasTuner
            assert getattr(trained[name], "min", None) == getattr(own[name], "min", None), name


def kind(option: Any) -> tuple[Any, bool]:
    """The type of an option's values, and whether it may be repeated."""
    return option.type_descriptor.annotation, option.multiple


@pytest.mark.parametrize("command", WITHOUT)
def test_every_option_of_many_is_in_a_panel(command: str) -> None:
    assert {item.rich_help_panel for item in options(command).values()}.isdisjoint({None, ""})


def test_tune_lists_the_choices_of_the_search_itself() -> None:
    assert set(ORACLES) == set(get_args(Kind))
    assert set(PRUNINGS) == set(get_args(Pruning))
    assert SECOND_OBJECTIVES == COSTS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tune", "--oracle", "best"), "Expected --oracle tpe, bayesian, random or hyperband. "),
        (("tune", "--pruning", "all"), "Expected --pruning median, halving or none. "),
        (("tune", "--second-objective", "ms"), "Expected --second-objective macs or params. "),
        (("evaluate", "run", "--crops", "12"), "Expected --crops whole, 1, 10 or 144. "),
        (("export", "run", "--format", "tf"), "litert-uint8, all or fastest. "),
    ],
)
def test_choices_in_the_words_of_the_options(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/model.keras").touch()
    assert_mistake(run(*words), message, f"Received: {words[-1]!r}")


class ReachedError(Exception):
    """A command has read its options."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in RGB of two classes, one of which cannot be read, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(30):
            image = Image.new("RGB", (40, 40), (8 * number, 0, 100))
            image.save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `tune` and `design` would do, in place of doing it."""
    seen: list[Any] = []

    def keep(job: Any, *_: Any) -> None:
        seen.append(job)
        raise ReachedError

    monkeypatch.setattr(cli_tune, "_run", keep)
    monkeypatch.setattr(cli_design, "_designed", keep)
    return seen


@pytest.mark.parametrize("command", ["tune", "design"])
def test_options_of_train_reach_the_trainings(folder: Path, jobs: list[Any], command: str) -> None:
    data = ("--data", f"dir:{folder / 'images'}", "--variant", "nano", "--budget-macs", 30_000_000)
    given = ("--channels", 1, "--input-size", 36, "--patience", 3, "--epochs", 7, "--strict")
    assert isinstance(run(command, *data, *given).exception, ReachedError)
    (job,) = jobs
    spec, recipe = (
        (job.plan.space.base, job.plan.recipe) if command == "tune" else (job.spec, job.recipe)
    )
    assert spec.input_shape == (36, 36, 1)
    assert job.data.image_shape == (40, 40, 1)
    assert (recipe.patience, recipe.epochs) == (3, 7)
    # There are 48 training images, 40 of them in a trial.
    assert recipe.batch_size == 8
    (folder / "images" / "cat" / "broken.png").write_text("no picture")
    assert_mistake(run(command, *data, *given), "Expected readable images only", "broken.png")
    assert not (folder / "saved_models").exists()


def test_design_of_a_run_keeps_its_size_and_channels(folder: Path, jobs: list[Any]) -> None:
    spec = replace(variant_spec("nano"), input_shape=(36, 36, 1), classes=2)
    (folder / "run").mkdir()
    build_network(spec).save(folder / "run" / "model.keras")
    (folder / "run" / "spec.json").write_text(spec.to_json())
    words = ("design", "--model", "run", "--data", f"dir:{folder / 'images'}")
    assert isinstance(run(*words).exception, ReachedError)
    assert jobs[0].spec.input_shape == (36, 36, 1)
    assert jobs[0].data.image_shape == (40, 40, 1)
    assert_mistake(run(*words, "--epochs", 3), "no options of a training", "Received: --epochs")


def test_tune_resumes_the_newest_unfinished_search(folder: Path, jobs: list[Any]) -> None:
    words = ("tune", "--variant", "nano", "--resume")
    assert_mistake(run(*words), "Expected an unfinished search", "tune-nano-*")
    for day, name in ((1, "search.json"), (2, "search.json"), (3, "best_spec.json"), (4, "")):
        search = folder / "saved_models" / f"tune-nano-2026010{day}-120000"
        search.mkdir(parents=True)
        if name:
            (search / "search.json").write_text("{}")
            (search / name).write_text("{}")
    (folder / "saved_models" / "tune-nano_wide-20260105-120000").mkdir()
    assert isinstance(run(*words).exception, ReachedError)
    assert jobs[0].folder == Path("saved_models/tune-nano-20260102-120000")
    assert_mistake(run(*words, "--out", "new"), "Expected an unfinished search", "'new'")
    # A finished search that is named goes on with more trials.
    named = Path("saved_models/tune-nano-20260103-120000")
    assert isinstance(run(*words, "--out", named).exception, ReachedError)
    assert jobs[1].folder == named
