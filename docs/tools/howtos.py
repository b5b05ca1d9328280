"""Puts every page of docs/howto into the site's menu, for mkdocs.yml names it as a hook.

One rule: a how-to is a file: who adds one has nothing else to write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

BEFORE = "director"
"""The part of the menu that how-tos stand before."""


def on_config(config: Any) -> Any:
    """MkDocs asks this before it reads any page."""
    docs = Path(config["docs_dir"])
    pages = sorted(str(path.relative_to(docs)) for path in docs.glob("howto/*.md"))
    names = [name for part in config["nav"] if isinstance(part, dict) for name in part]
    if pages and BEFORE in names:
        config["nav"].insert(names.index(BEFORE), {"How-tos": pages})
    return config
