"""Write the tables that the package itself determines: variants and recipe fields.

    python scripts/reference_tables.py

Replaces the text between `<!-- table: NAME -->` and `<!-- /table -->` in README.md and docs/*.md.
tests/test_docs.py fails when a page has another table.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from keras_inception import RECIPES, VARIANTS, Recipe, network_cost

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKED = re.compile(r"(<!-- table: (?P<name>\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)
# Published top-1 and top-5 accuracy on ImageNet, as in the manifest of the weights.
PUBLISHED = {
    "paper": "68.7 / 88.9",
    "slim": "69.8 / 89.6",
    "torchvision": "69.778 / 89.530",
    "inception5h": "not published",
}


def with_tables(page: str) -> str:
    """Return the text of a page with its tables replaced."""
    return MARKED.sub(lambda found: found[1] + TABLES[found["name"]]() + found[3], page)


def family() -> str:
    """The family: name, input, classes, parameters, multiply-adds."""
    rows = []
    for name, spec in VARIANTS.items():
        total = network_cost(spec).total
        size = " x ".join(map(str, spec.input_shape))
        counts = (f"{total.params:,}", f"{total.macs:,}")
        rows.append((f"`{name}`", size, str(spec.classes), *counts))
    return _table(("name", "input", "classes", "parameters", "multiply-adds"), rows, 2)


def variants() -> str:
    """The variants by cost: size in memory, and published accuracy."""
    rows = []
    for name, spec in sorted(VARIANTS.items(), key=lambda item: network_cost(item[1]).total.macs):
        total = network_cost(spec).total
        rows.append(
            (
                f"`{name}`",
                f"{spec.input_shape[0]}",
                f"{total.macs / 1e6:,.0f} M",
                f"{total.params / 1e6:,.2f} M",
                f"{(total.params + total.non_trainable) * 4 / 1e6:,.1f} MB",
                PUBLISHED.get(name, "-"),
            )
        )
    heads = ("variant", "pixels", "multiply-adds", "parameters", "weights")
    return _table((*heads, "ImageNet top-1 / top-5"), rows, 1)


def recipe() -> str:
    """Every field of a recipe: its values in the three recipes, and what it means."""
    meaning = _attributes(Recipe)
    rows = [
        (
            f"`{field.name}`",
            *(_shown(getattr(RECIPES[name], field.name)) for name in RECIPES),
            meaning[field.name],
        )
        for field in fields(Recipe)
        if field.name != "name"
    ]
    return _table(("field", *(f"`{name}`" for name in RECIPES), "meaning"), rows, 5)


def _attributes(cls: type) -> dict[str, str]:
    """Return the text of each attribute of a docstring."""
    section = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2]
    items = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in items}


def _shown(value: Any) -> str:
    return {"True": "true", "False": "false", "None": "null", "()": "[]"}.get(
        str(value), f"{value:,}" if isinstance(value, int) else str(value)
    )


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]], numbers_from: int) -> str:
    """Return a Markdown table; columns from `numbers_from` are right-aligned."""
    marks = ["---:" if column >= numbers_from else "---" for column in range(len(heads))]
    lines = [heads, marks, *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


TABLES: dict[str, Callable[[], str]] = {"family": family, "variants": variants, "recipe": recipe}


def main() -> None:
    """Rewrite the tables of every page."""
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        if (written := with_tables(page)) != page:
            path.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
