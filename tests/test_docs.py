"""The documentation: tables match the result files, links resolve, the citation has the version.

`mkdocs build --strict` in .ci/run checks links within the site; these tests check the rest.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest
from conftest import RUN_FILES

import keras_inception
from keras_inception.weights.manifest import MANIFEST

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
NOTEBOOK_PAGES = ROOT / "docs" / "notebooks"
MOST_COLUMNS = 8
sys.path.insert(0, str(ROOT / "scripts"))
import csv_tables  # noqa: E402 - scripts is not a package
import reference_tables  # noqa: E402

sys.path.pop(0)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_tables_match_the_result_files(page):
    text = page.read_text(encoding="utf-8")
    assert csv_tables.with_tables(text) == text, "run: python scripts/csv_tables.py"


@pytest.mark.parametrize("page", reference_tables.PAGES, ids=lambda path: path.name)
def test_tables_match_the_package(page):
    text = page.read_text(encoding="utf-8")
    assert reference_tables.with_tables(text) == text, "run: python scripts/reference_tables.py"


def test_each_table_of_the_package_is_shown():
    pages = "".join(page.read_text(encoding="utf-8") for page in reference_tables.PAGES)
    assert set(re.findall(r"<!-- table: (\w+) -->", pages)) == set(reference_tables.TABLES)


def test_published_accuracies_are_those_of_the_weights():
    for entry in MANIFEST:
        if entry.default:
            top_1, top_5 = re.findall(r"[\d.]+", reference_tables.PUBLISHED[entry.variant]) or (
                0,
                0,
            )
            assert (float(top_1), float(top_5)) == (entry.top_1 or 0, entry.top_5 or 0)


def test_a_recipe_field_by_hand():
    """A field with a text of several lines; other values in the three recipes."""
    row = next(line for line in reference_tables.recipe().splitlines() if "`clip_norm`" in line)
    assert row == (
        "| `clip_norm` | 0.0 | 0.0 | 0.0 | largest norm of the gradient of all weights together. "
        "0: no limit. |"
    )
    epochs = next(line for line in reference_tables.recipe().splitlines() if "`epochs`" in line)
    assert epochs.startswith("| `epochs` | 10 | 250 | 30 |")  # quick, paper, modern


def test_every_file_of_a_run_is_in_the_table():
    """`RUN_FILES` is compared with the folders of real runs in test_train.py."""
    page = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    named = {name.rstrip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert named >= RUN_FILES


def texts_of(folder: Path) -> Iterator[str]:
    """Return the strings of all sources; what is inserted into one is shown as "..."."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "..." for part in node.values
                )
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_errors_of_the_troubleshooting_page_exist():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(Expected .*?)` \|", page, re.MULTILINE)
    sources = "\n".join(texts_of(ROOT / "keras_inception")) + "\n".join(texts_of(ROOT / "tuning"))
    assert len(messages) > 20
    for message in messages:
        pattern = ".*?".join(map(re.escape, message.split("...")))
        assert re.search(pattern, sources), message


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem
)
def test_a_rendered_notebook_is_that_of_its_source(path):
    """The same text and code in the same order; `pytest -m slow` runs the notebook itself."""
    page = (NOTEBOOK_PAGES / f"{path.stem}.md").read_text(encoding="utf-8")
    cells = jupytext.read(path).cells
    code = [cell.source.strip() for cell in cells if cell.cell_type == "code"]
    blocks = re.findall(r"```python\n(.*?)\n```", page, re.DOTALL)
    assert blocks == code, f"run: python scripts/render_notebooks.py {path.stem}"
    text = [cell.source.strip() for cell in cells if cell.cell_type == "markdown"]
    assert [part for part in text if part not in page] == []
    shown = set(re.findall(r"!\[png\]\(\./([^)]+)\)", page))
    assert shown == {picture.name for picture in NOTEBOOK_PAGES.glob(f"{path.stem}_*.png")}


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


def test_no_page_installs_from_an_index():
    """There is no release yet: the pages install from a clone."""
    pages = [*PAGES, *ROOT.glob("*.md")]
    found = re.compile(r"pip install[^\n`&]*keras-inception")
    assert [page.name for page in pages if found.search(page.read_text(encoding="utf-8"))] == []


def test_the_citation_has_the_current_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {keras_inception.__version__}\n" in citation


def test_every_test_that_the_documents_of_reliability_name_exists():
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    found = re.findall(
        r"^def (test_\w+)",
        "\n".join(p.read_text() for p in (ROOT / "tests").glob("test_*.py")),
        re.M,
    )
    assert len(named) > 40
    assert named <= set(found)
