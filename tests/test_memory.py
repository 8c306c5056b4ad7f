"""Peak memory of the commands on folders of the largest images that are accepted."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from processes import ENVIRONMENT
from test_folders import put

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux has VmHWM there"),
]

_SIDE = 8_900  # 79 megapixels
_MOST_BYTES = 2_000_000_000


# The kernel's rusage begins with the peak of the process that starts the command, VmHWM does not.
_PROGRAM = """
import sys
from pathlib import Path
from keras_inception.cli import main
try:
    main()
finally:
    print(Path("/proc/self/status").read_text(), file=sys.stderr)
"""


def peak(*arguments: object) -> int:
    """Run a command, which must succeed; its peak resident memory in bytes."""
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", result.stderr, re.MULTILINE)
    return int(kilobytes) * 1024


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Two classes of small images."""
    root = tmp_path_factory.mktemp("small")
    for name in "ab":
        put(root / name, 5)
    return root


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Two classes of transparent, turned, 16-bit, JPEG and WebP images of 79 megapixels."""
    root = tmp_path_factory.mktemp("large")
    turned = Image.Exif()
    turned[0x0112] = 6
    image = Image.new("RGBA", (_SIDE, _SIDE), (200, 30, 30, 100))
    (root / "a").mkdir()
    image.save(root / "a" / "0.png", compress_level=1)
    image.save(root / "a" / "1.png", compress_level=1, exif=turned)
    image.save(root / "a" / "2.webp", lossless=True, method=0, quality=0)
    image.convert("RGB").save(root / "a" / "3.jpg", exif=turned)
    Image.new("I;16", (_SIDE, _SIDE), 30_000).save(root / "a" / "4.png", compress_level=1)
    shutil.copytree(root / "a", root / "b")
    return root


def test_the_commands_need_less_than_2_gb_for_the_images(small, large, tmp_path):
    needed = {}
    for crop in ("paper", "none"):
        options = ("--variant", "nano", "--epochs", 1, "--batch-size", 4, "--set", f"crop={crop}")
        small_peak, large_peak = (
            peak("train", *options, "--data", f"dir:{data}", "--out", tmp_path / data.name / crop)
            for data in (small, large)
        )
        needed[f"train, crops: {crop}"] = large_peak - small_peak
    run = tmp_path / small.name / "paper"
    for crops in ("whole", "144"):
        small_peak, large_peak = (
            peak("evaluate", run, "--data", f"dir:{data}", "--crops", crops)
            for data in (small, large)
        )
        needed[f"evaluate, crops: {crops}"] = large_peak - small_peak
    for model in ("model.keras", "saved_model"):
        small_peak, large_peak = (peak("predict", run / model, data) for data in (small, large))
        needed[f"predict, {model}"] = large_peak - small_peak
    print(json.dumps(needed))
    assert {name: size for name, size in needed.items() if size > _MOST_BYTES} == {}
