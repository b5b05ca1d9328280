"""Examples in the documentation are configurations that are taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from director.core.config import parse_config

pytestmark = pytest.mark.unit

HEALTH = Path(__file__).parents[2] / "docs" / "health.md"
SERVER = """
defaults: {interface: eth0}
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: dr
    check: CHECK
    real_servers: {a: {address: 192.0.2.21}}
"""


def _blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", HEALTH.read_text(), re.DOTALL)


def _checks() -> list[str]:
    """Every `check:` that stands on a line of its own, and the one that has several."""
    lines = [line for block in _blocks() for line in block.splitlines()]
    found = [line.removeprefix("check: ") for line in lines if line.startswith("check: {")]
    found += [str(yaml.safe_load(block)["check"]) for block in _blocks() if block.startswith("check:\n")]
    return found


def test_the_page_has_examples() -> None:
    assert len(_checks()) >= 12


@pytest.mark.parametrize("check", _checks())
def test_every_check_that_is_shown_is_taken(check: str) -> None:
    config = parse_config(SERVER.replace("CHECK", check.partition("   #")[0].partition("  #")[0]), "f")
    assert config.virtual_servers[0].real_servers[0].check is not None
