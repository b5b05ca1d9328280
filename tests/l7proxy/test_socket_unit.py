"""The .socket unit that is written for a configuration."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from l7proxy.cli.main import cli
from tests.deploy.test_units_l7proxy import SOCKET, settings

pytestmark = pytest.mark.unit

REST = """
routes: [{upstream: shop}]
upstreams: {shop: {backends: {a: {address: "10.0.1.11:8000"}}}}
"""


def written(tmp_path: Path, text: str, *words: str) -> list[tuple[str, str]]:
    file = tmp_path / "l7proxy.yaml"
    file.write_text(text + REST)
    unit = tmp_path / "l7proxy.socket"
    unit.write_text(CliRunner().invoke(cli, ["socket-unit", *words, str(file)], catch_exceptions=False).output)
    (tmp_path / "l7proxy.service").write_text("[Service]\nExecStart=/bin/true\n")
    if analyze := shutil.which("systemd-analyze"):
        found = subprocess.run(
            [analyze, "verify", "--man=no", str(unit)], check=False, capture_output=True, text=True, timeout=60
        )
        assert (found.returncode, found.stdout + found.stderr) == (0, "")
    return settings(unit)


def addresses(found: list[tuple[str, str]]) -> list[str]:
    return [value for key, value in found if key == "ListenStream"]


def test_the_unit_that_is_shipped_is_the_one_for_80_and_443(tmp_path: Path) -> None:
    text = 'listeners: {http: {bind: "0.0.0.0:80"}, other: {bind: "0.0.0.0:443"}}'
    assert written(tmp_path, text) == settings(SOCKET)


LISTENERS = """
listeners:
  http: {bind: ["0.0.0.0:80", "[::]:80", "192.0.2.7:81"]}
  high: {bind: "0.0.0.0:8080"}
  mail: {bind: "[2001:db8::1]:25", tcp: {upstream: shop}}
admin: {bind: "127.0.0.1:9180"}
agent: {bind: "127.0.0.1:99"}
"""


def test_ports_below_1024_of_every_listener_family_and_mode(tmp_path: Path) -> None:
    found = written(tmp_path, LISTENERS)
    assert sorted(addresses(found)) == ["0.0.0.0:80", "127.0.0.1:99", "192.0.2.7:81", "[2001:db8::1]:25", "[::]:80"]
    assert ("BindIPv6Only", "ipv6-only") in found
    assert ("FreeBind", "yes") in found, "an address of a host may come after the socket"


def test_all_listeners_but_not_who_only_watches(tmp_path: Path) -> None:
    found = addresses(written(tmp_path, LISTENERS, "--all"))
    assert "0.0.0.0:8080" in found
    assert "127.0.0.1:9180" not in found


def test_nothing_to_write_is_said(tmp_path: Path) -> None:
    file = tmp_path / "l7proxy.yaml"
    file.write_text('listeners: {http: {bind: "0.0.0.0:8080"}}' + REST)
    result = CliRunner().invoke(cli, ["socket-unit", str(file)], standalone_mode=False)
    assert "no listener below port 1024" in str(result.exception)
