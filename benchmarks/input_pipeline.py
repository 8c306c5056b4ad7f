"""Images per second of the training input: this package, torchvision's transforms, plain Pillow.

    python benchmarks/input_pipeline.py

Needs torch and torchvision. All three read the same JPEGs (375 x 500, quality 90, made from
scikit-learn's two photographs), take a random crop of 8-100% of the area, resize it to 224 x 224,
mirror half of the crops, and return float32 in the network's pixel convention:

- keras_inception: `training_batches` with crop="paper", which decodes only the crop and uses random
  interpolation, as in the paper and in training;
- torchvision: RandomResizedCrop, RandomHorizontalFlip, ToTensor, Normalize on Pillow images;
- pillow: decode, resize with box, NumPy.

Each pipeline runs on one core (the process pins itself) in its own process. The pipelines take
turns; the table has medians over the rounds. Writes benchmarks/results/input_pipeline.csv. Run it
on an idle machine; the table records the load average. Goal: at least twice torchvision's
throughput.
"""

import csv
import io
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path

from machine import device

RESULTS = Path(__file__).parent / "results" / "input_pipeline.csv"
PIPELINES = ("keras_inception", "torchvision", "pillow")
IMAGES, ROUNDS, WARM_UP, MEASURED, BATCH, SIZE = 256, 7, 256, 1024, 32, 224


def main() -> None:
    """Make the JPEGs, measure the pipelines in turns, write the table."""
    with tempfile.TemporaryDirectory() as folder:
        make_jpegs(Path(folder))
        rates: dict[str, list[float]] = {name: [] for name in PIPELINES}
        for number in range(ROUNDS):
            for name in PIPELINES:
                command = [sys.executable, __file__, name, folder]
                quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
                output = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True, env=quiet
                ).stdout
                rates[name].append(float(output.split()[-1]))
                print(f"round {number + 1}: {name} {rates[name][-1]:.0f} images/s", flush=True)
    write(rates)


def make_jpegs(folder: Path) -> None:
    """Write random parts of two photographs at 375 x 500 in two classes, and a held-out image."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        photograph = photographs[number % 2]
        left, top = random.integers(0, 100), random.integers(0, 60)
        widest = min(photograph.width - left, (photograph.height - top) * 4 // 3)
        width = int(random.integers(400, widest))
        box = (left, top, left + width, top + width * 3 // 4)
        path = folder / "train" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph.resize((500, 375), Image.Resampling.BICUBIC, box=box).save(path, quality=90)
    held_out = folder / "test" / "class0" / "0.jpg"
    held_out.parent.mkdir(parents=True)
    photographs[0].save(held_out)


def measure(name: str, folder: Path) -> float:
    """Return images per second on one core, after a warm-up."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    batches = {"keras_inception": ours, "torchvision": torchvision_batches, "pillow": pillow}
    stream = batches[name](folder)
    for _ in range(WARM_UP // BATCH):
        next(stream)
    cpu = time.process_time()
    for _ in range(MEASURED // BATCH):
        next(stream)
    # Processor time, not wall time: other programs may be running.
    return MEASURED / (time.process_time() - cpu)


def ours(folder: Path) -> Iterator[object]:
    """Yield batches of this package."""
    from keras_inception import VARIANTS, Recipe, open_data, training_batches

    recipe = Recipe(name="benchmark", epochs=1, batch_size=BATCH, shift=0, crop="paper")
    split = open_data(f"dir:{folder}").train
    return iter(training_batches(split, VARIANTS["bn"], recipe))


def torchvision_batches(folder: Path) -> Iterator[object]:
    """Yield batches of torchvision's standard transforms for ImageNet."""
    import torch
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    data = ImageFolder(str(folder / "train"), transform)
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True, drop_last=True)
    while True:
        yield from loader


def pillow(folder: Path) -> Iterator[object]:
    """Yield batches made with only Pillow and NumPy."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    contents = [path.read_bytes() for path in sorted((folder / "train").rglob("*.jpg"))]

    def image() -> np.ndarray:
        opened = Image.open(io.BytesIO(contents[random.integers(len(contents))]))
        # The paper's crop, of 8 to 100% of the area and a shape of 3/4 to 4/3; cut off where it is
        # larger than the image.
        area = random.uniform(0.08, 1) * opened.width * opened.height
        shape = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        width = min(opened.width, round(math.sqrt(area * shape)))
        height = min(opened.height, round(math.sqrt(area / shape)))
        left = int(random.integers(opened.width - width + 1))
        top = int(random.integers(opened.height - height + 1))
        box = (left, top, left + width, top + height)
        resized = opened.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
        pixels = np.asarray(resized, np.float32)
        return (pixels[:, ::-1] if random.random() < 0.5 else pixels) / 127.5 - 1

    make: Callable[[], np.ndarray] = image
    while True:
        yield np.stack([make() for _ in range(BATCH)])


def write(rates: dict[str, list[float]]) -> None:
    """Write the medians, with machine, versions and load."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    packages = ("tensorflow-cpu", "torch", "torchvision", "pillow")
    versions = " ".join(f"{package}={version(package)}" for package in packages)
    header = ("pipeline", "images_per_second_per_core", "fastest", "slowest", "times_torchvision")
    common = ("rounds", "load_average", "device", "versions", "date")
    about = (ROUNDS, f"{os.getloadavg()[0]:.1f}", device(), versions, date.today().isoformat())
    with RESULTS.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header + common)
        for name in PIPELINES:
            values = (medians[name], max(rates[name]), min(rates[name]))
            ratio = f"{medians[name] / medians['torchvision']:.2f}"
            table.writerow((name, *(f"{value:.0f}" for value in values), ratio, *about))
    for name, median in medians.items():
        print(f"{name}: {median:.0f} images/s, {median / medians['torchvision']:.2f} x torchvision")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(sys.argv[1], Path(sys.argv[2])))
    else:
        main()
