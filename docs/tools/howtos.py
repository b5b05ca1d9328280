"""Puts every page of docs/howto into the site's menu, for mkdocs.yml names it as a hook, and into docs/index.md
(`python -m docs.tools.howtos`).

One rule: a how-to is a file: who adds one has nothing else to write.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
INDEX = DOCS / "index.md"
BEFORE = "director"
"""The part of the menu that how-tos stand before."""
_PLACE = re.compile(r"(<!-- how-tos -->\n)(?:- .*\n)*")


def on_config(config: Any) -> Any:
    """MkDocs asks this before it reads any page."""
    docs = Path(config["docs_dir"])
    pages = [str(path.relative_to(docs)) for path in _pages(docs)]
    names = [name for part in config["nav"] if isinstance(part, dict) for name in part]
    if pages and BEFORE in names:
        config["nav"].insert(names.index(BEFORE), {"How-tos": pages})
    return config


def index() -> str:
    """docs/index.md with a line for each of them, after the comment that says where."""
    lines = [f"- [{_title(page)}]({page.relative_to(DOCS)})\n" for page in _pages(DOCS)]
    return _PLACE.sub(lambda found: found[1] + "".join(lines), INDEX.read_text())


def _pages(docs: Path) -> list[Path]:
    return sorted(docs.glob("howto/*.md"))


def _title(page: Path) -> str:
    found = re.search(r"^# (.+)$", page.read_text(), re.MULTILINE)
    return found[1] if found else page.stem


if __name__ == "__main__":
    INDEX.write_text(index())
