"""The options of `keras-inception tune`, a dataclass for each panel of --help."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from keras_inception.cli.choices import chosen_spec, listed, require_choice
from keras_inception.cli.options import (
    BudgetMacs,
    BudgetParams,
    Channels,
    DataName,
    InputSize,
    RecipeOptions,
    SpecFile,
    Strict,
)
from keras_inception.spec.network import NetworkSpec

DEFAULT_TRIALS = 30
# Those of `tuning`, which is imported only when the options are right.
ORACLES = ("tpe", "bayesian", "random", "hyperband")
PRUNINGS = ("median", "halving", "none")
SECOND_OBJECTIVES = ("macs", "params")


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Network and data."""

    variant: Annotated[
        str | None,
        typer.Option(
            help="A named network to search around; `summary --list` shows them all. Default one "
            "built for the budget, in the form of small with a third stage up to 64 pixels, of bn "
            "above."
        ),
    ] = None
    spec_file: SpecFile = None
    data_name: DataName = None
    strict: Strict = False
    input_size: InputSize = None
    channels: Channels = None

    def spec(self) -> NetworkSpec | None:
        """The network to search around; None: one that is built for the budget."""
        if self.variant is None and self.spec_file is None:
            return None
        return chosen_spec(self.variant or "", self.spec_file)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RecipeOptions):
    """Training of each trial."""

    resolution: Annotated[
        int | None,
        typer.Option(
            min=1, help="Height and width in pixels to train on; default the network's input."
        ),
    ] = None
    data_fraction: Annotated[float, typer.Option(help="Share of the training images to use.")] = 1.0
    strategy: Annotated[
        str, typer.Option(help="Devices of each training: auto, cpu:N or mirrored.")
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Budget."""

    budget_macs: BudgetMacs = None
    budget_params: BudgetParams = None
    budget_ms: Annotated[
        float | None,
        typer.Option(
            help="Maximum milliseconds per image, by a model that is first fitted to timings of "
            "networks of the space; default no limit."
        ),
    ] = None
    budget_runtime: Annotated[
        str | None,
        typer.Option(
            help="Runtime of --budget-ms, whose exports are timed on this machine: saved_model "
            "(default), onnx, openvino or litert."
        ),
    ] = None
    budget_precision: Annotated[
        str | None,
        typer.Option(
            help="Precision of --budget-ms: float32 (default), bfloat16 (saved_model, openvino), "
            "float16 (litert), int8 (onnx, openvino, litert) or uint8 (litert)."
        ),
    ] = None
    budget_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images in a batch for --budget-ms; default 1."),
    ] = None
    budget_threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads for --budget-ms; default one for each core."),
    ] = None
    budget_timings: Annotated[
        Path | None,
        typer.Option(
            help="Timings made elsewhere for --budget-ms: the table of `keras-inception time`, or "
            "a folder of what LiteRT's benchmark_model wrote. Default this machine is timed."
        ),
    ] = None
    timing_networks: Annotated[
        Path | None,
        typer.Option(
            help="Write 32 networks of the space to this folder, as exports to time elsewhere, "
            "and end; default the search runs."
        ),
    ] = None

    def check(self, *, joins: bool) -> None:
        """Refuse options of a time without one, and times of another machine's search.

        Raises:
            ValueError: there are some.
        """
        if self.budget_ms is not None and not 0 < self.budget_ms < math.inf:
            raise ValueError(
                f"Expected --budget-ms above 0. Received: --budget-ms {self.budget_ms:g}"
            )
        if joins and self.budget_ms:
            raise ValueError(
                "Expected --budget-ms on one machine, whose times it means. Received: --join too"
            )
        exported = {"runtime": self.budget_runtime, "precision": self.budget_precision}
        timed = {
            "batch-size": self.budget_batch_size,
            "threads": self.budget_threads,
            "timings": self.budget_timings,
        }
        alone = timed if self.timing_networks else exported | timed
        for name, value in alone.items():
            if value is not None and self.budget_ms is None:
                raise ValueError(
                    f"Expected --budget-ms with --budget-{name}, which says how it is measured. "
                    f"Received: --budget-{name} {value} alone"
                )


@dataclass(frozen=True, kw_only=True)
class SpaceOptions:
    """Search space."""

    width_divisor: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="All widths are multiples of it; runtimes like 8 and 16. Default the largest of "
            "8, 4, 2 and 1 of which the narrowest width is four times as wide; with --variant or "
            "--spec 4 below 20 million multiply-adds, otherwise 8.",
        ),
    ] = None
    depth: Annotated[
        bool, typer.Option(help="Search the number of modules in each stage; default on.")
    ] = True
    kernels: Annotated[
        list[str] | None,
        typer.Option(
            help="A set of kernel sizes to search beside the network's own: 3,5,7. Repeat it for "
            "more sets."
        ),
    ] = None
    stem: Annotated[bool, typer.Option(help="Search the width of the stem; default on.")] = True
    pools: Annotated[
        bool,
        typer.Option(help="Search the positions of the stem's pools; default off."),
    ] = False
    second_objective: Annotated[
        str | None,
        typer.Option(
            help=f"{listed(SECOND_OBJECTIVES)}: minimize it beside the accuracy; default accuracy "
            "alone."
        ),
    ] = None
    min_budget_share: Annotated[
        float,
        typer.Option(help="With --second-objective: the smallest share of the budget to search."),
    ] = 0.25


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Search."""

    oracle: Annotated[str, typer.Option(help=f"{listed(ORACLES)}.")] = "tpe"
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Total trials, or those of the first round; default {DEFAULT_TRIALS}. hyperband "
            "has its own numbers.",
        ),
    ] = None
    halving_epochs: Annotated[
        str | None,
        typer.Option(
            help="Successive halving: epochs at the end of each round, such as 2,6,18. For "
            "hyperband one number, the most epochs of a trial."
        ),
    ] = None
    pruning: Annotated[
        str | None,
        typer.Option(
            help="Stop trials that fall behind: median or halving (Optuna's pruners), or none. "
            "Default median, with --second-objective none."
        ),
    ] = None
    finalists: Annotated[
        int,
        typer.Option(
            min=0,
            help="Best networks to train fully at the end, on the same held-out images; 0 none. "
            "Default 5.",
        ),
    ] = 5
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each finalist; default 2.")] = 2
    measure_proxy: Annotated[
        bool,
        typer.Option(
            "--measure-proxy",
            help="First train 12 networks in full and in cheaper ways, and let the trials train in "
            "the cheapest way whose ranks correlate by 0.7 or more; default full trainings.",
        ),
    ] = False
    seed: Annotated[
        int, typer.Option(min=1, help="Seed of the proposals and of the held-out images.")
    ] = 1
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the search; default saved_models/ and a name with the time."),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume the search in --out, or the newest unfinished search of this network.",
        ),
    ] = False

    def rounds(self) -> tuple[int, ...]:
        """The epochs of --halving-epochs."""
        text = self.halving_epochs
        try:
            return tuple(int(epochs) for epochs in text.split(",")) if text else ()
        except ValueError:
            raise ValueError(
                f"Expected --halving-epochs such as 2,6,18. Received: {text!r}"
            ) from None


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Processes and machines."""

    workers: Annotated[int, typer.Option(min=1, help="Worker processes on this machine.")] = 1
    trials_per_process: Annotated[
        int, typer.Option(min=1, help="Trials after which a worker is restarted.")
    ] = 20
    address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT on which workers of other machines may join, or a database's address "
            "that they share, such as postgresql://USER:WORD@HOST/NAME; default none."
        ),
    ] = None
    join: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of a search on another machine to work for; default none."),
    ] = None
    secret_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the secret that --address and --join share; --address creates it. "
            "Default a new secret that the processes of this machine share."
        ),
    ] = None
    certificate: Annotated[
        Path | None,
        typer.Option(
            help="PEM certificate of --address; with --join, that one or its authority's. Default "
            "calls are not encrypted."
        ),
    ] = None
    key: Annotated[Path | None, typer.Option(help="PEM key of --certificate, with --address.")] = (
        None
    )

    @property
    def are_several(self) -> bool:
        """Whether a chief and workers run the search, not one process alone."""
        return self.workers > 1 or bool(self.address or self.join)


def check_options(
    training: TrainingOptions,
    budget: BudgetOptions,
    space: SpaceOptions,
    search: SearchOptions,
    processes: ProcessOptions,
) -> None:
    """Refuse options that contradict each other.

    Raises:
        ValueError: they do.
    """
    require_choice("--oracle", search.oracle, ORACLES)
    if search.pruning is not None:
        require_choice("--pruning", search.pruning, PRUNINGS)
    if space.second_objective is not None:
        require_choice("--second-objective", space.second_objective, SECOND_OBJECTIVES)
    budget.check(joins=bool(processes.join))
    if search.measure_proxy and (
        search.halving_epochs or training.resolution or training.data_fraction < 1 or processes.join
    ):
        raise ValueError(
            "Expected no --halving-epochs, --resolution, --data-fraction and --join with "
            "--measure-proxy, which chooses how trials train. Received: one of them"
        )
    if search.oracle == "hyperband" and search.trials is not None:
        raise ValueError(
            "Expected no --trials for hyperband, whose number of trials --halving-epochs "
            f"determines. Received: --trials {search.trials}"
        )
