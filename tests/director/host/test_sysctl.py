"""Reading, writing, remembering and undoing settings, on files that stand in for /proc/sys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.host import sysctl
from director.host.change import Change
from director.host.sysctl import Key, Remembered, conf
from director.kit.errors import HostError
from director.kit.statefile import Json

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


def test_what_switching_forwarding_on_and_off_would_lose_is_remembered_before_it(root: Path) -> None:
    """What the kernel changes by itself then, is tried in tests/lab/test_host_settings.py."""
    for key, value in [
        (sysctl.IP_FORWARD, "0"),
        (sysctl.ACCEPT_REDIRECTS, "0"),
        (conf(4, "eth0.100", "forwarding"), "1"),
        (conf(4, "default", "forwarding"), "0"),
    ]:
        root.joinpath(*key).parent.mkdir(parents=True, exist_ok=True)
        set_by_hand(root, key, value)
    entries = sysctl.remember({sysctl.IP_FORWARD: "1"}, ())
    assert entries == (
        Remembered(conf(4, "eth0.100", "forwarding"), "1", "1"),
        Remembered(sysctl.ACCEPT_REDIRECTS, "0", "0"),
        Remembered(sysctl.IP_FORWARD, "0", "1"),
    )
    assert [sysctl.swept_by(entry.key) for entry in entries] == [sysctl.IP_FORWARD, sysctl.IP_FORWARD, None]
    set_by_hand(root, sysctl.ACCEPT_REDIRECTS, "1")  # as a host has it
    assert len(sysctl.remember({sysctl.IP_FORWARD: "1"}, ())) == 2


@pytest.mark.parametrize(
    ("key", "sweeper"),
    [
        (conf(4, "all", "forwarding"), sysctl.IP_FORWARD),
        (conf(6, "eth0", "forwarding"), sysctl.IPV6_FORWARDING),
        (sysctl.IPV6_FORWARDING, None),
        (IGNORE, None),
    ],
)
def test_settings_that_another_sweeps_are_known(key: Key, sweeper: Key | None) -> None:
    assert sysctl.swept_by(key) == sweeper


ENTRIES = st.lists(st.builds(Remembered, st.sampled_from([IGNORE, ANNOUNCE]), st.text(), st.text())).map(tuple)


@given(ENTRIES)
def test_remembered_settings_round_trip_through_json(entries: tuple[Remembered, ...]) -> None:
    assert sysctl.from_json(json.loads(json.dumps(sysctl.to_json(entries)))) == entries


@pytest.mark.parametrize("strange", ["net.ipv4.ip_forward", {"name": "net.ipv4.ip_forward", "before": 0, "ours": "1"}])
def test_strange_json_is_refused(strange: str | dict[str, Json]) -> None:
    with pytest.raises(ValueError, match="not a remembered sysctl"):
        sysctl.from_json([strange if isinstance(strange, str) else dict(strange)])


PART = st.text("abcz0129._-", min_size=1, max_size=8).filter(lambda part: part.strip(".") == part)


@given(st.lists(PART, min_size=1, max_size=5))
def test_name_round_trips(parts: list[str]) -> None:
    assert sysctl.key_of(sysctl.name(tuple(parts))) == tuple(parts)
