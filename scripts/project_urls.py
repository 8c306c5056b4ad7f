"""Write the links of the package's metadata, for the repository that builds it.

    python scripts/project_urls.py https://HOST/OWNER/NAME

The release workflow runs it before the build: the sources name no address, so a fork's release
links to the fork.
"""

import sys
from pathlib import Path

PROJECT = Path("pyproject.toml")
TABLE = "[project.scripts]\n"


def with_urls(project: str, repository: str) -> str:
    """Return the text of pyproject.toml with the table of links.

    Args:
        project: text of pyproject.toml.
        repository: address of the repository.

    Raises:
        ValueError: no https address, or links that are there already.
    """
    if not repository.startswith("https://"):
        raise ValueError(f"Expected an https address. Received: {repository!r}")
    if "[project.urls]" in project or project.count(TABLE) != 1:
        raise ValueError(f"Expected one {TABLE.strip()} and no [project.urls] in {PROJECT}.")
    tree = f"{repository}/blob/main"
    links = {
        "Repository": repository,
        "Documentation": f"{tree}/docs/index.md",
        "Changelog": f"{tree}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
    lines = "".join(f'{name} = "{link}"\n' for name, link in links.items())
    return project.replace(TABLE, f"[project.urls]\n{lines}\n{TABLE}")


if __name__ == "__main__":
    PROJECT.write_text(
        with_urls(PROJECT.read_text(encoding="utf-8"), sys.argv[1]), encoding="utf-8"
    )
