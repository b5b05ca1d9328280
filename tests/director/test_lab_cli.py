"""`director lab` where no kernel is needed.

One rule: no kernel is booted here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from director.cli import exits
from director.cli.lab import lab

pytestmark = pytest.mark.unit


def test_topology_is_shown_as_a_table() -> None:
    result = CliRunner().invoke(lab, ["topology"])
    assert result.exit_code == 0
    rows = [line.split() for line in result.output.splitlines()]
    assert rows[0] == ["HOST", "ROLE", "NETWORK", "IPV4", "IPV6", "MAC", "GATEWAY", "RUNS"]
    assert ["web-1", "backend", "inside", "10.9.1.11", "fd09:1::11", "02:09:01:00:00:11", "director", "nginx"] in rows


def test_topology_of_the_lab_is_taken_by_its_name() -> None:
    result = CliRunner().invoke(lab, ["topology", "--topology", "pair"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines() if " director " in line] == [
        "director-1",
        "director-2",
    ]


def test_bad_topology_is_named_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text("networks: {}\n")
    assert exits.run(lab, "director", ["topology", "--topology", str(file)]) == exits.ERROR
    assert f"{file}:1:" in capsys.readouterr().err


def test_command_is_required() -> None:
    result = CliRunner().invoke(lab, ["run", "client", "--"])
    assert result.exit_code == 2
    assert "COMMAND" in result.output
