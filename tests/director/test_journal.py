"""What an apply found comes back from the disk as it was, also when it is odd."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.before import Before
from director.core.table import (
    Forward,
    Protocol,
    RealRow,
    SchedulerFlags,
    SyncDaemon,
    SyncRole,
    Table,
    Timeouts,
    Tunnel,
    TunnelFlags,
    TunnelKind,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.core.vip import Vip
from director.host.sysctl import Epoch
from director.journal import Entry, Journal
from director.kit.errors import HostError
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

NOW = Epoch("boot", 4026531840)
NOTHING = Before(frozenset(), Table(), frozenset(), frozenset(), frozenset(), frozenset())
ENTRY = Entry("/etc/d.yaml", "text: ä\n", NOTHING, 7, "12:00:00")


def journal(directory: Path, now: Epoch = NOW) -> Journal:
    return Journal(directory, lambda: now)


def test_without_a_file_there_is_no_apply(tmp_path: Path) -> None:
    assert journal(tmp_path / "state").load() is None
    journal(tmp_path).remove()
    assert list(tmp_path.iterdir()) == []


ADDRESSES = st.sampled_from(["192.0.2.1", "fd00::1"]).map(ip_address)
ENDPOINTS = st.builds(Endpoint, ADDRESSES, st.integers(0, 65535))
KEYS = st.builds(VirtualKey, st.sampled_from((4, 6)), st.none(), st.none(), st.integers(1, 2**32 - 1)) | st.builds(
    VirtualKey.of, st.sampled_from(Protocol), ADDRESSES, st.integers(0, 65535)
)
TUNNELS = st.builds(Tunnel, st.sampled_from(TunnelKind), st.integers(0, 9), st.integers(0, 3).map(TunnelFlags))
REALS = st.builds(RealRow, st.sampled_from(Forward), *(st.integers(0, 65535) for _ in range(3)), TUNNELS)
FLAGS = st.integers(0, 7).map(lambda bits: SchedulerFlags(bits << 3))
PREFIXES = st.none() | st.integers(1, 128)
ROWS = st.builds(
    VirtualRow,
    st.sampled_from(["rr", "mh"]),
    FLAGS,
    st.integers(0, 9),
    PREFIXES,
    st.booleans(),
    st.sampled_from(["", "sip"]),
)
TABLES = st.dictionaries(
    KEYS, st.builds(VirtualEntry, ROWS, st.dictionaries(ENDPOINTS, REALS, max_size=3)), max_size=3
).map(Table)
VIPS = st.frozensets(st.builds(Vip, ADDRESSES, st.sampled_from(["eth0", "eth0.7"])), max_size=3)
TIMEOUTS = st.none() | st.builds(Timeouts, *(st.integers(1, 10**6) for _ in range(3)))
SYNC = st.none() | st.frozensets(st.builds(SyncDaemon, st.sampled_from(SyncRole), st.just("eth0")), max_size=2)


@given(TABLES, TIMEOUTS, SYNC, VIPS, VIPS, VIPS)
def test_what_was_saved_is_there_after_a_crash(
    tmp_path_factory: pytest.TempPathFactory,
    table: Table,
    timeouts: Timeouts | None,
    sync: frozenset[SyncDaemon] | None,
    places: frozenset[Vip],
    vips: frozenset[Vip],
    own: frozenset[Vip],
) -> None:
    directory = tmp_path_factory.mktemp("state")
    found = Table(table.entries, timeouts, sync)
    keys = frozenset(table.entries) | {VirtualKey(6, mark=7)}
    entry = Entry("f", "", Before(keys, found, places, vips, frozenset(table.entries), own), 1, "12:00", "12:01")
    journal(directory).save(entry)
    again = journal(directory).load()
    assert again == entry
    assert [list(each.reals) for each in again.before.table.entries.values()] == [
        list(each.reals) for each in table.entries.values()
    ], "the order of insertion too"


@pytest.mark.parametrize("then", [Epoch("another boot", NOW.namespace), Epoch(NOW.boot_id, 1)])
def test_another_boot_or_namespace_has_nothing_to_put_back(tmp_path: Path, then: Epoch) -> None:
    journal(tmp_path).save(ENTRY)
    assert journal(tmp_path, then).load() is None
    journal(tmp_path).remove()
    assert journal(tmp_path).load() is None


@pytest.mark.parametrize("change", ["apply", "boot_id", "keys", "until"])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, change: str) -> None:
    journal(tmp_path).save(ENTRY)
    path = tmp_path / "journal.json"
    content = json.loads(path.read_text())
    (content if change in content else content["apply"]).pop(change)
    path.write_text(json.dumps(content))
    with pytest.raises(HostError, match=r"journal.json cannot be used: .* move it away"):
        journal(tmp_path).load()


def test_it_says_whose_it_is() -> None:
    assert str(ENTRY) == "the apply of /etc/d.yaml by process 7 at 12:00:00"
    entry = Entry("f", "", NOTHING, 7, "12:00:00", "12:01:00")
    assert str(entry) == "the apply of f by process 7 at 12:00:00, to be confirmed until 12:01:00"
