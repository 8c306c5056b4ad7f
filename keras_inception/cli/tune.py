"""`keras-inception tune` and `tune-report`: the search within a budget, and what it found."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from keras_inception.cli.common import (
    INTERRUPTED,
    RUNS,
    chosen_budget,
    chosen_data,
    chosen_recipe,
    chosen_spec,
    console,
    cost_line,
    errors,
    print_error,
    usage_errors,
)
from keras_inception.cli.options import DataName, RecipeChanges, RecipeName, SpecFile, Variant
from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.spec.network import NetworkSpec

_NARROW_MACS = 20_000_000
_SHOWN = 5
_PROXY_NETWORKS = 4
_TRIALS = 30


def tune(
    variant: Variant = "small",
    spec_file: SpecFile = None,
    data_name: DataName = "sample",
    recipe_name: RecipeName = "quick",
    changes: RecipeChanges = None,
    budget_macs: Annotated[
        int | None, typer.Option(help="Multiply-adds at most; default those of the network.")
    ] = None,
    budget_params: Annotated[int | None, typer.Option(help="Parameters at most.")] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="Milliseconds an image at most, measured here first.")
    ] = None,
    budget_batch: Annotated[
        int | None,
        typer.Option(min=1, help="With --budget-ms: images computed together; default 1."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="In all, or of the first round; default 30. Not of hyperband."),
    ] = None,
    oracle: Annotated[str, typer.Option(help="tpe, bayesian, random or hyperband.")] = "tpe",
    step: Annotated[
        int | None, typer.Option(min=1, help="Widths are multiples of it; default 4 or 8.")
    ] = None,
    depth: Annotated[bool, typer.Option("--depth", help="Search the modules of a stage.")] = False,
    kernels: Annotated[
        list[str] | None,
        typer.Option(help="A set of kernel sizes to search beside the network's: 3,5,7."),
    ] = None,
    stem: Annotated[bool, typer.Option("--stem", help="Search the stem's width.")] = False,
    against: Annotated[str | None, typer.Option(help="A second objective: macs or params.")] = None,
    least_share: Annotated[
        float, typer.Option(help="With --against: the least share of the budget to search.")
    ] = 0.25,
    rounds: Annotated[
        str | None,
        typer.Option(
            help="Successive halving: epochs at the end of each round, as 2,6,18. For hyperband "
            "one number, the most epochs."
        ),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Train on images of this height and width.")
    ] = None,
    data_fraction: Annotated[float, typer.Option(help="Of the training images.")] = 1.0,
    measure_proxy: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Networks to train both ways first, if trials are cheaper than full trainings; "
            "0 measures nothing.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT on which to take workers of other machines.")
    ] = None,
    join: Annotated[
        str | None, typer.Option(help="HOST:PORT of a search elsewhere, to work for.")
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="Of each training: auto, cpu:N, mirrored.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=1, help="Of the proposals.")] = 1,
    trials_per_process: Annotated[
        int, typer.Option(min=1, help="After so many, a worker starts anew.")
    ] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Folder; default saved_models/ and a name of its own.")
    ] = None,
) -> None:
    """Search the widths of a network, each candidate within the budget.

    Trial 0 is the network itself (`design` proposes one: --spec), fitted to the budget. A sixth of
    the training images judges the trials; the test images are not looked at. The same command with
    the same --out goes on; it leaves best_spec.json for `train --spec`, and report.html.

    Exit codes: 0; 2 for a mistake; 1 after Ctrl-C, or if too many trials failed; 75 after SIGTERM.
    """
    with usage_errors():
        spec, recipe = chosen_spec(variant, spec_file), chosen_recipe(recipe_name, changes)
        round_epochs = _rounds(rounds)
        if join and budget_ms:
            raise ValueError(
                "Expected --budget-ms on one machine, whose times it means. Received: --join too"
            )
        if budget_batch and not budget_ms:
            raise ValueError(
                "Expected --budget-ms with --budget-batch, the batch in which it is measured. "
                f"Received: --budget-batch {budget_batch} alone"
            )
        if oracle == "hyperband" and trials is not None:
            raise ValueError(
                "Expected no --trials for hyperband, which makes as many as --rounds asks for. "
                f"Received: --trials {trials}"
            )
    launched = "KERASTUNER_TUNER_ID" in os.environ
    if not launched:
        console.print("Loading TensorFlow ...")
    from keras_inception.training.strategy import make_strategy
    from tuning.engine.launcher import end_with_launcher, free_port, launch
    from tuning.plan import SearchPlan
    from tuning.run import claim
    from tuning.space import Space, base_network

    end_with_launcher()
    with usage_errors():
        devices = make_strategy(strategy)
        data = chosen_data(data_name, strict=True)
        base = base_network(_size(spec, data), len(data.class_names), spec)
        folder = out or RUNS / f"tune-{spec.name}-{datetime.now():%Y%m%d-%H%M%S}"
        plan = SearchPlan(
            space=Space(
                base=base,
                budget=_budget(
                    base, folder, budget_macs, budget_params, budget_ms, budget_batch or 1
                ),
                step=step or (4 if network_cost(base).total.macs < _NARROW_MACS else 8),
                depth=depth,
                kernels=tuple(kernels or ()),
                stem=stem,
                least_share=least_share if against else 1.0,
            ),
            recipe=recipe,
            oracle=oracle,  # type: ignore[arg-type]
            max_trials=trials or _TRIALS,
            against=against,
            round_epochs=round_epochs,
            resolution=resolution,
            data_fraction=data_fraction,
            seed=seed,
        )
    if launched:
        _run_launched(plan, data, folder, devices, trials_per_process)
        return
    with usage_errors():
        claim(folder, plan.identity(data))
    _tell_plan(plan, data, folder)
    with _ends(folder):
        if not join:
            _measure(plan, data, folder, devices, measure_proxy)
        with _Display(folder, plan.trial_count, workers) as display:
            if workers == 1 and not address and not join:
                with display.ticking():
                    _run_here(plan, data, folder, devices, None)
            else:
                launch(
                    [sys.executable, "-c", _AGAIN, *sys.argv[1:], "--out", str(folder)],
                    folder=folder,
                    workers=workers,
                    address=join or address or f"127.0.0.1:{free_port()}",
                    with_chief=not join,
                    tick=display.tick,
                )
    if not join:
        with usage_errors():
            _tell_result(folder)


# The same command in another process.
_AGAIN = "from keras_inception.cli import main; main()"


def tune_report(
    folder: Annotated[Path, typer.Argument(help="Of a search, running or done.")],
) -> None:
    """Write report.html, pictures, leaderboard.csv and TensorBoard's HParams of a search."""
    with usage_errors():
        _tell_result(folder)


