"""Data flow between commands: data, weights, channels, sizes, and the printed information.

Where training itself does not matter, a record of its arguments replaces it.
"""

import json
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from PIL import Image
from test_cli import assert_mistake, run
from test_cli_first_steps import asked  # noqa: F401 - a fixture
from test_folders import put

import keras_inception.training.run
from keras_inception import freeze_until
from keras_inception.data.record import (
    change_since,
    data_option,
    fingerprint,
    identity,
    record,
    recorded_source,
    write_record,
)
from keras_inception.data.sample import load_sample
from keras_inception.data.sources import open_data
from keras_inception.data.splits import ImageData, Split
from keras_inception.network.build import build_network
from keras_inception.spec.recipe import QUICK, Recipe
from keras_inception.spec.variants import variant_spec
from keras_inception.training.fine_tune import describe_initialization, initialize
from keras_inception.training.preparation import augmentation, lowered_batch, size_hint
from keras_inception.training.run import TrainResult, fitted_to_data, train


def photos(root: Path, count: int = 20, size: int = 32, grey: bool = False) -> Path:
    """Noise of three levels, one per class."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180), ("mixed", 120)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.normal(level, 40, (size, size, 3)).clip(0, 255).astype(np.uint8)
            image = Image.fromarray(pixels)
            (image.convert("L") if grey else image).save(root / name / f"{number}.png")
    return root


# --- the record of data -------------------------------------------------------------------------


def test_the_record_names_the_data_and_their_contents(tmp_path):
    root = photos(tmp_path / "photos")
    (root / "dark" / "notes.txt").write_text("no image")
    data = open_data(f"dir:{root}")
    write_record(tmp_path, data)
    document = json.loads((tmp_path / "data.json").read_text())
    assert document["source"] == f"dir:{root}"
    assert document["classes"] == ["dark", "light", "mixed"]
    assert document["training images"] == 48
    assert document["held-out images"] == 12
    assert document["files left out"] == 1
    assert len(document["fingerprint"]) == 64
    assert (tmp_path / "left_out.csv").read_text().startswith("kind,path,reason\n")
    again = open_data(recorded_source(tmp_path))
    assert record(again) == document


def test_data_is_identified_by_contents_not_paths(tmp_path):
    root = photos(tmp_path / "photos")
    before = identity(open_data(f"dir:{root}"))
    shutil.copytree(root, tmp_path / "elsewhere")
    assert identity(open_data(f"dir:{tmp_path / 'elsewhere'}")) == before
    first = root / "dark" / "0.png"
    put(tmp_path, 1)
    shutil.copy(tmp_path / "0.png", first)  # other pixels under the same name
    assert identity(open_data(f"dir:{root}")) != before
    sample = load_sample()
    other = replace(sample, train=Split(sample.train.images, sample.train.labels[::-1].copy()))
    assert fingerprint(other) != fingerprint(sample) == fingerprint(load_sample())


def test_a_damaged_record_is_one_error(tmp_path):
    assert recorded_source(tmp_path) is None
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(ValueError, match=r"record of data.*data\.json.*Give --data"):
        recorded_source(tmp_path)


def test_the_data_option_is_short_and_quoted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert data_option(f"dir:{tmp_path / 'my images'}") == "--data 'dir:my images'"
    assert data_option("dir:/a/b") == "--data dir:/a/b"
    assert data_option("sample") == "--data sample"


# --- next commands ------------------------------------------------------------------------------


def test_a_spec_without_data_uses_the_recorded_data(asked, tmp_path):  # noqa: F811
    root = photos(tmp_path / "photos")
    search = tmp_path / "search"
    search.mkdir()
    write_record(search, open_data(f"dir:{root}"))
    spec = search / "best_spec.json"
    spec.write_text(variant_spec("nano").to_json())
    result = run("train", "--spec", spec)
    assert result.exit_code == 0, result.output
    assert asked["data"].class_names == ("dark", "light", "mixed")
    assert f"Data: dir:{root}, as recorded in {search / 'data.json'}" in result.stdout
    assert run("train", "--spec", spec, "--data", "sample").exit_code == 0
    assert len(asked["data"].class_names) == 10
    (search / "data.json").unlink()
    result = run("train", "--spec", spec)
    assert f"Data: sample, since {search} has no data.json" in result.stdout
    (search / "data.json").write_text("[]")
    assert_mistake(run("train", "--spec", spec), "Expected a record of data", "Give --data")


def test_a_search_prints_a_command_that_trains_on_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "my photos")
    command = ("tune", "--variant", "nano", "--budget-macs", 6_000_000, "--trials", 1)
    options = ("--set", "epochs=1", "--out", "search")
    result = run(*command, *options, "--data", "dir:my photos")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if "train --spec" in line)
    words = shlex.split(line[line.index("train --spec") :])
    assert words == ["train", "--spec", "search/best_spec.json", "--data", "dir:my photos"]
    assert recorded_source(tmp_path / "search") == f"dir:{tmp_path / 'my photos'}"
    again = run("tune-report", "search")
    assert "--data 'dir:my photos'" in again.stdout


def test_a_run_prints_a_command_that_evaluates_it_on_its_data(tmp_path, monkeypatch):
    def train(spec, data, recipe, folder, **others):
        folder.mkdir()
        metrics = {"top_1": 0.5, "top_5": 1.0, "seconds": 3, "per_class": dict.fromkeys("abc", 0.5)}
        return TrainResult(None, folder, metrics)

    monkeypatch.setattr(keras_inception.training.run, "train", train)
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "my photos", 5)
    result = run("train", "--variant", "nano", "--data", "dir:my photos", "--out", "my run")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("Evaluate it: "))
    words = shlex.split(line.removeprefix("Evaluate it: "))
    assert words == ["keras-inception", "evaluate", "my run", "--data", "dir:my photos"]


# --- a run and its resume -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of three classes in colour, and its training data."""
    root = tmp_path_factory.mktemp("handovers")
    data = open_data(f"dir:{photos(root / 'photos')}")
    spec = fitted_to_data(variant_spec("nano"), data)
    train(spec, data, Recipe(name="short", epochs=1, batch_size=8), root / "run")
    return root


