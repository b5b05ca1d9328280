"""The pages of the documentation, and the fenced blocks in them.

One rule: a page that somebody adds is walked without being named anywhere.

What a block is says its info string; where that is not enough, a comment on the line before it, which no reader sees:
`<!-- example: ansible-vars -->`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<info>[^`]*)$")
_COMMENT = re.compile(r"^ *<!-- example: (?P<kind>.+?) -->$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: `language` is the first word of its info string, `kind` what the comment before it says."""

    page: str
    line: int
    language: str
    kind: str
    text: str

    @property
    def where(self) -> str:
        """As editors take it."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """All pages that people read, by name."""
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found += [*(ROOT / "deploy").rglob("README.md"), *(ROOT / "vagrant").glob("*.md")]
    return sorted(path for path in found if path.exists())


def blocks_of(text: str, page: str) -> Iterator[Block]:
    """The fenced blocks of a page's text.

    Raises: ValueError where a fence is not closed.
    """
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        if opened is None:
            at += 1
            continue
        before = _COMMENT.match(lines[at - 1]) if at else None
        ends = (
            line
            for line in range(at + 1, len(lines))
            if lines[line].strip().startswith(opened["fence"]) and not lines[line].strip().strip(opened["fence"][0])
        )
        end = next(ends, None)
        if end is None:
            raise ValueError(f"{page}:{at + 1}: this block has no end")
        held = "\n".join(lines[at + 1 : end]) + "\n"
        language = (opened["info"].split() or [""])[0]
        yield Block(page, at + 2, language, before["kind"] if before else "", textwrap.dedent(held))
        at = end + 1


def blocks() -> list[Block]:
    """Those of all pages."""
    return [block for page in pages() for block in blocks_of(page.read_text(), str(page.relative_to(ROOT)))]


def without_blocks(text: str) -> str:
    """The same page without its fenced blocks."""
    return re.sub(r"^( *)(`{3,}).*?^\1\2$", "", text, flags=re.MULTILINE | re.DOTALL)
