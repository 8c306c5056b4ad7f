"""The documentation: tables match the result files, links resolve, the citation has the version.

`mkdocs build --strict` in .ci/run checks links within the site; these tests check the rest.
"""

import re
import sys
from pathlib import Path

import pytest

import keras_inception

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
MOST_COLUMNS = 8
sys.path.insert(0, str(ROOT / "scripts"))
import csv_tables  # noqa: E402 - scripts is not a package

sys.path.pop(0)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_tables_match_the_result_files(page):
    text = page.read_text(encoding="utf-8")
    assert csv_tables.with_tables(text) == text, "run: python scripts/csv_tables.py"


def test_a_table_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_tables, "RESULTS", tmp_path)
    (tmp_path / "a.csv").write_text("name,macs_a,share\nx,12000,0.5\ny,7,\n")
    page = "# A\n\n<!-- csv: a.csv name macs_a -->\nold\n<!-- /csv -->\nend\n"
    assert csv_tables.with_tables(page) == (
        "# A\n\n<!-- csv: a.csv name macs_a -->\n"
        "| name | macs a |\n| --- | ---: |\n| x | 12,000 |\n| y | 7 |\n\n"
        "*[a.csv](../benchmarks/results/a.csv)*\n<!-- /csv -->\nend\n"
    )
    whole = csv_tables.with_tables("<!-- csv: a.csv -->\n<!-- /csv -->")
    assert "| x | 12,000 | 0.5 |\n| y | 7 |  |\n" in whole
    missing = csv_tables.with_tables("<!-- csv: b.csv -->\n<!-- /csv -->")
    assert missing == "<!-- csv: b.csv -->\nNot measured yet.\n<!-- /csv -->"


def test_rows_columns_and_caption_of_a_table_by_hand(tmp_path, monkeypatch):
    """`where` selects rows, `spread` makes columns, and the machine is named once."""
    monkeypatch.setattr(csv_tables, "RESULTS", tmp_path)
    (tmp_path / "a.csv").write_text(
        "kind,network,batch,ms,device,keras,date\n"
        'a b,x,1,2.0,"CPU, 2 cores",3.15,2026-11-24\n'
        'a b,x,16,0.5,"CPU, 2 cores",3.15,2026-11-25\n'
        'a b,y,16,0.7,"CPU, 2 cores",3.15,2026-11-25\n'
        "other,z,1,9.9,GPU,3.15,2026-11-25\n"
    )
    words = 'a.csv "where=kind:a b" network spread=batch values=ms'
    assert csv_tables.with_tables(f"<!-- csv: {words} -->\n<!-- /csv -->") == (
        f"<!-- csv: {words} -->\n"
        "| network | ms (batch 1) | ms (batch 16) |\n| --- | ---: | ---: |\n"
        "| x | 2.0 | 0.5 |\n| y |  | 0.7 |\n\n"
        "*CPU, 2 cores; keras 3.15; 2026-11-24; 2026-11-25; "
        "[a.csv](../benchmarks/results/a.csv)*\n<!-- /csv -->"
    )
    with pytest.raises(ValueError, match="Received: 'were'"):
        csv_tables.with_tables("<!-- csv: a.csv were=kind:x -->\n<!-- /csv -->")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_table_is_wider_than_a_page(page):
    """Eight columns: the comparison with six other libraries has as many."""
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    assert [row for row in rows if row.count(" | ") >= MOST_COLUMNS] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
def test_linked_files_exist(page):
    """Includes links from docs/ to tests and notebooks, and images."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    local = [target for target in targets if not target.startswith(("http", "#"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_tests_named_in_the_pages_exist():
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py"))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in tests} == set()


def test_the_citation_has_the_current_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {keras_inception.__version__}\n" in citation
