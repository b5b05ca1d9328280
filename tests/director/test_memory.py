"""What is remembered across a death, and what a damaged file does."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.core.table import Protocol, VirtualKey
from director.core.vip import Vip
from director.host.sysctl import Epoch
from director.kit.errors import HostError
from director.memory import Memory, Owned

pytestmark = pytest.mark.unit

NOW = Epoch("boot", 4026531840)
OWNED = Owned(
    frozenset(
        {
            VirtualKey.of(Protocol.TCP, ip_address("192.0.2.10"), 80),
            VirtualKey.of(Protocol.UDP, ip_address("2001:db8::10"), 53),
            VirtualKey(6, mark=7),
        }
    ),
    frozenset({Vip(ip_address("192.0.2.10"), "eth0"), Vip(ip_address("2001:db8::10"), "eth0.7")}),
)


def memory(directory: Path, now: Epoch = NOW) -> Memory:
    return Memory(directory, lambda: now)


def test_nothing_is_remembered_without_a_file_and_asking_makes_none(tmp_path: Path) -> None:
    assert memory(tmp_path / "state").load() == Owned()
    memory(tmp_path / "state").save(Owned())
    assert list(tmp_path.iterdir()) == []


def test_what_was_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    memory(tmp_path).save(OWNED)
    assert memory(tmp_path).load() == OWNED


@pytest.mark.parametrize("then", [Epoch("another boot", NOW.namespace), Epoch(NOW.boot_id, 1)])
def test_another_boot_or_namespace_begins_with_nothing(tmp_path: Path, then: Epoch) -> None:
    memory(tmp_path).save(OWNED)
    assert memory(tmp_path, then).load() == Owned()


def test_what_is_known_is_not_written_again(tmp_path: Path) -> None:
    first = memory(tmp_path)
    first.save(OWNED)
    (tmp_path / "owned.json").unlink()
    first.save(Owned(frozenset(OWNED.virtual_servers), OWNED.vips))
    assert list(tmp_path.iterdir()) == []


GOOD = {"version": 1, "boot_id": "boot", "namespace": 1, "virtual_servers": [], "vips": []}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        json.dumps({**GOOD, "version": 2}),
        json.dumps({"version": 1}),
        json.dumps({**GOOD, "virtual_servers": "tcp 192.0.2.1:80"}),
        json.dumps({**GOOD, "virtual_servers": ["tcp nowhere"]}),
        json.dumps({**GOOD, "vips": [1]}),
        json.dumps({**GOOD, "vips": [{"address": "192.0.2.1"}]}),
        json.dumps({**GOOD, "vips": [{"address": "192.0.2.256", "interface": "eth0"}]}),
        json.dumps({**GOOD, "namespace": "here"}),
    ],
)
def test_a_damaged_file_says_what_to_do_and_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "owned.json"
    path.write_text(content)
    with pytest.raises(HostError, match=rf"mv {path} {path}.bad"):
        memory(tmp_path).load()
    with pytest.raises(HostError, match=r"cannot be used"):
        memory(tmp_path).save(OWNED)
    assert path.read_text() == content
