"""A hook of MkDocs: pages may link to files of the repository outside docs/.

A page links to `../tests/test_cost.py`, which is right where the repository is read. The site gets
a copy of each such file, and its links point there. A file that is not there ends the build.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(\.\./(?P<path>[^)#]+)\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add a copy of every file that a page links to."""
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
    """Point the links to the copies."""
    return LINK.sub(lambda found: f"]({_copy_of(found['path'])})", markdown)


def _copy_of(path: str) -> str:
    """As text, which browsers show; a name of its own, so that no page is made of it."""
    return f"repository/{path}.txt"
