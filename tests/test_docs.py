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
        "| name | macs a |\n| --- | ---: |\n| x | 12,000 |\n| y | 7 |\n<!-- /csv -->\nend\n"
    )
    whole = csv_tables.with_tables("<!-- csv: a.csv -->\n<!-- /csv -->")
    assert "| x | 12,000 | 0.5 |\n| y | 7 |  |\n" in whole
    missing = csv_tables.with_tables("<!-- csv: b.csv -->\n<!-- /csv -->")
    assert missing == "<!-- csv: b.csv -->\nNot measured yet.\n<!-- /csv -->"


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
