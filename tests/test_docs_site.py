"""The site as a reader opens it: from the disk, without a network. Slow: it builds the site."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    return folder


@pytest.mark.slow
def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\"> ]+)", text)
        loaded += re.findall(r"<link[^>]* rel=\"?stylesheet[^>]* href=\"?([^\"> ]+)", text)
        assert [address for address in loaded if "//" in address] == [], page


@pytest.mark.slow
def test_the_changelog_is_a_page(site: Path) -> None:
    assert "Keep a Changelog" in (site / "changelog.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_search_works_on_pages_opened_from_the_disk(site: Path, tmp_path: Path) -> None:
    """A field of the recipes is found: the theme searches what `?q=` says."""
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--dump-dom"),
            f"file://{site}/index.html?q=weight_decay",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    results = done.stdout.partition("md-search-result__list")[2]
    assert re.search(r"href=\"[^\"]*recipes\.html", results)
