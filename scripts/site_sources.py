"""A MkDocs hook that lets pages link to files of the repository outside docs/.

A page links to `../tests/test_cost.py`, which is correct in the repository. The hook copies each
such file to the site and points the links at the copies. A missing file fails the build.
CHANGELOG.md becomes a page of the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(\.\./(?P<path>[^)#]+)\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the changelog, and a copy of every file that a page links to."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=changelog))
    for page in files.documentation_pages():
        for path in LINK.findall(page.content_string):
            if not (ROOT / path).is_file():
                raise PluginError(
                    f"Expected a file of the repository. Received: {path!r} in {page}"
                )
            if files.get_file_from_path(_copy_of(path)) is None:
                source = str(ROOT / path)
                files.append(File.generated(config, _copy_of(path), abs_src_path=source))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point the links at the copies."""
    return LINK.sub(lambda found: f"]({_copy_of(found['path'])})", markdown)


def _copy_of(path: str) -> str:
    """Return the path of a copy: .txt, so that browsers show it and MkDocs makes no page of it."""
    return f"repository/{path}.txt"