def _rounds(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(epochs) for epochs in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(f"Expected --rounds such as 2,6,18. Received: {text!r}") from None


def _size(spec: NetworkSpec, data: Any) -> tuple[int, int, int]:
    from keras_inception.training.run import fitted_to_data

    height, width, channels = fitted_to_data(spec, data).input_shape
    if height is None or width is None:
        raise ValueError(
            "Expected a network or images of one size. Received: neither. Use --spec with an "
            "input_shape."
        )
    return height, width, channels


def _budget(
    base: NetworkSpec,
    folder: Path,
    macs: int | None,
    params: int | None,
    ms: float | None,
    batch_size: int,
) -> Any:
    """The bounds that were asked for; none: the network's own multiply-adds."""
    if ms is None:
        return chosen_budget(base, macs, params)
    from tuning.latency import LatencyBudget, kept_latency_model
    from tuning.plan import LATENCY_FILE

    file = folder / LATENCY_FILE
    new = not file.exists()
    if new:
        console.print("Timing networks of this form on this machine ...")
    model = kept_latency_model(file, base, batch_size=batch_size)
    if new:
        console.print(f"The model of the times is off by {model.error:.1%} on networks left out.")
    others = Budget(macs=macs, params=params) if macs or params else None
    return LatencyBudget(milliseconds=ms, model=model, budget=others)


def _run_here(plan: Any, data: Any, folder: Path, devices: Any, trials_per_process: Any) -> bool:
    """Run the search, or this process's part of it; whether it is over."""
    from tuning.engine.service import ChiefLostError
    from tuning.engine.tuner import SearchAbortedError
    from tuning.run import search

    try:
        with usage_errors():
            return search(
                plan, data, folder, strategy=devices, trials_per_process=trials_per_process
            )
    except (SearchAbortedError, ChiefLostError) as error:
        print_error(str(error))
        raise typer.Exit(1 if isinstance(error, SearchAbortedError) else 2) from None


def _run_launched(plan: Any, data: Any, folder: Path, devices: Any, trials: int) -> None:
    """Run this process's part of the search, and tell the launcher how it ended."""
    from tuning.engine.launcher import AGAIN
    from tuning.run import SearchInterruptedError

    try:
        over = _run_here(plan, data, folder, devices, trials)
    except SearchInterruptedError:
        over = False
    if not over:
        raise typer.Exit(AGAIN)


class _TerminatedError(Exception):
    """SIGTERM came."""


@contextmanager
def _ends(folder: Path) -> Iterator[None]:
    """What to say, and the exit code, when the command ends before the search does."""
    from keras_inception.training.loop import TrainingInterruptedError
    from tuning.engine.launcher import LaunchError
    from tuning.run import SearchInterruptedError

    def terminate(*_: Any) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except LaunchError as error:
        print_error(str(error))
        raise typer.Exit(1) from None
    except (
        KeyboardInterrupt,
        _TerminatedError,
        TrainingInterruptedError,
        SearchInterruptedError,
    ) as error:
        errors.print(
            f"Stopped. The same command with [bold]--out {escape(str(folder))}[/] goes on."
        )
        by_hand = isinstance(error, KeyboardInterrupt) or getattr(error, "by_hand", False)
        raise typer.Exit(1 if by_hand else INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _measure(plan: Any, data: Any, folder: Path, devices: Any, networks: int | None) -> None:
    """Noise and rank correlation, before rankings of cheap trainings are trusted."""
    from keras_inception.training.loop import TrainingDivergedError
    from tuning.proxy_quality import Trust, measure_trust

    if networks is None:
        networks = _PROXY_NETWORKS if plan.is_proxy else 0
    trust = Trust.load(folder)
    if trust is None and networks:
        console.print(f"Training {networks} networks cheaply and in full first ...")
        try:
            with usage_errors():
                trust = measure_trust(
                    plan,
                    data,
                    networks=networks,
                    strategy=devices,
                    told=lambda name, accuracy: console.print(f"  {name}: {accuracy:.2%}"),
                )
        except TrainingDivergedError as error:
            print_error(str(error))
            raise typer.Exit(2) from None
        trust.save(folder)
    if trust is None:
        return
    console.print(
        f"Noise of one network over {len(trust.seeds)} seeds: {trust.noise:.2%}; spread over "
        f"networks: {trust.spread:.2%}. Rank correlation of cheap and full trainings: "
        f"[bold]{trust.rank_correlation:.2f}[/] over {len(trust.cheap)} networks."
    )


class _Display:
    """A line that says how the search stands; in a log, a line for each trial that ended."""

    def __init__(self, folder: Path, max_trials: int, workers: int) -> None:
        self._folder = folder
        self._max_trials = max_trials
        self._workers = workers
        self._told = 0.0
        self._ended = -1
        self._status = console.status("Starting ...")

    def __enter__(self) -> _Display:
        if console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """Tick in a thread of its own."""
        done = threading.Event()

        def loop() -> None:
            while not done.wait(1.0):
                self.tick()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def tick(self) -> None:
        """Look at the folder, once a second at most."""
        from tuning.trials import standing

        if time.monotonic() - self._told < 1:
            return
        self._told = time.monotonic()
        now = standing(self._folder, max_trials=self._max_trials, workers=self._workers)
        best = "-" if now.best is None else f"{now.best:.2%}"
        left = "?" if now.seconds_left is None else _duration(now.seconds_left)
        line = (
            f"{now.done} of {self._max_trials} trials done, {now.failed} failed, {now.running} "
            f"running; best {best}; about {left} left"
        )
        if console.is_terminal:
            self._status.update(line)
        elif now.done + now.failed != self._ended:
            console.print(line)
        self._ended = now.done + now.failed


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{rest} s"


def _tell_plan(plan: Any, data: Any, folder: Path) -> None:
    console.print(cost_line(plan.space.spec({})))
    count = len(plan.space.dimensions)
    console.print(
        f"{plan.trial_count} trials by {plan.oracle} over {count} hyperparameters, on "
        f"{len(data.train):,} training images of {escape(data.name)}, of which "
        f"{plan.validation_share:.0%} judge; in [bold]{escape(str(folder))}[/]."
    )


def _tell_result(folder: Path) -> None:
    from tuning.report.hparams import write_hparams
    from tuning.report.page import write_report
    from tuning.trials import best_first, read_trials

    page = write_report(folder)
    write_hparams(folder)
    best = best_first(read_trials(folder))
    table = Table("trial", "accuracy", "multiply-adds", "parameters", "epochs")
    for trial in best[:_SHOWN]:
        epochs = "" if trial.epochs is None else str(trial.epochs)
        table.add_row(
            str(trial.number),
            f"{trial.accuracy:.2%}",
            f"{trial.macs:,}",
            f"{trial.params:,}",
            epochs,
        )
    console.print(table)
    console.print(
        f"The report is [bold]{escape(str(page))}[/]. Train the best with [bold]keras-inception "
        f"train --spec {escape(str(folder / 'best_spec.json'))}[/]"
    )
