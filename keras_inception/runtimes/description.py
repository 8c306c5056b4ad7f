"""What a run, an export, a .keras file or a spec holds: for `info`, and for their model cards.

Reads the documents beside a model, and the model itself only where there are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
        return describe_documents({SPEC_FILE: path.read_text(encoding="utf-8")})
    folder = path if path.is_dir() else path.parent
    documents = documents_of(folder)
    formats = _formats(folder)
    if SPEC_FILE in documents:
        facts = describe_documents(documents)
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
    for place in (folder, folder / "saved_model", folder.parent):
        if (place / SPEC_FILE).is_file():
            files = [place / name for name in _DOCUMENTS if (place / name).is_file()]
            return {file.name: file.read_text(encoding="utf-8") for file in files}
    return {}


def describe_documents(documents: Mapping[str, str]) -> dict[str, str]:
    """The facts that documents hold, by the names of their files."""
    facts: dict[str, str] = {}
    if SPEC_FILE in documents:
        facts |= _facts_of_spec(NetworkSpec.from_json(documents[SPEC_FILE]))
    data, recipe, metrics = (
        _loaded(documents, name) for name in (DATA_FILE, RECIPE_FILE, METRICS_FILE)
    )
    if data:
        held_out = counted(data["held-out images"], "held-out image")
        counts = f"{counted(data['training images'], 'training image')}, {held_out}"
        facts["data"] = f"{printable(data['source'])}: {counts}"
        facts["classes"] = _classes(data["classes"])
    if recipe:
        facts["recipe"] = (
            f"{printable(recipe['name'])}: {counted(recipe['epochs'], 'epoch')}, batches of "
            f"{recipe['batch_size']}, {recipe['optimizer']}"
        )
    if "top_1" in metrics:
        with_top_5 = has_top_5(len(metrics.get("per_class", ())))
        top_5 = f", top-5 {metrics['top_5']:.2%}" if with_top_5 else ""
        facts["accuracy"] = (
            f"{metrics['top_1']:.2%} of {counted(metrics['images'], 'held-out image')}{top_5}"
        )
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


def _loaded(documents: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        return json.loads(documents.get(name, "{}"))
    except json.JSONDecodeError as error:
        raise ValueError(f"Expected JSON in {name}. Received: {error}") from error


def _facts_of_spec(spec: NetworkSpec) -> dict[str, str]:
    total = network_cost(spec).total
    size = " x ".join(map(str, spec.input_shape))
    return {
        "network": f"{printable(spec.name)}, {size}, {counted(spec.classes, 'class')}",
        "cost": f"{total.params:,} parameters, {total.macs:,} multiply-adds",
        "pixels": _pixels(spec.pixels),
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