def test_a_run_records_its_data_in_the_served_model_too(finished):
    document = json.loads((finished / "run" / "data.json").read_text())
    assert document["source"] == f"dir:{finished / 'photos'}"
    served = finished / "run" / "saved_model" / "data.json"
    assert json.loads(served.read_text()) == document
    assert not (finished / "run" / ".scan.json.gz").exists()


def test_evaluate_uses_the_data_of_the_run(finished):
    result = run("evaluate", finished / "run")
    assert result.exit_code == 0, result.output
    assert "12 held-out images" in result.stdout
    assert "as recorded in" in result.stdout


def test_changed_data_are_reported(finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    data = photos(tmp_path / "photos")
    record_file = tmp_path / "run" / "data.json"
    document = json.loads(record_file.read_text()) | {"source": f"dir:{data}"}
    record_file.write_text(json.dumps(document))
    assert "have changed" not in run("evaluate", tmp_path / "run").stderr
    Image.new("RGB", (32, 32)).save(data / "dark" / "0.png")
    changed = run("evaluate", tmp_path / "run")
    assert changed.exit_code == 0, changed.output
    assert "have changed since" in changed.stderr
    assert "other images" in changed.stderr
    put(data / "dark", 5, first=90)
    assert "48 training images then, 52 now" in run("evaluate", tmp_path / "run").stderr
    named = run("evaluate", tmp_path / "run", "--data", f"dir:{data}")
    assert "have changed" not in named.stderr


def test_converted_channels_are_no_change(tmp_path):
    data = load_sample()
    for channels in (1, 3):
        write_record(tmp_path, data.with_channels(channels))
        assert change_since(tmp_path, data) is None
        assert change_since(tmp_path, replace(data, train=data.test)) is not None


def test_evaluate_uses_test_images_if_training_held_out_others(finished, tmp_path):
    for part, count in (("train", 5), ("val", 4), ("test", 3)):
        photos(tmp_path / part, count)
    result = run("evaluate", finished / "run", "--data", f"dir:{tmp_path}")
    assert result.exit_code == 0, result.output
    assert "9 held-out images" in result.stdout
    assert "test images" in result.stdout


def test_resume_accepts_moved_data_and_refuses_other_data(tmp_path):
    data = open_data(f"dir:{photos(tmp_path / 'photos', 4)}")
    spec, recipe = (
        fitted_to_data(variant_spec("nano"), data),
        replace(QUICK, epochs=2, batch_size=3),
    )

    class Lost(keras.callbacks.Callback):
        """Stops the run in the second epoch, after the snapshot of the first."""

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(spec, data, recipe, tmp_path / "run", callbacks=[Lost()])
    assert (tmp_path / "run" / ".scan.json.gz").exists()
    shutil.copytree(tmp_path / "photos", tmp_path / "moved")
    other = open_data(f"dir:{photos(tmp_path / 'other', 4, size=31)}")
    with pytest.raises(ValueError, match=r"data\.fingerprint"):
        train(spec, other, recipe, tmp_path / "run")
    moved = open_data(f"dir:{tmp_path / 'moved'}")
    assert train(spec, moved, recipe, str(tmp_path / "run")).metrics["images"] == 3


# --- initial weights ----------------------------------------------------------------------------


def saved(spec, path: Path) -> Path:
    build_network(spec).save(path)
    return path


def test_initial_weights_for_other_pixels_are_refused_with_the_remedy(asked, tmp_path):  # noqa: F811
    spec = replace(variant_spec("nano"), classes=3, input_shape=(32, 32, 3))
    weights = saved(spec, tmp_path / "tf.keras")
    torch = tmp_path / "torch.json"
    torch.write_text(replace(spec, pixels="torch").to_json())
    data = f"dir:{photos(tmp_path / 'photos')}"
    result = run("train", "--spec", torch, "--data", data, "--init", weights)
    assert_mistake(result, "'torch'", "trained on 'tf'", '"pixels": "tf"')
    assert not asked
    with pytest.raises(ValueError, match="trained on 'tf'"):
        initialize(
            build_network(replace(spec, pixels="torch")), weights, replace(spec, pixels="torch")
        )


def test_the_effect_of_initial_weights_is_printed(asked, tmp_path):  # noqa: F811
    spec = replace(variant_spec("nano"), input_shape=(32, 32, 3))
    weights = saved(spec, tmp_path / "ten.keras")
    data = f"dir:{photos(tmp_path / 'photos')}"
    command = ("train", "--variant", "nano", "--data", data, "--init", weights)
    result = run(*command, "--freeze-until", "predictions_logits")
    assert result.exit_code == 0, result.output
    fitted = asked["spec"]
    assert fitted.classes == 3
    line = describe_initialization(fitted, weights, "predictions_logits")
    assert line in result.stdout
    model = build_network(fitted)
    logits = model.get_layer("predictions_logits")
    head = sum(int(np.prod(weight.shape)) for weight in logits.weights)
    layers = sum(bool(layer.weights) for layer in model.layers)
    assert f"of {layers - 1} layers" in line
    assert "reinitialized: predictions_logits." in line
    assert f"{head:,} of {model.count_params():,} parameters train" in line


def test_freezing_random_weights_warns(asked):  # noqa: F811
    result = run("train", "--variant", "nano", "--freeze-until", "4a")
    assert result.exit_code == 0, result.output
    assert "Warning: --freeze-until 4a without --init" in result.stderr
    assert "Warning" not in run("train", "--variant", "nano").stderr


def test_a_fine_tuned_model_around_a_network_gives_its_weights(tmp_path):
    spec = tiny_spec(norm="bn", classes=3)
    base = build_network(spec, include_top=False, pooling="avg")
    around = keras.Sequential([base, keras.layers.Dense(3, activation="softmax")])
    around.build((None, 32, 32, 3))
    around.save(tmp_path / "around.keras")
    model = build_network(spec)
    found = initialize(model, tmp_path / "around.keras", spec)
    assert found.reinitialized == ()
    for own, theirs in zip(
        model.get_layer("3a_3x3_conv").get_weights(),
        base.get_layer("3a_3x3_conv").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(own, theirs)
    kernel = around.layers[-1].get_weights()[0]
    np.testing.assert_array_equal(model.get_layer("predictions_logits").get_weights()[0], kernel)


def test_a_grey_folder_uses_the_channels_of_its_initial_weights(asked, tmp_path):  # noqa: F811
    spec = replace(variant_spec("nano"), input_shape=(32, 32, 3))
    weights = saved(spec, tmp_path / "rgb.keras")
    data = f"dir:{photos(tmp_path / 'grey', grey=True)}"
    assert run("train", "--variant", "nano", "--data", data).exit_code == 0
    assert asked["spec"].input_shape == (32, 32, 1)
    assert run("train", "--variant", "nano", "--data", data, "--init", weights).exit_code == 0
    assert asked["spec"].input_shape == (32, 32, 3)
    assert asked["data"].image_shape == (32, 32, 3)
    assert run("train", "--variant", "nano", "--data", data, "--channels", 3).exit_code == 0
    assert asked["spec"].input_shape == (32, 32, 3)


def test_weights_of_other_channels_are_refused_with_the_remedy(tmp_path):
    rgb = replace(variant_spec("nano"), input_shape=(32, 32, 3))
    weights = saved(rgb, tmp_path / "rgb.keras")
    grey = replace(rgb, input_shape=(32, 32, 1))
    expected = "images of 1 channel. .* trained on 3 channels. Leave out --channels"
    with pytest.raises(ValueError, match=expected):
        initialize(build_network(grey), weights, grey)


def test_grey_images_in_memory_become_rgb_and_back():
    random = np.random.default_rng(0)
    grey = Split(random.integers(0, 256, (4, 5, 6, 1), np.uint8), np.arange(4) % 2)
    data = ImageData("noise", grey, grey, ("a", "b"))
    colour = data.with_channels(3)
    assert colour.image_shape == (5, 6, 3)
    for channel in range(3):
        np.testing.assert_array_equal(colour.train.images[..., channel], grey.images[..., 0])
    np.testing.assert_array_equal(colour.with_channels(1).test.images, grey.images)


# --- batches, sizes, augmentation ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "devices", "changes", "batch"),
    [
        (64, 1, {}, 64),  # enough
        (63, 1, {}, 8),  # 15 leave four steps, 8 is a power of two
        (48, 1, {}, 8),
        (3, 1, {}, 1),
        (10, 4, {}, 4),  # shared by four devices
        (10, 1, {"mixup": 0.2}, 2),  # pairs
        (10, 1, {"micro_batches": 4}, 4),
        (3, 4, {}, 64),  # no batch size fits: refused later
    ],
)
def test_the_batch_size_fits_the_images(images, devices, changes, batch):
    assert lowered_batch(replace(QUICK, **changes), images, devices).batch_size == batch


def test_a_small_folder_works_with_the_defaults(asked, tmp_path, monkeypatch):  # noqa: F811
    data = f"dir:{photos(tmp_path / 'photos', 5)}"
    seen = []
    noted = keras_inception.training.run.train

    def train(spec, data, recipe, folder, **others):
        seen.append(recipe)
        return noted(spec, data, recipe, folder, **others)

    monkeypatch.setattr(keras_inception.training.run, "train", train)
    result = run("train", "--variant", "nano", "--data", data)
    assert result.exit_code == 0, result.output
    assert seen[0].batch_size == 2
    assert "The batch size is lowered from 64 to 2, for 12 training images." in result.stdout
    assert_mistake(
        run("train", "--variant", "nano", "--data", data, "--batch-size", 13), "at most 12"
    )


def test_large_photographs_get_a_hint(asked, tmp_path):  # noqa: F811
    large = photos(tmp_path / "large", 2, size=250)
    result = run("train", "--variant", "nano", "--data", f"dir:{large}")
    assert result.exit_code == 0, result.output
    assert asked["spec"].input_shape == (28, 28, 3)  # not the photographs' own 250
    assert "Most images have 250 x 250 pixels; the network reads them at 28 x 28" in result.stderr
    assert "--variant bn" in result.stderr
    small = open_data(f"dir:{photos(tmp_path / 'small', 2, size=40)}")
    assert size_hint(fitted_to_data(variant_spec("nano"), small), small) is None
    photographs = open_data(f"dir:{large}")
    assert size_hint(variant_spec("bn"), photographs) is None


def test_images_below_the_network_s_stride_get_a_hint(asked):  # noqa: F811
    result = run("train", "--variant", "slim")
    assert result.exit_code == 0, result.output
    assert "reduces its input by 32: 28 x 28 pixels leave one position" in result.stderr
    assert "--variant small" in result.stderr
    assert "reduces" not in run("train", "--variant", "nano").stderr


def test_the_preprocessing_of_images_is_printed(asked):  # noqa: F811
    result = run("train", "--variant", "nano")
    assert "mirrored left to right (half of them), shifted by up to 2 pixels" in result.stdout
    assert "--set flip=false" in result.stdout
    plain = run("train", "--variant", "nano", "--set", "flip=false", "--set", "shift=0")
    assert "Training images are not augmented." in plain.stdout
    paper = replace(QUICK, crop="paper", photometric=True, mixup=0.2)
    assert "cropped at random" in augmentation(paper)
    assert "blended in pairs" in augmentation(paper)


# --- the documented snippet ---------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.shuffle=True. was passed:UserWarning")  # Keras's own `fit`
def test_the_snippet_of_the_fine_tuning_page_runs(finished, tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
    snippet = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved_models").symlink_to(finished)
    shutil.copytree(finished / "run", tmp_path / "start")
    (tmp_path / "my images").symlink_to(finished / "photos")
    names: dict = {}
    exec(compile(snippet, "docs/fine-tuning.md", "exec"), names)
    answer = names["answer"]
    assert answer.label in ("dark", "light", "mixed")
    freeze_until(names["model"], "4a")
    assert os.path.exists("tuned/model.keras")
    result = run("predict", "tuned", finished / "photos" / "dark" / "0.png")
    assert result.exit_code == 0, result.output
    assert answer.label in result.stdout
