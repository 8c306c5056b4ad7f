"""The command line: the only code that prints. `keras-inception --help` lists the commands.

Exit codes: 0; 2 for a usage error (one line, no traceback); 1 for anything else.
One module a command; each imports what it needs inside the command, so that usage errors
are reported before TensorFlow is imported.
"""

from keras_inception.cli import (
    design,
    evaluate,
    export,
    predict,
    serve,
    summary,
    train,
    tune,
    weights,
)
from keras_inception.cli.common import app
from keras_inception.cli.options import Version

__all__ = ["app", "main"]

# In the order of --help.
app.command("train")(train.train)
app.command("summary")(summary.summary)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("design")(design.design)
app.command("tune")(tune.tune)
app.command("tune-report")(tune.tune_report)
app.add_typer(weights.app, name="weights")


@app.callback()
def options(version: Version = False) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point of the console script."""
    app()
