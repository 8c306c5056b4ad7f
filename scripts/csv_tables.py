"""Write the tables of docs/*.md from benchmarks/results/*.csv.

    python scripts/csv_tables.py

Replaces the text between `<!-- csv: NAME.csv COLUMN ... -->` and `<!-- /csv -->` with the named
columns of the file (all columns if none is named). tests/test_docs.py fails when a page has another
table. For a missing file the table is the line "Not measured yet."
"""

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs"
MARKED = re.compile(r"(<!-- csv: (?P<names>[^>]*?) -->\n).*?(<!-- /csv -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """Return the text of a page with its tables replaced by those of the files."""
    return MARKED.sub(lambda found: found[1] + _table(*found["names"].split()) + found[3], page)


def _table(name: str, *columns: str) -> str:
    """Return a Markdown table with right-aligned numbers and thousands separators."""
    if not (RESULTS / name).is_file():
        return "Not measured yet.\n"
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = columns or tuple(rows[0])
    numeric = [all(_is_number(row[column]) for row in rows) for column in chosen]
    lines = [
        "| " + " | ".join(column.replace("_", " ") for column in chosen) + " |",
        "| " + " | ".join("---:" if right else "---" for right in numeric) + " |",
    ]
    lines += ["| " + " | ".join(_cell(row[column]) for column in chosen) + " |" for row in rows]
    return "\n".join(lines) + "\n"


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
