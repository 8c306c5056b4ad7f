"""`keras-inception evaluate`: accuracy of one model or an ensemble, by one or many crops."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from keras_inception.cli.choices import require_choice
from keras_inception.cli.common import (
    console,
    print_missing_pictures,
    usage_errors,
)
from keras_inception.cli.data import chosen_data, print_left_out
from keras_inception.cli.endings import ended_by_signals
from keras_inception.cli.options import DataName, Strict, Threads
from keras_inception.cli.waits import LOADING_MODEL, lines, waiting
from keras_inception.files import (
    EVALUATION_FILE,
    METRICS_FILE,
    REPORT_FILE,
    SPEC_FILE,
    aside,
    keras_file,
    make_writable,
    temporary_folder,
    write_text,
)
from keras_inception.images.geometry import Crops
from keras_inception.new_folders import left_as_found
from keras_inception.packages import is_installed
from keras_inception.wording import counted, has_top_5

if TYPE_CHECKING:
    from keras_inception.data.splits import ImageData
    from keras_inception.evaluation.scores import Evaluation, Table3Row
    from keras_inception.inference.predictor import Predictor

    # Number of models, crops, and how good they are.
    Result = tuple[int, Crops, Evaluation]


Models = Annotated[list[Path], typer.Argument(help="Runs' folders, or .keras files.")]
CropNames = Annotated[
    list[str] | None,
    typer.Option(help="whole (default; as training evaluates), 1, 10 or 144. May be repeated."),
]
CropsAtOnce = Annotated[int, typer.Option(min=1, help="Crops in one call of the network.")]
ResultFolder = Annotated[
    Path | None, typer.Option(help="Folder for metrics.json, report.html and confusion_matrix.png.")
]


@ended_by_signals()
def evaluate(
    models: Models,
    data_name: DataName = None,
    crops: CropNames = None,
    batch_size: CropsAtOnce = 64,
    threads: Threads = None,
    strict: Strict = False,
    out: ResultFolder = None,
) -> None:
    """Accuracy of a model, and of all given models together, in the layout of Table 3.

    Top-1, and of more than five classes top-5.

    The images are the held-out ones of the data; its test images, where it has validation images
    beside them. In the folder of a run it writes evaluation.html, and with --out files elsewhere.
    """
    with usage_errors():
        chosen = [_crops(name) for name in crops or ["whole"]]
        paths = [keras_file(model) for model in models]
        if out is not None:
            _check_out(out)
    with usage_errors(), waiting(LOADING_MODEL):
        from keras_inception.evaluation.scores import table_3
        from keras_inception.inference.predictor import load

        # Models before data: TensorFlow's first operation fixes its threads.
        predictors = [load(path, threads=threads) for path in paths]
    with usage_errors():
        data = chosen_data(data_name, beside=paths[0].parent, strict=strict)
        if data.final_test is not None:
            data = replace(data, test=data.final_test, note="test images")
        for predictor, path in zip(predictors, paths, strict=True):
            _check_classes(predictor, path, data)
        data = data.with_channels(predictors[0].network.input_shape[2])
    print_left_out(data.unreadable, data.folders_left_out)
    results, scores = _results(predictors, data, chosen, batch_size)
    rows = table_3(results)
    console.print(_table(rows, results, data))
    page = _Page(results[-1][2], scores, predictors[0].network.input_shape, paths, data)
    if out is not None:
        with usage_errors():
            _write_results(out, rows, results, paths, data)
            _write_pictures(out, page)
    elif len(paths) == 1:
        _leave_page(paths[0], page)


def _results(
    predictors: list[Predictor], data: ImageData, chosen: list[Crops], batch_size: int
) -> tuple[list[Result], Any]:
    """The first model alone, then all together, by each kind of crops; the last result's scores."""
    from keras_inception.evaluation.scores import crop_scores, evaluate_scores

    results: list[Result] = []
    bars = Progress(console=console, transient=True, disable=not console.is_terminal)

    def line() -> str:
        last = bars.tasks[-1]
        return f"evaluating, {last.description}: {last.completed:.0f} of {last.total:.0f} images"

    shown = nullcontext() if console.is_terminal else lines(line)
    with bars as progress, shown, usage_errors():
        for name in chosen:
            task = progress.add_task(f"crops: {name}", total=len(data.test) * len(predictors))
            advance = partial(progress.advance, task)
            total: Any = 0
            for count, predictor in enumerate(predictors, 1):
                model = predictor.network.model
                total = total + crop_scores(
                    model, data.test, name, batch_size=batch_size, progress=advance
                )
                if count in (1, len(predictors)):
                    results.append((count, name, evaluate_scores(total / count, data.test.labels)))
    return sorted(results, key=lambda result: result[0]), total / len(predictors)


