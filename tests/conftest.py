"""Tiny networks for the tests: 32 pixels, few filters, every kind of layer."""

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import keras
import pytest

from keras_inception.network.build import build_network
from keras_inception.spec.network import (
    AuxSpec,
    BatchNormSpec,
    BranchSpec,
    ConvSpec,
    LRNSpec,
    ModuleSpec,
    NetworkSpec,
    PoolSpec,
    StageSpec,
    StemLayer,
)

# SIGHUP is ignored under nohup, SIGINT in the background of a script; processes of tests would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The files of a finished run.
RUN_FILES = {
    "README.md",
    "best.keras",
    "confusion_matrix.png",
    "data.json",
    "history.csv",
    "labels.txt",
    "metrics.json",
    "model.keras",
    "recipe.json",
    "report.html",
    "saved_model",
    "spec.json",
    "training_curve.png",
}


def tiny_spec(
    *,
    size: int | None = 32,
    channels: int = 3,
    classes: int = 5,
    norm: Literal["lrn", "bn"] | None = None,
    aux: bool = False,
    naive: bool = False,
    kernels: tuple[int, ...] = (3, 5),
) -> NetworkSpec:
    """Total stride 8: at 32 pixels the modules 3a and 3b have 8 x 8 grids, 4a has 4 x 4.

    Args:
        size: height and width; None for any.
        norm: "lrn" and no batch normalization as in the paper, "bn", or neither.
        aux: two auxiliary classifiers, after 3a and 3b.
        naive: modules without reductions and projections (figure 2a).
        kernels: of the spatial branches of every module.
    """
    stem: list[StemLayer] = [
        ConvSpec(name="conv1", filters=4, kernel_size=7, stride=2, padding="symmetric"),
        PoolSpec(name="pool1", padding="ceil"),
        ConvSpec(name="conv2_reduce", filters=4, kernel_size=1),
        ConvSpec(name="conv2", filters=6, kernel_size=3),
    ]
    if norm == "lrn":
        stem.insert(2, LRNSpec(name="norm1"))
    stages = (
        StageSpec(
            name="3",
            downsample=None,
            modules=(tiny_module("3a", kernels, naive), tiny_module("3b", kernels, naive)),
        ),
        StageSpec(
            name="4",
            downsample=PoolSpec(name="pool3", padding="ceil"),
            modules=(tiny_module("4a", kernels, naive),),
        ),
    )
    heads = (
        AuxSpec(name="aux_1", after="3a", filters=3, units=6),
        AuxSpec(name="aux_2", after="3b", filters=3, units=6),
    )
    return NetworkSpec(
        name="tiny_for_tests",
        input_shape=(size, size, channels),
        stem=tuple(stem),
        stages=stages,
        aux=heads if aux else (),
        batch_norm=BatchNormSpec(momentum=0.9) if norm == "bn" else None,
        dropout_rate=0.2,
        classes=classes,
    )


def lean_spec() -> NetworkSpec:
    """A stem, a module of 1x1, 3x3 and 5x5 without reductions, and a module of the paper's form."""
    spec = tiny_spec(norm="bn")
    first, *others = spec.modules
    branches = tuple(BranchSpec(kernel_size=k, reduce=None, filters=k) for k in (3, 5))
    lean = replace(first, filters_1x1=4, spatial=branches, filters_pool_proj=0)
    return spec.map_modules({first.name: lean} | {module.name: module for module in others})


def tiny_module(
    name: str = "3a", kernels: tuple[int, ...] = (3, 5), naive: bool = False
) -> ModuleSpec:
    """A 1x1 branch of 2 filters, spatial ones of 3, 4, ... and a projection of 2."""
    spatial = tuple(
        BranchSpec(kernel_size=kernel, reduce=None if naive else 2, filters=3 + index)
        for index, kernel in enumerate(kernels)
    )
    return ModuleSpec(
        name=name, filters_1x1=2, spatial=spatial, filters_pool_proj=None if naive else 2
    )


@pytest.fixture
def channels_first() -> Iterator[None]:
    """Set the global data format to channels first within the test."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set the global dtype policy within the test, by indirect parametrization."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with labels, one of which is HTML."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("serve") / "model.keras"
    build_network(tiny_spec(norm="bn")).save(path)
    path.with_name("labels.txt").write_text("a\nb\n<script>\nd\ne\n")
    return path
