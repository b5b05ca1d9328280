"""`make audit` tells what was looked up from what was not."""

from __future__ import annotations

import doctest
import json

import pytest

from deploy.package import audit

pytestmark = pytest.mark.unit

GOOD = {"name": "click", "version": "8.5.1", "vulns": []}
BAD = {"name": "aiohttp", "version": "3.0", "vulns": [{"id": "PYSEC-2024-1", "fix_versions": ["3.1"]}]}
SKIPPED = {"name": "uvloop", "skip_reason": "Dependency not found on PyPI"}


def _verdict(*found: object) -> audit.Verdict:
    return audit.verdict(json.dumps({"dependencies": found}), "")


def test_what_is_known_fails_and_is_named() -> None:
    found = _verdict(GOOD, BAD)
    assert found.code == 1
    assert "aiohttp 3.0: PYSEC-2024-1, mended in 3.1" in found.lines
    assert found.lines[-1] == "2 of 2 packages looked up: 1 have known vulnerabilities"


def test_what_was_not_looked_up_is_named() -> None:
    found = _verdict(GOOD, SKIPPED)
    assert found.code == 0
    assert found.lines[0].startswith("not looked up: uvloop: ")
    assert found.lines[-1] == "1 of 2 packages looked up: nothing is known against them"


@pytest.mark.parametrize(("report", "complaint"), [("", "Failed to resolve"), ("[]", ""), ('{"dependencies": []}', "")])
def test_a_look_that_never_was_does_not_pass_for_one(report: str, complaint: str) -> None:
    found = audit.verdict(report, complaint)
    assert found.code == 0
    assert found.lines[0].startswith(audit.UNREACHED)
    assert complaint in found.lines[0]


def test_where_all_are_skipped_nothing_was_audited() -> None:
    assert _verdict(SKIPPED, SKIPPED).lines == [f"{audit.UNREACHED}: of 2 packages none could be looked up"]


def test_the_example_is_true() -> None:
    assert doctest.testmod(audit) == (0, 1)
