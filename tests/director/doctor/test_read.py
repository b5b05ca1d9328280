"""Which program is asked for which rules: what one shows, the other does not show again."""

from __future__ import annotations

from pathlib import Path

import pytest

from director.doctor.packets.read import read
from director.kit.errors import HostError

pytestmark = pytest.mark.unit

CAPTURED = Path(__file__).parent / "captured"
BOTH = """{"nftables": [
 {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "prio": 0, "policy": "drop"}},
 {"chain": {"family": "ip6", "table": "filter", "name": "INPUT", "hook": "input", "prio": 0, "policy": "drop"}}]}"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH; nothing else is found, and nftables has two tables."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("director.doctor.packets.read._PATH", str(tmp_path))
    monkeypatch.setattr("director.host.iptables._SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr("director.host.iptables._has_nf_tables", lambda: True)
    there(monkeypatch, {("ip", "filter"), ("ip6", "filter")})
    return tmp_path


def there(monkeypatch: pytest.MonkeyPatch, tables: set[tuple[str, str]] | None) -> None:
    """The tables that the kernel says it has."""
    frozen = None if tables is None else frozenset(tables)
    monkeypatch.setattr("director.doctor.packets.read.nft_tables", lambda: frozen)


def program(folder: Path, name: str, says: str, code: int = 0) -> None:
    (folder / f"{name}.txt").write_text(says)
    script = folder / name
    script.write_text(f"#!/bin/sh\n/bin/cat {folder}/{name}.txt\nexit {code}\n")
    script.chmod(0o755)


def names(programs: Path, versions: tuple[int, ...] = (4,)) -> list[str]:
    tables, complaints = read(versions, has_nft=True)
    assert complaints == ()
    return sorted(f"{table.origin} {table.name}" for table in tables)


def test_a_table_of_iptables_nft_is_read_once(programs: Path) -> None:
    program(programs, "nft", BOTH)
    assert names(programs) == ["nft ip filter", "nft ip6 filter"]
    program(programs, "iptables-nft-restore", "")
    program(programs, "iptables-nft-save", (CAPTURED / "iptables-docker.txt").read_text())
    assert names(programs) == [*(f"iptables-nft {each}" for each in ("filter", "nat", "raw")), "nft ip6 filter"]
    program(programs, "iptables-nft-save", (CAPTURED / "iptables-incompatible.txt").read_text())
    assert names(programs) == ["nft ip filter", "nft ip6 filter"]


def test_nft_is_missed_only_where_it_alone_could_show_something(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read((4, 6), has_nft=False) == ((), ())
    tables, (complaint,) = read((4,), has_nft=True)
    assert tables == ()
    assert complaint == "nftables has ip filter, ip6 filter, and there is no nft to show it"
    program(programs, "iptables-nft-restore", "")
    program(programs, "iptables-nft-save", (CAPTURED / "iptables-docker.txt").read_text())
    there(monkeypatch, {("ip", "filter"), ("ip", "raw")})
    assert read((4,), has_nft=True)[1] == ()
    there(monkeypatch, None)
    assert read((4,), has_nft=True)[1] == ("nftables has rules, and there is no nft to show them",)


def test_what_fails_is_said(programs: Path) -> None:
    program(programs, "nft", "Error: syntax error", 1)
    assert "exit 1" in read((4,), has_nft=True)[1][0]
    program(programs, "nft", "{}")
    assert "nft --json list ruleset: " in read((4,), has_nft=True)[1][0]
    program(programs, "iptables-nft-restore", "")
    program(programs, "iptables-nft-save", "", 4)
    with pytest.raises(HostError, match="iptables-nft-save: it gave no reason"):
        read((4,), has_nft=True)
