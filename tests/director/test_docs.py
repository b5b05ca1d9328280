"""The pages about the director tell what the director does; their examples are tried in tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

DOCS = Path(__file__).parents[2] / "docs"


def test_every_type_of_check_has_an_example_or_is_named() -> None:
    reference = (DOCS / "configuration.md").read_text()
    types = {
        name
        for row in re.findall(r"^\| `type` \| (.*?) \| required", reference, re.MULTILINE)
        for name in re.findall(r"`([a-z0-9]+)`", row)
    }
    told = (DOCS / "health.md").read_text()
    checks = types - {"webhook", "email", "none"}
    assert len(checks) >= 12
    assert {name for name in checks if name not in told} == set()
