"""`keras-inception tune` and `tune-report`: search networks within a budget, and report."""

from __future__ import annotations

import glob
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_inception.cli.common import (
    INTERRUPTED,
    RUNS,
    console,
    errors,
    print_error,
    usage_errors,
)
from keras_inception.cli.data import chosen_data, lowered_batch_size, print_data, with_channels
from keras_inception.cli.endings import ended_by_signals, resuming
from keras_inception.cli.option_groups import option_groups
from keras_inception.cli.tune_display import (
    SearchDisplay,
    print_accuracy,
    print_coverage,
    print_plan,
    print_result,
)
from keras_inception.cli.tune_options import (
    DEFAULT_TRIALS,
    BudgetOptions,
    NetworkOptions,
    ProcessOptions,
    SearchOptions,
    SpaceOptions,
    TrainingOptions,
    check_options,
)
from keras_inception.cli.tune_space import chosen_space
from keras_inception.cli.waits import LOADING, waiting
from keras_inception.new_folders import begun, removed_if_unbegun
from keras_inception.spec.recipe import Recipe

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData
    from tuning.engine.access import Access
    from tuning.plan import SearchPlan

# The command of this process, in another one, whose log keeps everything.
_SAME_COMMAND = ("-c", "from keras_inception.cli import main; main()", "--verbose")


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A search that is ready to run."""

    plan: SearchPlan
    data: ImageData
    folder: Path
    strategy: Any


@option_groups
def tune(
    network: NetworkOptions,
    training: TrainingOptions,
    budget: BudgetOptions,
    space: SpaceOptions,
    search: SearchOptions,
    processes: ProcessOptions,
) -> None:
    """Search the widths of a network, with every candidate within the budget.

    Trial 0 is the network itself (`design` proposes one: --spec), fitted to the budget; without
    --variant and --spec it is built so that its widths can move both ways. A sixth of the training
    images is held out to evaluate the trials; the test images are not used. At the end the best
    networks are trained fully with several seeds (--finalists, --seeds). The same command with the
    same --out resumes the search. It writes best_spec.json for `train --spec`, and report.html.

    Exit codes: 0; 2 for a usage error; 1 after Ctrl-C, or if too many trials failed; 75 after
    SIGTERM or SIGHUP: the same command resumes the search.
    """
    launched = "KERASTUNER_TUNER_ID" in os.environ
    with ended_by_signals():
        job = _job(network, training, budget, space, search, processes, launched=launched)
    if launched and search.measure_proxy:
        job = _planned(job)  # chosen by the process that launched this one
    if launched:
        _run_launched(job, processes.trials_per_process)
    else:
        _run(job, processes, search.measure_proxy)


def _job(
    network: NetworkOptions,
    training: TrainingOptions,
    budget: BudgetOptions,
    space: SpaceOptions,
    search: SearchOptions,
    processes: ProcessOptions,
    *,
    launched: bool,
) -> _Job:
    """Check the options, open the data and build the space."""
    with usage_errors():
        check_options(training, budget, space, search, processes)
        spec, recipe, rounds = network.spec(), training.recipe(), search.rounds()
    with waiting(LOADING):
        from keras_inception.training.strategy import make_strategy
        from tuning.engine.launcher import exit_with_launcher
        from tuning.plan import SearchPlan

    exit_with_launcher()
    with usage_errors():
        strategy = make_strategy(training.strategy)
        folder = _folder(search, spec.name if spec else "network", launched)
        spec_file = network.spec_file
        data = chosen_data(
            network.data_name,
            beside=spec_file and spec_file.parent,
            folder=folder,
            strict=network.strict,
        )
        data = with_channels(data, network.channels, None)
        recipe = _lowered(recipe, len(data.train), training)
        plan = SearchPlan(
            space=chosen_space(spec, data, network.input_size, folder, budget, space),
            recipe=recipe,
            oracle=search.oracle,  # type: ignore[arg-type]
            max_trials=search.trials or DEFAULT_TRIALS,
            second_objective=space.second_objective,
            halving_epochs=rounds,
            resolution=training.resolution,
            data_fraction=training.data_fraction,
            pruning=search.pruning or ("none" if space.second_objective else "median"),  # type: ignore[arg-type]
            finalists=search.finalists,
            seeds=search.seeds,
            seed=search.seed,
        )
    return _Job(plan=plan, data=data, folder=folder, strategy=strategy)


@ended_by_signals()
def tune_report(
    folder: Annotated[Path, typer.Argument(help="Folder of a search, running or finished.")],
) -> None:
    """Write report.html, pictures, leaderboard.csv and TensorBoard's HParams of a search."""
    with usage_errors():
        print_result(folder)


def _folder(search: SearchOptions, network: str, launched: bool) -> Path:
    """The folder of --out or a new one; with --resume that of a search that did not finish."""
    from tuning.run import BEST_SPEC_FILE
    from tuning.trials import SEARCH_FILE

    if launched or not search.resume:
        return search.out or RUNS / f"tune-{network}-{datetime.now():%Y%m%d-%H%M%S}"
    pattern = f"tune-{glob.escape(network)}-{'[0-9]' * 8}-{'[0-9]' * 6}"
    # The one that is named may have finished: with more --trials it is continued.
    folders = [search.out] if search.out else sorted(RUNS.glob(pattern))
    found = [
        folder
        for folder in folders
        if (folder / SEARCH_FILE).exists()
        and (search.out or not (folder / BEST_SPEC_FILE).exists())
    ]
    if not found:
        where = str(search.out or RUNS / f"tune-{network}-*")
        raise ValueError(f"Expected an unfinished search. Received: none in {where!r}")
    return found[-1]


