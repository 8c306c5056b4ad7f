"""`keras-inception train` without arguments: real images in, the files of a run out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RUN_FILES
from PIL import Image

from keras_inception.data.sample import load_sample


@pytest.mark.slow
def test_train_with_no_arguments(tmp_path: Path):
    command = Path(sys.executable).with_name("keras-inception")
    result = subprocess.run([command, "train"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    # The cost line comes before the first epoch; both counts are worked out in test_cost.
    assert "253,130 parameters, 17,150,848 multiply-adds" in result.stdout.split("epoch")[0]
    assert "Warning" not in result.stderr

    (folder,) = (tmp_path / "saved_models").iterdir()
    assert {path.name for path in folder.iterdir()} == RUN_FILES
    assert (folder / "saved_model" / "saved_model.pb").is_file()
    assert json.loads((folder / "metrics.json").read_text())["top_1"] >= 0.85

    test = load_sample().test
    picture = tmp_path / "Prüfling.png"
    bag = int((test.labels == 8).argmax())  # bags are easy to distinguish from clothes
    Image.fromarray(test.images[bag, :, :, 0]).save(picture)
    predicted = subprocess.run(
        [command, "predict", folder, picture, "--top", "1"], capture_output=True, text=True
    )
    assert predicted.returncode == 0, predicted.stderr
    assert "Bag" in predicted.stdout
