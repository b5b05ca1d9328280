"""Every code is explained to operators, found in a lab, and given by some look."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from director.doctor.finding import Code

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


def texts(*patterns: str) -> str:
    return "\n".join(path.read_text() for pattern in patterns for path in sorted(ROOT.glob(pattern)))


def test_the_documentation_has_a_row_for_each_code_and_no_other() -> None:
    """Where it is found, its cause, what to look at, and what to do."""
    page = texts("docs/doctor.md").partition("\n## Findings\n")[2]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \| (.+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert sorted(row[0] for row in rows) == sorted(code.value for code in Code)
    assert {row[1] for row in rows} <= {"director", "real server", "both"}
    assert all(len(cell) > 8 for row in rows for cell in row[2:])


def test_a_symptom_leads_to_each_code() -> None:
    page = texts("docs/doctor.md").partition("\n## Symptoms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    led = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row[2])}
    assert led == {code.value for code in Code} - {"skipped"}


def test_each_code_is_given_by_a_look() -> None:
    looks = texts("director/doctor/*.py").replace(texts("director/doctor/finding.py"), "")
    assert {code.name for code in Code} == set(re.findall(r"\bCode\.([A-Z_]+)\b", looks))


def test_each_code_has_a_lab_test_that_breaks_it() -> None:
    cases = texts("tests/lab/test_doctor*.py")
    tried = set(re.findall(r"\(Code\.([A-Z_]+),\)", cases))
    tried |= {code.name for code in Code if f'"{code.value}"' in cases}
    assert {code.name for code in Code} == tried
