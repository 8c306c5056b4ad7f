"""The options of `keras-inception design`, a dataclass for each panel of --help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_inception.cli.choices import chosen_spec
from keras_inception.cli.data import chosen_data, with_channels
from keras_inception.cli.options import (
    BudgetMacs,
    BudgetParams,
    Channels,
    DataName,
    InputSize,
    NewFolder,
    RecipeOptions,
    Seed,
    SpecFile,
    StrategyName,
    Strict,
    Variant,
)
from keras_inception.files import SPEC_FILE, keras_file
from keras_inception.spec.network import NetworkSpec

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Network and data."""

    variant: Variant = "small"
    spec_file: SpecFile = None
    model_folder: Annotated[
        Path | None,
        typer.Option(
            "--model", help="Folder of a finished run to measure instead of training one."
        ),
    ] = None
    data_name: DataName = None
    strict: Strict = False
    input_size: InputSize = None
    channels: Channels = None

    def spec(self) -> NetworkSpec:
        """The network to train, or that of the run to measure."""
        run = self.model_folder
        if run:
            keras_file(run)
        return chosen_spec(self.variant, self.spec_file or (run and run / SPEC_FILE))

    def data(self, spec: NetworkSpec) -> ImageData:
        """The images, in the channels of the network to measure."""
        beside = self.model_folder or (self.spec_file and self.spec_file.parent)
        data = chosen_data(self.data_name, beside=beside, strict=self.strict)
        channels = spec.input_shape[2] if self.model_folder else self.channels
        return with_channels(data, channels, None)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RecipeOptions):
    """Training."""

    seed: Seed = None
    strategy: StrategyName = "auto"


@dataclass(frozen=True, kw_only=True)
class ProposalOptions:
    """Proposal."""

    budget_macs: BudgetMacs = None
    budget_params: BudgetParams = None
    layer_by_layer: Annotated[
        bool, typer.Option("--layer-by-layer", help="Train and measure once for each module.")
    ] = False
    kernels: Annotated[
        str,
        typer.Option(help="Kernel sizes that clusters may choose, separated by commas."),
    ] = "1,3,5"
    threshold: Annotated[
        float | None,
        typer.Option(help="Minimum |correlation| of the units in a cluster; default 0.6."),
    ] = None
    out: NewFolder = None


def check_options(
    network: NetworkOptions, training: TrainingOptions, proposal: ProposalOptions
) -> None:
    """Refuse options of a training where a finished run is measured instead.

    Raises:
        ValueError: one is given.
    """
    if not network.model_folder:
        return
    if proposal.layer_by_layer:
        raise ValueError(
            "Expected --model or --layer-by-layer, which trains networks of its own. Received: both"
        )
    given = {
        "--input-size": network.input_size,
        "--channels": network.channels,
        "--set": training.changes,
        "--epochs": training.epochs,
        "--batch-size": training.batch_size,
        "--patience": training.patience,
        "--seed": training.seed,
    }
    if names := [name for name, value in given.items() if value is not None]:
        raise ValueError(
            "Expected no options of a training with --model, which measures a finished run. "
            f"Received: {', '.join(names)}"
        )
