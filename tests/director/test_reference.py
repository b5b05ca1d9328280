"""The reference of director.yaml is the schema's, and is current."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from director.cli.root import cli

pytestmark = pytest.mark.unit

REFERENCE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_reference_is_current() -> None:
    printed = CliRunner().invoke(cli, ["schema", "--markdown"]).output
    assert printed == REFERENCE.read_text(), "director schema --markdown > docs/configuration.md mends this"


def test_every_link_of_the_reference_has_its_section() -> None:
    text = REFERENCE.read_text()
    sections = {name.replace(" ", "-") for name in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\(#([a-z-]+)\)", text)) <= sections


def test_the_schema_is_json_for_editors() -> None:
    schema = json.loads(CliRunner().invoke(cli, ["schema"]).output)
    assert schema["additionalProperties"] is False
    assert {"virtual_servers", "sync", "exclusive"} <= set(schema["properties"])
