"""Reading, writing, remembering and undoing settings, on files that stand in for /proc/sys."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.host import sysctl
from director.host.change import Change
from director.host.sysctl import Key, Remembered, conf
from director.kit.errors import HostError

pytestmark = pytest.mark.unit

IGNORE = conf(4, "all", "arp_ignore")
ANNOUNCE = conf(4, "eth0.100", "arp_announce")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    for key in (IGNORE, ANNOUNCE):
        tmp_path.joinpath(*key).parent.mkdir(parents=True)
        tmp_path.joinpath(*key).write_text("0\n")
    return tmp_path


def set_by_hand(root: Path, key: Key, value: str) -> None:
    root.joinpath(*key).write_text(value + "\n")


def test_write_reports_only_a_difference(root: Path) -> None:
    assert sysctl.write(ANNOUNCE, "2") == Change("sysctl", "net.ipv4.conf.eth0/100.arp_announce", "0", "2")
    assert sysctl.write(ANNOUNCE, "2") is None
    assert sysctl.read(ANNOUNCE) == "2"


def test_missing_setting_reads_as_none_and_cannot_be_written(root: Path) -> None:
    absent = conf(4, "eth7", "arp_ignore")
    assert sysctl.read(absent) is None
    with pytest.raises(HostError, match=r"net\.ipv4\.conf\.eth7\.arp_ignore does not exist"):
        sysctl.write(absent, "1")
    with pytest.raises(HostError, match="does not exist"):
        sysctl.remember({absent: "1"}, ())


def test_undo_restores_in_reverse_order(root: Path) -> None:
    wanted = {IGNORE: "1", ANNOUNCE: "2"}
    entries = sysctl.remember(wanted, ())
    assert len(sysctl.enforce(wanted)) == 2
    assert [change.name for change in sysctl.undo(entries)] == [sysctl.name(ANNOUNCE), sysctl.name(IGNORE)]
    assert (sysctl.read(IGNORE), sysctl.read(ANNOUNCE)) == ("0", "0")
    assert sysctl.undo(entries) == []


def test_remembering_twice_keeps_the_first_value(root: Path) -> None:
    entries = sysctl.remember({IGNORE: "1"}, ())
    sysctl.enforce({IGNORE: "1"})
    assert sysctl.remember({IGNORE: "1"}, entries) == entries == (Remembered(IGNORE, "0", "1"),)


def test_what_was_right_before_us_is_not_remembered(root: Path) -> None:
    set_by_hand(root, IGNORE, "1")
    assert sysctl.remember({IGNORE: "1"}, ()) == ()


def test_undo_leaves_what_someone_else_changed_since(root: Path) -> None:
    entries = sysctl.remember({IGNORE: "1"}, ())
    sysctl.enforce({IGNORE: "1"})
    set_by_hand(root, IGNORE, "2")
    assert sysctl.undo(entries) == []
    assert sysctl.read(IGNORE) == "2"


def test_undo_passes_over_an_interface_that_is_gone(root: Path) -> None:
    assert sysctl.undo([Remembered(conf(4, "eth7", "arp_ignore"), "0", "1")]) == []


PART = st.text("abcz0129._-", min_size=1, max_size=8).filter(lambda part: part.strip(".") == part)


@given(st.lists(PART, min_size=1, max_size=5))
def test_name_round_trips(parts: list[str]) -> None:
    assert sysctl.key_of(sysctl.name(tuple(parts))) == tuple(parts)
