"""The JSON Schema files that editors are given: current, valid, and of one mind with `check`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

import director.cli.root
import l7proxy.cli.main
from tests.l7proxy.test_reference import LEAST

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PROGRAMS = {"director": director.cli.root.cli, "l7proxy": l7proxy.cli.main.cli}
FIRST_KEY = {"director": "virtual_servers", "l7proxy": "upstreams"}


@cache
def _schema(program: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "deploy" / "schemas" / f"{program}.schema.json").read_text())
    return found


def _complaints(program: str, document: object) -> list[str]:
    return [f"{'.'.join(map(str, each.path))}: {each.message}" for each in _validator(program).iter_errors(document)]


@cache
def _validator(program: str) -> Draft202012Validator:
    return Draft202012Validator(_schema(program))


def _examples() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Configurations of the documentation, parts made whole, and of the demonstration."""
    texts = [
        (page.name, block)
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]
    texts += [(file.name, file.read_text()) for file in sorted((ROOT / "director" / "lab" / "demo").glob("*.yaml"))]
    for name, text in texts:
        for program, key in FIRST_KEY.items():
            if re.search(rf"^{key}:$", text, re.MULTILINE) and "# ..." not in text:
                least = yaml.safe_load(LEAST) if program == "l7proxy" else {}
                yield name, program, {**least, **yaml.safe_load(text)}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_file_is_current(program: str) -> None:
    printed = CliRunner().invoke(PROGRAMS[program], ["schema"]).output
    shipped = (ROOT / "deploy" / "schemas" / f"{program}.schema.json").read_text()
    assert printed == shipped, "make schemas mends this"


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_is_a_schema_of_the_dialect_that_it_names(program: str) -> None:
    schema = _schema(program)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["title"] == f"{program}.yaml"
    assert "$id" not in schema  # it is where the editor has found it, and stands on nobody's server


def test_the_documentation_has_examples_of_both() -> None:
    found = {(name, program) for name, program, _ in _examples()}
    assert found >= {("README.md", "director"), ("README.md", "l7proxy")}


@pytest.mark.parametrize(("name", "program", "document"), list(_examples()))
def test_what_the_documentation_shows_is_taken(name: str, program: str, document: dict[str, Any]) -> None:
    assert _complaints(program, document) == [], name


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_key_is_underlined(program: str) -> None:
    document = next(each for name, of, each in _examples() if of == program and name == "README.md")
    assert _complaints(program, document) == []
    key = FIRST_KEY[program]
    assert any("'virtual_server'" in each for each in _complaints(program, {**document, "virtual_server": {}}))
    name = next(iter(document[key]))
    wrong = {**document, key: {name: {**document[key][name], "wieght": 3}}}
    assert any(each.startswith(f"{key}.{name}: ") and "'wieght'" in each for each in _complaints(program, wrong))


@pytest.mark.parametrize("program", PROGRAMS)
def test_patterns_mean_the_same_in_an_editor(program: str) -> None:
    """Editors have JavaScript's expressions: nothing stands in patterns that those of Python have alone."""
    patterns = re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', json.dumps(_schema(program)))
    assert patterns
    for pattern in map(json.loads, patterns):
        assert not re.search(r"\(\?P|\\[AZz]|\(\?[aiLmsux]+\)|\(\?#", pattern), pattern
