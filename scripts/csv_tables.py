"""Write the tables of docs/*.md from benchmarks/results/*.csv.

    python scripts/csv_tables.py

Replaces the text between `<!-- csv: NAME.csv OPTIONS -->` and `<!-- /csv -->`. Options,
separated by spaces (quote one that contains a space):

    COLUMN ...            the columns of the table; default: all but those of the caption
    where=COLUMN:VALUE    only the rows with this value
    spread=COLUMN,...     one column of the table for each value of these columns of the file,
    values=COLUMN,...     with the numbers of these columns

The caption below a table names machine, versions and date once and links to the file.
tests/test_docs.py fails when a page has another table. For a missing file the table is the line
"Not measured yet."
"""

import csv
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs"
MARKED = re.compile(r"(<!-- csv: (?P<words>[^>]*?) -->\n).*?(<!-- /csv -->)", re.DOTALL)
OPTIONS = ("where", "spread", "values")
MACHINE = ("device", "machine", "card")
VERSIONS = ("versions", "keras", "tensorflow", "torch", "openvino")
CAPTION = (*MACHINE, *VERSIONS, "date")

Row = dict[str, str]


def with_tables(page: str) -> str:
    """Return the text of a page with its tables replaced by those of the files."""
    return MARKED.sub(
        lambda found: found[1] + _table(*shlex.split(found["words"])) + found[3], page
    )


def _table(name: str, *words: str) -> str:
    """Return a Markdown table with right-aligned numbers, thousands separators and a caption."""
    if not (RESULTS / name).is_file():
        return "Not measured yet.\n"
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    options, columns = _options(words)
    for column, value in (condition.split(":", 1) for condition in options.get("where", [])):
        rows = [row for row in rows if row[column] == value]
    caption = _caption(name, rows)
    if "spread" in options:
        rows = _spread(
            rows, columns, *(options[name][0].split(",") for name in ("spread", "values"))
        )
        columns = list(rows[0])
    columns = columns or [column for column in rows[0] if column not in CAPTION]
    return _markdown(rows, columns) + "\n" + caption


def _options(words: tuple[str, ...]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the values of each option, and the columns."""
    found: dict[str, list[str]] = {}
    for name, equals, value in (word.partition("=") for word in words):
        if equals and name not in OPTIONS:
            raise ValueError(f"Expected one of the options {OPTIONS}. Received: {name!r}")
        if equals:
            found.setdefault(name, []).append(value)
    return found, [word for word in words if "=" not in word]


def _spread(rows: list[Row], keys: list[str], names: list[str], values: list[str]) -> list[Row]:
    """Return one row for each value of `keys`, with a column for each value of `names`."""
    heads = {_head(row, names): None for row in rows}
    spread: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = tuple(row[column] for column in keys)
        start = {f"{value} ({head})": "" for value in values for head in heads}
        target = spread.setdefault(key, dict(zip(keys, key, strict=True)) | start)
        target |= {f"{value} ({_head(row, names)})": row[value] for value in values}
    return list(spread.values())


def _head(row: Row, names: list[str]) -> str:
    """Return what a spread column holds: "TensorFlow, batch 1"."""
    return ", ".join(f"{name} {row[name]}" if row[name].isdigit() else row[name] for name in names)


def _markdown(rows: list[Row], columns: list[str]) -> str:
    numeric = [all(_is_number(row[column]) for row in rows) for column in columns]
    lines = [
        "| " + " | ".join(column.replace("_", " ") for column in columns) + " |",
        "| " + " | ".join("---:" if right else "---" for right in numeric) + " |",
    ]
    lines += ["| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _caption(name: str, rows: list[Row]) -> str:
    """Return one line with the machine, the versions, the date and the file."""
    machine = [text for column in MACHINE for text in _distinct(rows, column)]
    versions = [
        text if column == "versions" else f"{column} {text}"
        for column in VERSIONS
        for text in _distinct(rows, column)
    ]
    facts = [*machine, ", ".join(versions), *_distinct(rows, "date")]
    link = f"[{name}](../benchmarks/results/{name})"
    return "*" + "; ".join([*filter(None, facts), link]) + "*\n"


def _distinct(rows: list[Row], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows if row.get(column)))


def _cell(text: str) -> str:
    return f"{int(text):,}" if text.isdigit() else text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?|", text) is not None


def main() -> None:
    """Rewrite every page that has a table from a file."""
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        if (written := with_tables(page)) != page:
            path.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
