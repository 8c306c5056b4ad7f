"""What a run, an export, a .keras file or a spec holds: for `info`, and for their model cards.

Reads the documents beside a model, and the model itself only where there are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_inception.bounded import naming, parsed_json, read_text, shown
from keras_inception.cost.layers import network_cost
from keras_inception.files import (
    DATA_FILE,
    LABELS_FILE,
    METRICS_FILE,
    RECIPE_FILE,
    SPEC_FILE,
    keras_file,
    printable,
    read_labels,
)
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.pixels import CONVENTIONS
from keras_inception.spec.recipe import Recipe
from keras_inception.spec.validation import MOST, is_finite, is_integer
from keras_inception.wording import counted, has_top_5

CARD_FILE = "README.md"
# Labels are listed up to so many.
_MOST_LABELS = 20
_DOCUMENTS = (SPEC_FILE, RECIPE_FILE, DATA_FILE, METRICS_FILE)
_MODEL_FILES = ("*.keras", "saved_model*", "*.onnx", "*.xml", "*.tflite")


def describe(path: Path) -> dict[str, str]:
    """What is at a path, a line for each fact: network, cost, pixels, data, accuracy, formats.

    Args:
        path: the folder of a run, of an export or of a SavedModel, a model file, or a spec.json.

    Raises:
        ValueError: none of these, or a damaged document.
    """
    if not path.exists():
        raise ValueError(f"Expected a run, an export, a model or a spec. Received: {str(path)!r}")
    if path.suffix == ".json":
        with naming(path):
            return describe_documents({SPEC_FILE: read_text(path)})
    folder = path if path.is_dir() else path.parent
    documents = documents_of(folder)
    formats = _formats(folder)
    if SPEC_FILE in documents:
        facts = describe_documents(documents, place_of_documents(folder))
    elif formats or path.suffix == ".keras":
        facts = _facts_of_model(path)
    else:
        raise ValueError(
            f"Expected a folder with {SPEC_FILE} or a model. Received: {str(path)!r}, which has "
            "neither. Of a search, `info` takes best_spec.json and `tune-report` the folder."
        )
    labels = folder / LABELS_FILE
    if labels.is_file():
        facts["classes"] = _classes(read_labels(labels))
    if formats:
        facts["formats"] = ", ".join(formats)
    return facts


def documents_of(folder: Path) -> dict[str, str]:
    """The documents of a run, of an export, or of the run beside which an export is."""
    place = place_of_documents(folder)
    files = [place / name for name in _READERS if (place / name).is_file()]
    return {file.name: read_text(file) for file in files} if place / SPEC_FILE in files else {}


def place_of_documents(folder: Path) -> Path:
    """The folder whose documents describe what a folder holds: itself, an export or the run."""
    places = (folder, folder / "saved_model", folder.parent)
    return next((place for place in places if (place / SPEC_FILE).is_file()), folder)


def describe_documents(documents: Mapping[str, str], place: Path = Path()) -> dict[str, str]:
    """The facts that documents hold, by the names of their files.

    Args:
        documents: text by file name.
        place: their folder, for errors.

    Raises:
        ValueError: a document that a run does not write; the error names the file.
    """
    facts: dict[str, str] = {}
    for name, read in _READERS.items():
        if name in documents:
            with naming(place / name):
                facts |= read(documents[name])
    return facts


def model_card(facts: Mapping[str, str], title: str, command: str) -> str:
    """A README.md of Markdown: the facts as a table, and a command that uses the model.

    Args:
        facts: of `describe` or `describe_documents`; any text, which is escaped.
        title: what the folder holds.
        command: for a shell.
    """
    rows = "".join(f"| {key} | {_escaped(value)} |\n" for key, value in facts.items())
    return (
        f"# {_escaped(title)}\n\nMade by keras-inception.\n\n| | |\n| --- | --- |\n{rows}\n"
        f"```bash\n{command}\n```\n"
    )


def _record(text: str, kinds: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """The values of a JSON object, those that are shown of the right kind."""
    document = parsed_json(text, "run's record")
    if not isinstance(document, dict):
        raise ValueError(f"Expected the record of a run. Received: {shown(document)}")
    for key, is_right in kinds.items():
        if not is_right(document.get(key)):
            raise ValueError(
                f"Expected the record of a run, with `{key}` as `train` writes it. "
                f"Received: {key}={shown(document.get(key))}"
            )
    return document


def _is_count(value: Any) -> bool:
    return is_integer(value) and 0 <= value <= MOST


def _is_share(value: Any) -> bool:
    return is_finite(value) and 0 <= value <= 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_by_class(value: Any) -> bool:
    return isinstance(value, dict)


_DATA = {
    "source": _is_text,
    "training images": _is_count,
    "held-out images": _is_count,
    "classes": _are_names,
}
_METRICS = {"images": _is_count, "top_1": _is_share, "top_5": _is_share, "per_class": _is_by_class}


def _facts_of_data(text: str) -> dict[str, str]:
    data = _record(text, _DATA)
    held_out = counted(data["held-out images"], "held-out image")
    counts = f"{counted(data['training images'], 'training image')}, {held_out}"
    return {
        "data": f"{printable(data['source'])}: {counts}",
        "classes": _classes(data["classes"]),
    }


def _facts_of_recipe(text: str) -> dict[str, str]:
    recipe = Recipe.from_json(text)
    return {
        "recipe": f"{printable(recipe.name)}: {counted(recipe.epochs, 'epoch')}, batches of "
        f"{recipe.batch_size}, {recipe.optimizer}"
    }


def _facts_of_metrics(text: str) -> dict[str, str]:
    metrics = _record(text, _METRICS)
    top_5 = f", top-5 {metrics['top_5']:.2%}" if has_top_5(len(metrics["per_class"])) else ""
    images = counted(metrics["images"], "held-out image")
    return {"accuracy": f"{metrics['top_1']:.2%} of {images}{top_5}"}


def _facts_of_spec(text: str) -> dict[str, str]:
    spec = NetworkSpec.from_json(text)
    total = network_cost(spec).total
    size = " x ".join(map(str, spec.input_shape))
    return {
        "network": f"{printable(spec.name)}, {size}, {counted(spec.classes, 'class')}",
        "cost": f"{total.params:,} parameters, {total.macs:,} multiply-adds",
        "pixels": _pixels(spec.pixels),
    }


# In the order of the facts.
_READERS = {
    SPEC_FILE: _facts_of_spec,
    DATA_FILE: _facts_of_data,
    RECIPE_FILE: _facts_of_recipe,
    METRICS_FILE: _facts_of_metrics,
}


def _facts_of_model(path: Path) -> dict[str, str]:
    """The facts of a .keras file without documents; of another format only its name."""
    try:
        file = keras_file(path)
    except ValueError:
        return {"network": "not recorded beside the model"}
    from keras_inception.cost.keras_model import model_cost
    from keras_inception.images.conventions import model_preprocessing
    from keras_inception.runtimes.keras_model import image_shape, load_keras

    model = load_keras(file)
    size = " x ".join(map(str, image_shape(model)))
    return {
        "network": f"{printable(model.name)}, {size}, {counted(model.output_shape[-1], 'class')}",
        "cost": f"{model.count_params():,} numbers, {model_cost(model).macs:,} multiply-adds",
        "pixels": _pixels(model_preprocessing(model)),
    }


def _pixels(convention: str) -> str:
    return f"{convention}: {CONVENTIONS[convention].meaning}"


def _classes(names: Any) -> str:
    shown = ", ".join(printable(str(name)) for name in names[:_MOST_LABELS])
    more = len(names) - _MOST_LABELS
    return f"{shown} and {more} more" if more > 0 else shown


def _formats(folder: Path) -> list[str]:
    places = (folder, folder / "export")
    found = [path for place in places for kind in _MODEL_FILES for path in sorted(place.glob(kind))]
    return [str(path.relative_to(folder)) for path in found]


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$-])", r"\\\1", printable(text))
