"""The reference of l7proxy.yaml is the schema's, is current, and says what keys are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from l7proxy.cli.main import cli
from l7proxy.core.config import load_config
from l7proxy.core.model import ClientTimeouts, Limits, UpstreamTimeouts

pytestmark = pytest.mark.unit

REFERENCE = Path(__file__).parents[2] / "docs" / "l7proxy-configuration.md"
LEAST = """
listeners: {http: {bind: "0.0.0.0:80"}}
routes: [{upstream: shop}]
upstreams: {shop: {backends: {a: {address: "10.0.1.11:8000"}}}}
"""


def rows_of_the_reference() -> dict[tuple[str, str], list[str]]:
    """Of each section and key: value, default, and what it means."""
    rows = {}
    section = ""
    for line in REFERENCE.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            rows[section, cells[0].strip("`")] = cells[1:]
    return rows


def test_the_reference_is_current() -> None:
    printed = CliRunner().invoke(cli, ["schema", "--markdown"]).output
    assert printed == REFERENCE.read_text(), "l7proxy schema --markdown > docs/l7proxy-configuration.md mends this"


def test_every_link_of_the_reference_has_its_section() -> None:
    text = REFERENCE.read_text()
    sections = {name.replace(" ", "-") for name in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\(#([a-z-]+)\)", text)) <= sections


def test_the_schema_is_json_for_editors() -> None:
    schema = json.loads(CliRunner().invoke(cli, ["schema"]).output)
    assert schema["additionalProperties"] is False
    assert {"listeners", "upstreams"} == set(schema["required"])


@pytest.mark.parametrize(("section", "key"), [("listener", "bind"), ("listener", "trusted_proxies"), ("match", "host")])
def test_one_stands_for_a_list_of_one_also_in_an_editor(section: str, key: str) -> None:
    assert rows_of_the_reference()[section, key][0] == "text or list of text"


@pytest.mark.parametrize("section", ["listener", "upstream", "backend"])
def test_names_lead_to_what_they_name(section: str) -> None:
    values = [cells[0] for cells in rows_of_the_reference().values()]
    article = "an" if section[0] in "aeiou" else "a"
    assert f"names, each with {article} [{section}](#{section})" in values


def test_a_name_is_no_duration() -> None:
    rows = rows_of_the_reference()
    assert rows["the file", "name"][0] == rows["route", "name"][0] == "text"
    assert rows["client timeouts", "head"][0].startswith("duration")


def test_defaults_are_those_that_a_file_without_them_gets() -> None:
    config = load_config(LEAST, "f")
    rows = rows_of_the_reference()

    def default(section: str, key: str) -> str:
        return rows[section, key][1].strip("`")

    assert (config.timeouts, config.limits) == (ClientTimeouts(), Limits())
    assert config.upstreams["shop"].timeouts == UpstreamTimeouts()
    assert [default("client timeouts", key) for key in ("head", "idle", "keepalive", "tunnel", "drain", "notice")] == [
        "10s", "30s", "30s", "1h", "30s", "",
    ]  # fmt: skip
    assert [default("upstream timeouts", key) for key in ("connect", "response", "idle", "keepalive")] == [
        "3s", "30s", "1m", "4s",
    ]  # fmt: skip
    limits = ("connections", "request_line", "headers", "head_bytes", "body", "body_rate")
    assert [default("limits", key) for key in limits] == ["10000", "8192", "100", "32768", "", "256"]
