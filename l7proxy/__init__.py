"""The HTTP reverse proxy.

One rule: modules that a C compiler made faster are the same program. They are left aside, and what they were made of
runs, where L7PROXY_PURE=1 asks for it, and in a source tree in which something changed after they were made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path


class _SourceFinder:
    """Finds what is below this package as source, or not at all."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        for directory in path or ():
            spec = FileFinder(directory, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name)
            if spec is not None:
                return spec
        raise ModuleNotFoundError(f"no module named {name!r} in Python", name=name)


def _compiled_in(package: Path) -> str:
    """Whether compiled modules are used, in a word for the log."""
    made = list(package.rglob("*" + EXTENSION_SUFFIXES[0]))
    if os.environ.get("L7PROXY_PURE") or not made:
        return "python"
    if (package.parent / "pyproject.toml").exists():
        made_of = {file.with_name(file.name.partition(".")[0] + ".py") for file in made}
        sources = [*(file for file in made_of if file.exists()), *package.rglob("*.py[xd]")]
        if max(file.stat().st_mtime for file in sources) > min(file.stat().st_mtime for file in made):
            return "python: what was compiled is older than its source"
    return "compiled"


CODE = _compiled_in(Path(__file__).parent)
"""What runs: `compiled`, or `python`."""
if CODE != "compiled":
    sys.meta_path.insert(0, _SourceFinder)
