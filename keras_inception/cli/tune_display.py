"""What `keras-inception tune` prints: the plan, the progress, and the result."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from keras_inception.cli import silence
from keras_inception.cli.choices import cost_line
from keras_inception.cli.common import console
from keras_inception.cli.data import next_data, quoted
from keras_inception.cli.waits import line_is_due, waiting
from keras_inception.packages import is_installed
from keras_inception.wording import counted

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData
    from tuning.plan import SearchPlan
    from tuning.space import Space
    from tuning.trials import SearchProgress

_LEADERBOARD = 5


def print_plan(plan: SearchPlan, data: ImageData, folder: Path) -> None:
    """The neutral network, the size of the search and its folder."""
    console.print(cost_line(plan.space.spec({})))
    console.print(
        f"{counted(plan.search_trial_count, 'trial')} by {plan.oracle} over "
        f"{counted(len(plan.space.dimensions), 'hyperparameter')}{_finals_of(plan)}, on "
        f"{counted(len(data.train), 'training image')} of "
        f"{escape(data.name)}, {plan.validation_share:.0%} of them held out; in "
        f"[bold]{escape(str(folder))}[/]."
    )


def _finals_of(plan: SearchPlan) -> str:
    count = plan.trial_count - plan.search_trial_count
    return f", then {counted(count, 'full training')} of the best" if count else ""


def print_coverage(space: Space) -> None:
    """How many random points lie on a floor and are distinct; a warning if moves change little."""
    from tuning.base import coverage

    with waiting("Counting the networks of random points"):
        found = coverage(space)
    console.print(escape(str(found)))
    most = max(found.floors.values(), default=0)
    if most > found.points / 2 or found.distinct < 0.9 * found.points:
        console.print(
            "[yellow]Warning[/]: a width lies on its floor in most points, or many are the same "
            "network. Lower --width-divisor, raise the budget, or leave out --variant and --spec."
        )


def print_result(folder: Path) -> None:
    """Write the report of a search, and print its best trials."""
    with waiting("Writing the report"):
        from keras_inception.data.record import recorded_source
        from tuning.report.page import write_report
        from tuning.run import BEST_SPEC_FILE
        from tuning.trials import best_first, read_trials
        from tuning.verdict import read_verdict

        page = write_report(folder)
        if is_installed("tensorflow"):
            from tuning.report.hparams import write_hparams

            write_hparams(folder)
    trials = best_first(read_trials(folder))[:_LEADERBOARD]
    in_rounds = any(trial.epochs is not None for trial in trials)
    table = Table("trial", "accuracy", "multiply-adds", "parameters", *["epochs"] * in_rounds)
    for trial in trials:
        epochs = "" if trial.epochs is None else str(trial.epochs)
        accuracy, costs = f"{trial.accuracy:.2%}", (f"{trial.macs:,}", f"{trial.params:,}")
        table.add_row(str(trial.number), accuracy, *costs, *[epochs] * in_rounds)
    console.print(table)
    if (found := read_verdict(folder)) is not None:
        console.print(escape(str(found)))
    console.print(
        f"The report is [bold]{escape(str(page))}[/]. Train the best network with [bold]"
        f"keras-inception train --spec {escape(quoted(folder / BEST_SPEC_FILE))}"
        f"{next_data(recorded_source(folder) or '')}[/]"
    )


class SearchDisplay:
    """One line with the progress of a search; in a log, a line for each trial that ended and at
    least every 30 seconds.
    """

    def __init__(self, folder: Path, max_trials: int, workers: int) -> None:
        self._folder = folder
        self._max_trials = max_trials
        self._workers = workers
        self._last_update = 0.0
        self._ended = -1
        self._status = console.status("Starting ...")

    def __enter__(self) -> SearchDisplay:
        if console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    @contextmanager
    def in_thread(self) -> Iterator[None]:
        """Update in a thread of its own."""
        done = threading.Event()

        def loop() -> None:
            while not done.wait(1.0):
                self.update()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def update(self) -> None:
        """Read the folder, once a second at most."""
        from tuning.trials import search_progress

        if time.monotonic() - self._last_update < 1:
            return
        self._last_update = time.monotonic()
        now = search_progress(self._folder, max_trials=self._max_trials, workers=self._workers)
        line = self._line(now)
        if console.is_terminal:
            self._status.update(line)
        elif now.completed + now.failed != self._ended or line_is_due():
            silence.end()
            console.print(line)
        self._ended = now.completed + now.failed

    def _line(self, now: SearchProgress) -> str:
        best = "none yet" if now.best is None else f"{now.best:.2%}"
        left = "" if now.seconds_left is None else f"; about {_duration(now.seconds_left)} left"
        return (
            f"{now.completed} of {counted(self._max_trials, 'trial')} done, {now.failed} failed, "
            f"{now.running} running; best {best}{left}"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{rest} s"


def print_accuracy(name: str, accuracy: Any) -> None:
    """One training of those by which the trials' way of training is chosen."""
    console.print(f"  {name}: {accuracy:.2%}")
