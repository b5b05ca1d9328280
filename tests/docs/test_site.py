"""The site is built without a warning: every page is in its menu, every link and anchor leads somewhere."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tools.howtos import INDEX, index
from tests.docs.pages import ROOT, blocks

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(
        importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: `make setup` brings it"
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, built as `make docs` does."""
    made = tmp_path_factory.mktemp("site")
    built = _build(ROOT / "mkdocs.yml", made)
    assert built.returncode == 0, built.stdout + built.stderr
    return made


def _build(config: Path, into: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(into)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=environment)


def test_every_page_is_built(site: Path) -> None:
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site) for path in site.rglob("*.html")}
    assert sources | {Path("404.html")} == built


def test_every_how_to_is_in_the_menu_and_in_the_index(site: Path) -> None:
    assert index() == INDEX.read_text(), "make references mends this"
    menu = (site / "index.html").read_text()
    for page in (ROOT / "docs" / "howto").glob("*.md"):
        assert f"](howto/{page.name})" in INDEX.read_text()
        assert f'href="howto/{page.stem}.html" class="md-nav__link"' in menu


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """With the project's own settings, on a site of one page."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A\n\n[b](#nowhere)\n")
    text = (ROOT / "mkdocs.yml").read_text()
    text = text.replace("hooks: [", f"hooks: [{ROOT}/")
    text = re.sub(r"^nav:\n(?: .*\n)+", "nav: [index.md]\n", text, flags=re.MULTILINE)
    (tmp_path / "mkdocs.yml").write_text(text)
    built = _build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert built.returncode != 0
    assert "#nowhere" in built.stdout + built.stderr


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r"<(?:script|img|iframe|source)[^>]+src=\"?(?:https?:)?//|<link[^>]+href=\"?(?:https?:)?//")
    assert {path.name: found for path in site.rglob("*.html") if (found := loaded.findall(path.read_text()))} == {}
    sheets = re.compile(r"(?:url\(|@import )[\"']?(?:https?:)?//")
    assert {path.name: found for path in site.rglob("*.css") if (found := sheets.findall(path.read_text()))} == {}


def test_the_search_index_has_every_page(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {str(path.relative_to(site)) for path in site.rglob("*.html")} - {"404.html"} <= found
    assert any("vip-answered" in entry["text"] for entry in index["docs"])


def test_every_block_is_drawn_as_one(site: Path) -> None:
    """Two readers of Markdown do not agree on what is inside a list."""
    wanted: dict[str, int] = {}
    for block in blocks():
        if block.page.startswith("docs/"):
            page = Path(block.page).relative_to("docs").with_suffix(".html")
            wanted[str(page)] = wanted.get(str(page), 0) + 1
    assert {page: (site / page).read_text().count('class="highlight"') for page in wanted} == wanted
    for page in site.rglob("*.html"):
        text = re.sub(r"<(code|pre)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)
        assert "```" not in text, page.name
        assert not re.search(r"^\|.*\|$", html.unescape(text), re.MULTILINE), f"{page.name} has a table that is none"
