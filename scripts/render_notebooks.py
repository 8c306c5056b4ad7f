"""Run the notebooks and write them with their outputs to docs/notebooks.

    python scripts/render_notebooks.py [NAME ...]

Takes about a minute for each notebook on two CPU cores. tests/test_docs.py fails when a page shows
other code or text than its notebook.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PAGES = ROOT / "docs" / "notebooks"


def main(*names: str) -> None:
    """Run and write the named notebooks, or all."""
    for path in sorted(NOTEBOOKS.glob("*.py")):
        if not names or path.stem in names:
            notebook = jupytext.read(path)
            with TemporaryDirectory() as folder:
                resources = {"metadata": {"path": folder}}
                NotebookClient(notebook, kernel_name="python3", resources=resources).execute()
            write(notebook, path.stem)


def write(notebook: NotebookNode, name: str) -> None:
    """Write a page and its pictures, without what libraries log to standard error."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    exporter = MarkdownExporter(
        preprocessors=["nbconvert.preprocessors.CoalesceStreamsPreprocessor"]
    )
    body, resources = exporter.from_notebook_node(
        notebook, {"unique_key": name, "output_files_dir": "."}
    )
    PAGES.mkdir(exist_ok=True)
    for old in PAGES.glob(f"{name}_*.png"):
        old.unlink()
    for file, content in resources["outputs"].items():
        (PAGES / file).write_bytes(content)
    (PAGES / f"{name}.md").write_text(body.strip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