def _write_results(
    folder: Path,
    rows: list[Table3Row],
    results: list[Result],
    paths: list[Path],
    data: ImageData,
) -> None:
    make_writable(folder)
    document = [
        {"crop": name, **asdict(row), **evaluation.summary(data.class_names)}
        for row, (_, name, evaluation) in zip(rows, results, strict=True)
    ]
    models = [str(path) for path in paths]
    text = json.dumps({"data": data.source, "models": models, "rows": document})
    write_text(folder / METRICS_FILE, text + "\n")


def _write_pictures(folder: Path, page: _Page) -> None:
    """The confusion matrix and the page, where the packages for them are installed."""
    if not _can_draw():
        print_missing_pictures()
        console.print(f"{METRICS_FILE} is in {escape(str(folder))}.")
        return
    confusion = folder / "confusion_matrix.png"
    page.write(folder / REPORT_FILE, confusion)
    console.print(
        f"{METRICS_FILE}, {confusion.name} and {REPORT_FILE} are in {escape(str(folder))}."
    )


def _leave_page(path: Path, page: _Page) -> None:
    """The page of one model in the folder of its run; a folder that is read-only stays as it is."""
    file, is_run = path.with_name(EVALUATION_FILE), path.with_name(SPEC_FILE).is_file()
    if not (is_run and _can_draw() and os.access(path.parent, os.W_OK)):
        return
    with temporary_folder() as pictures, suppress(OSError):
        page.write(file, pictures / "confusion_matrix.png")
        console.print(f"The classes and the worst mistakes are in {escape(str(file))}.")


def _can_draw() -> bool:
    return is_installed("matplotlib") and is_installed("jinja2")


@dataclass(frozen=True)
class _Page:
    """What the page of an evaluation shows."""

    evaluation: Evaluation
    scores: Any
    shape: tuple[int, int, int]
    paths: list[Path]
    data: ImageData

    def write(self, page: Path, confusion: Path) -> None:
        """Write the page, and its confusion matrix as a picture."""
        from keras_inception.evaluation import plots
        from keras_inception.reports.evaluation import worst_mistakes, write_evaluation_page

        names = self.data.class_names
        with aside(confusion) as picture:
            plots.confusion_matrix(self.evaluation.confusion, names, picture)
        write_evaluation_page(
            page,
            self.evaluation,
            worst_mistakes(self.scores, self.data.test, names, shape=self.shape),
            names,
            title=f"{', '.join(map(str, self.paths))} on {self.data.name}",
            confusion=confusion.read_bytes(),
        )


def _check_out(folder: Path) -> None:
    with left_as_found(folder):
        make_writable(folder)
    if (folder / METRICS_FILE).exists():
        raise ValueError(
            f"Expected a folder without {METRICS_FILE}. Received: --out {str(folder)!r}, which "
            "holds the numbers of a run or of another evaluation. Choose another one."
        )


def _crops(name: str) -> Crops:
    require_choice("--crops", name, get_args(Crops))
    return cast(Crops, name)


def _check_classes(predictor: Predictor, path: Path, data: ImageData) -> None:
    from keras_inception.network.imagenet import class_names, imagenet_classes

    names, own = predictor.network.labels, data.class_names
    numbers = tuple(str(index) for index in range(len(names)))
    if own == tuple(identifier for identifier, _ in imagenet_classes()):  # TFDS' imagenet2012
        own = class_names(len(own)) or own
    if len(names) != len(own) or names not in (numbers, own):
        raise ValueError(
            f"Expected a model of the {counted(len(own), 'class')} of {data.name!r}, in their "
            f"order. Received: {str(path)!r} of {counted(len(names), 'class')} "
            f"{list(names[:5])}..., data of {list(data.class_names[:5])}..."
        )


def _table(rows: list[Table3Row], results: list[Result], data: ImageData) -> Table:
    note = f"; {data.note}" if data.note else ""
    table = Table(
        title=f"{counted(len(data.test), 'held-out image')} of {escape(data.name + note)}"
    )
    with_top_5 = has_top_5(len(data.class_names))
    compared = ("top-5 error", "compared to base") if with_top_5 else ()
    for column in ("models", "crops", "cost", "top-1", *compared, "loss"):
        table.add_column(column, justify="right")
    for row, (_, name, evaluation) in zip(rows, results, strict=True):
        difference = row.compared_to_base
        table.add_row(
            str(row.models),
            name,
            str(row.cost),
            f"{evaluation.top_1:.2%}",
            *(f"{row.top_5_error:.2%}", "base" if difference is None else f"{difference:+.2%}")[
                : len(compared)
            ],
            f"{evaluation.loss:.4f}",
        )
    return table
