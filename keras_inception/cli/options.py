"""Options of several commands, each declared once: the same word means the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_inception.cli.choices import chosen_recipe
from keras_inception.spec.recipe import RECIPES, Recipe

Variant = Annotated[str, typer.Option(help="A named network; `summary --list` shows them all.")]
SpecFile = Annotated[Path | None, typer.Option("--spec", help="A spec.json; replaces --variant.")]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="sample, tfds:NAME (any data set of TFDS), or dir:PATH; default the data recorded "
        "with the given run or --spec, otherwise the sample.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail if the data holds files that cannot be read.")
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help=f"{', '.join(RECIPES)}, or a recipe.json.")
]
RecipeChanges = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any field of the recipe: --set label_smoothing=0.1."),
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of each training; default the recipe's.")]
BatchSize = Annotated[
    int | None, typer.Option(help="Images per training step; default the recipe's.")
]
Seed = Annotated[int | None, typer.Option(help="Random seed; default the recipe's.")]
Patience = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Epochs without a better held-out accuracy after which to stop, with the weights of "
        "the best epoch; default the recipe's; 0 never.",
    ),
]
InputSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Height and width in pixels; default those of the images if all have one size, "
        "otherwise the network's.",
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="1 (grey) or 3 (RGB) channels; default those of the initial weights or the measured "
        "model, otherwise the images'.",
    ),
]
StrategyName = Annotated[
    str,
    typer.Option("--strategy", help="auto, cpu:N, mirrored, multi-worker, tpu or tpu:NAME."),
]
NewFolder = Annotated[
    Path | None,
    typer.Option("--out", help="A new folder; default saved_models/ and a name with the time."),
]
BudgetMacs = Annotated[
    int | None, typer.Option(help="Maximum multiply-adds; default those of the network.")
]
BudgetParams = Annotated[int | None, typer.Option(help="Maximum parameters; default no limit.")]
SavedModel = Annotated[
    Path,
    typer.Argument(
        help="A run's folder, a .keras file, a SavedModel, or a .tflite, .onnx or .xml file."
    ),
]
KerasModel = Annotated[Path, typer.Argument(help="A run's folder, or a .keras file.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="Threads that compute; default one for each core."),
]


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """The recipe of a training, the first options of a panel."""

    recipe_name: RecipeName = "quick"
    changes: RecipeChanges = None
    epochs: Epochs = None
    batch_size: BatchSize = None
    patience: Patience = None

    def recipe(self, **others: Any) -> Recipe:
        """The recipe with its changes, and with those of other options."""
        return chosen_recipe(
            self.recipe_name,
            self.changes,
            epochs=self.epochs,
            batch_size=self.batch_size,
            patience=self.patience,
            **others,
        )
