"""Every figure of docs/performance.md says how it was measured, and names a command that gives it again."""

from __future__ import annotations

import re

import pytest

from tests.bench import health, ipvs, l7_figures, tcp
from tests.docs.commandlines import targets
from tests.docs.pages import ROOT

pytestmark = pytest.mark.unit

PAGE = (ROOT / "docs" / "performance.md").read_text()


def _rows() -> list[list[str]]:
    section = PAGE.partition("\n## Figures\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _keys() -> dict[str, set[str]]:
    """By command, the names that its JSON can have."""
    sources = {"make bench-health": health.__file__, "make bench-ipvs": ipvs.__file__}
    found = {}
    for command, file in sources.items():
        with open(file) as source:  # noqa: PTH123
            text = source.read().replace("{prefix}", "")
        found[command] = set(re.findall(r"\"(?:sentinel_)?([a-z0-9_]+)\"", text))
    found["make bench-health"] |= {f"cpu_ratio_{kind}" for kind in ("tcp", "http", "http_kept")}
    found["make bench-health"] |= {
        f"{prefix}failover_{what}_s"
        for prefix in ("", "sentinel_", "keepalived_")
        for what in ("p50", "p99", "last_of_100")
    }
    found["make bench-l7"] = {aim.key for aim in l7_figures.AIMS}
    found["make bench-l7"] |= {f"{row}_{name}_l7proxy" for row in l7_figures.COMPARED for name in l7_figures.MEASURES}
    found["make bench-tcp"] = {f"tcp_{name}_vs_haproxy" for name in tcp.ROWS}
    return found


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row[0])
def test_a_figure_can_be_had_again(row: list[str]) -> None:
    _, found, how, command, keys = row
    assert re.search(r"\d", found)
    assert how
    command = command.strip("`")
    assert command.removeprefix("make ") in targets()[0]
    assert set(re.findall(r"`([^`]+)`", keys)) <= _keys()[command]
    assert f"\n## `{command}`\n" in PAGE


def test_there_are_figures_of_every_benchmark() -> None:
    assert {row[3].strip("`") for row in _rows()} == {
        f"make {name}" for name in targets()[0] if name.startswith("bench-")
    }
