"""What options name: a spec, a recipe, a budget; and the cost line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from keras_inception.bounded import MOST_TEXT, naming, parsed_json
from keras_inception.cost.budget import Budget
from keras_inception.cost.layers import network_cost
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.recipe import RECIPES, Recipe
from keras_inception.spec.variants import variant_spec
from keras_inception.wording import counted


def require_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that an option does not know.

    Raises:
        ValueError: it does not.
    """
    if value not in choices:
        raise ValueError(f"Expected {option} {listed(choices)}. Received: {value!r}")


def listed(choices: Sequence[str]) -> str:
    """Choices as --help has them: "a, b or c"."""
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))


def chosen_spec(variant: str, path: Path | None) -> NetworkSpec:
    """The spec that --spec or --variant names."""
    if path is None:
        return variant_spec(variant)
    with naming(path):
        return NetworkSpec.from_json(file_text(path))


def chosen_recipe(name: str, changes: list[str] | None, **given: Any) -> Recipe:
    """The recipe that --recipe names, with the changes of --set and of options that were given.

    Args:
        name: of a recipe, or a recipe.json.
        changes: FIELD=VALUE each.
        given: fields by their own options, which come last; None is an option that was not given.
    """
    if name in RECIPES:
        recipe = RECIPES[name]
    elif name.endswith(".json"):
        with naming(Path(name)):
            recipe = Recipe.from_json(file_text(Path(name)))
    else:
        raise ValueError(
            f"Expected a recipe among {', '.join(RECIPES)}, or a recipe.json. Received: {name!r}"
        )
    given = {field: value for field, value in given.items() if value is not None}
    return replace(recipe, **{**_recipe_changes(changes or []), **given})


def chosen_budget(spec: NetworkSpec, macs: int | None, params: int | None) -> Budget:
    """The bounds that were asked for; none: the network's own multiply-adds."""
    if macs is None and params is None:
        macs = network_cost(spec).total.macs
    return Budget(macs=macs, params=params)


def _recipe_changes(items: list[str]) -> dict[str, Any]:
    """FIELD=VALUE as the recipe takes them; a value that is no JSON is text."""
    known = {item.name for item in fields(Recipe)}
    changes: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if name not in known or not equals:
            raise ValueError(
                f"Expected --set FIELD=VALUE, with a field among {', '.join(sorted(known))}. "
                f"Received: {item!r}"
            )
        try:
            value = parsed_json(text, "value")
        except ValueError:
            value = text
        changes[name] = tuple(value) if isinstance(value, list) else value
    return changes


def file_text(path: Path) -> str:
    """The text of a spec.json or recipe.json.

    Raises:
        ValueError: a file that is not there or not text.
    """
    try:
        with path.open(encoding="utf-8") as file:  # may be a pipe, as of <(command)
            return file.read(MOST_TEXT + 1)  # one more is refused
    except OSError as error:
        reason = error.strerror
    except UnicodeDecodeError:
        reason = "not a text file"
    raise ValueError(f"Expected a JSON file. Received: {str(path)!r} ({reason})")


def cost_line(spec: NetworkSpec) -> str:
    """What a network costs, in one line."""
    total = network_cost(spec).total
    height, width, channels = spec.input_shape
    return (
        f"[bold]{escape(spec.name)}[/] on {height} x {width} x {channels}, "
        f"{counted(spec.classes, 'class')}: "
        f"{total.params:,} parameters, {total.macs:,} multiply-adds, "
        f"{total.activation_bytes() / 1e6:.1f} MB of activations per image."
    )