def _lowered(recipe: Recipe, images: int, training: TrainingOptions) -> Recipe:
    """The recipe with a batch that the training images of a trial allow."""
    from tuning.plan import VALIDATION_SHARE

    images = int(images * (1 - VALIDATION_SHARE) * training.data_fraction)
    return lowered_batch_size(recipe, images, training.batch_size, training.changes)


def _run(job: _Job, processes: ProcessOptions, measure_proxy: bool) -> None:
    """Run the search in this process, or start its processes."""
    from keras_inception.data.record import write_record
    from tuning.run import claim
    from tuning.trials import SEARCH_FILE

    is_new = not (job.folder / SEARCH_FILE).exists()
    with usage_errors():
        access = _access(processes)
    print_data(job.data)
    if measure_proxy:
        with _interruptions(job.folder):
            job = _planned(job)
    with _interruptions(job.folder), removed_if_unbegun(job.folder):
        with usage_errors():
            claim(job.folder, job.plan.identity(job.data))
            write_record(job.folder, job.data)
        print_plan(job.plan, job.data, job.folder)
        if is_new and not processes.join:
            print_coverage(job.plan.space)
        _search_in_processes(job, processes, access)
    if not processes.join:
        with usage_errors():
            print_result(job.folder)


def _search_in_processes(job: _Job, processes: ProcessOptions, access: Access | None) -> None:
    with SearchDisplay(job.folder, job.plan.trial_count, processes.workers) as display:
        if access is None:
            with display.in_thread():
                _search(job, None)
        else:
            begun(job.folder)  # the other processes write to it
            _launch(job.folder, processes, access, display)


def _access(processes: ProcessOptions) -> Access | None:
    """What the processes of the search share; None: there is one alone."""
    from tuning.engine.access import access_for

    if not processes.are_several:
        return None
    return access_for(
        processes.secret_file,
        processes.certificate,
        processes.key,
        address=processes.address,
        join=processes.join,
    )


def _launch(
    folder: Path, processes: ProcessOptions, access: Access, display: SearchDisplay
) -> None:
    from tuning.engine.launcher import free_port, launch

    launch(
        [sys.executable, *_SAME_COMMAND, *sys.argv[1:], "--out", str(folder)],
        folder=folder,
        workers=processes.workers,
        address=processes.join or processes.address or f"127.0.0.1:{free_port()}",
        access=access,
        with_chief=not processes.join,
        tick=display.update,
    )


def _run_launched(job: _Job, trials_per_process: int) -> None:
    """Run this process's part of the search; the exit code says how it ended."""
    from tuning.engine.launcher import RESTART
    from tuning.run import SearchInterruptedError

    try:
        has_finished = _search(job, trials_per_process)
    except SearchInterruptedError:
        has_finished = False
    if not has_finished:
        raise typer.Exit(RESTART)


def _search(job: _Job, trials_per_process: int | None) -> bool:
    """Run the search, or this process's part of it; whether it has finished."""
    from tuning.engine.service import ChiefLostError
    from tuning.engine.tuner import SearchAbortedError
    from tuning.run import search

    try:
        with usage_errors():
            return search(
                job.plan,
                job.data,
                job.folder,
                strategy=job.strategy,
                trials_per_process=trials_per_process,
            )
    except (SearchAbortedError, ChiefLostError) as error:
        print_error(str(error))
        raise typer.Exit(1 if isinstance(error, SearchAbortedError) else 2) from None


def _planned(job: _Job) -> _Job:
    """The search by the cheapest trainings that rank networks well enough: measured, or as chosen
    when it began."""
    from keras_inception.training.progress import TrainingDivergedError
    from tuning.fidelity import choose_fidelity, load_choice
    from tuning.run import require_free
    from tuning.trials import SEARCH_FILE

    try:
        with usage_errors():
            choice = load_choice(job.folder)
            if choice is None:
                if not (job.folder / SEARCH_FILE).exists():
                    require_free(job.folder)
                console.print("Training 12 networks in full and in cheaper ways first ...")
                with waiting("Training the networks", on=console):
                    choice = choose_fidelity(
                        job.plan,
                        job.data,
                        job.folder,
                        strategy=job.strategy,
                        on_result=print_accuracy,
                    )
    except TrainingDivergedError as error:
        print_error(str(error))
        raise typer.Exit(2) from None
    console.print(choice.describe(job.plan.search_trial_count))
    return replace(job, plan=choice.applied(job.plan))


class _TerminatedError(BaseException):
    """SIGTERM or SIGHUP came.

    Not an `Exception`: KerasTuner would take it for the failure of a trial.
    """


def _terminate(*_: Any) -> None:
    raise _TerminatedError


@contextmanager
def _interruptions(folder: Path) -> Iterator[None]:
    """Print how to resume, and set the exit code, when the command ends before the search does."""
    from keras_inception.training.progress import TrainingInterruptedError
    from keras_inception.training.signals import STOP_SIGNALS
    from tuning.engine.launcher import LaunchError
    from tuning.run import SearchInterruptedError

    stops = (KeyboardInterrupt, _TerminatedError, TrainingInterruptedError, SearchInterruptedError)
    # Ctrl-C raises by itself; what is ignored (nohup) stays ignored.
    others = [number for number in STOP_SIGNALS if number != signal.SIGINT]
    heeded = [number for number in others if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _terminate) for number in heeded}
    try:
        yield
    except LaunchError as error:
        print_error(str(error))
        raise typer.Exit(1) from None
    except stops as error:
        errors.print(f"Stopped. {resuming(folder)}")
        by_hand = isinstance(error, KeyboardInterrupt) or getattr(error, "by_hand", False)
        raise typer.Exit(1 if by_hand else INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
