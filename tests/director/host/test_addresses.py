"""What is said of an interface that this host does not have."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from director.advice import advice
from director.core.config import parse_config
from director.core.vip import Vip
from director.host.addresses import missing

pytestmark = pytest.mark.unit

FILE = """
settings: report
virtual_servers:
  web: {address: [192.0.2.10, 192.0.2.11], port: 80, forward: dr, interface: nosuch0, real_servers: {}}
"""


def test_a_missing_interface_is_one_sentence_that_names_those_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "tunl0"), (3, "eth1")])
    said = missing([Vip(ip_address(f"192.0.2.{last}"), name) for last, name in ((1, "eth0"), (2, "eth0"), (3, "eth1"))])
    assert len(said) == 2
    assert set(said.values()) == {
        "interface eth0 does not exist, and addresses are to be on it: use one of eth1, or make it first"
    }


def test_it_is_advice_once() -> None:
    found = [sentence for sentence in advice(parse_config(FILE, "f")) if "nosuch0" in sentence]
    assert len(found) == 1
    assert found[0].startswith("interface nosuch0 does not exist, and addresses are to be on it: ")


def test_a_host_with_nothing_but_lo_is_told_to_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo")])
    said = missing([Vip(ip_address("192.0.2.1"), "eth0")])
    assert [*said.values()] == ["interface eth0 does not exist, and addresses are to be on it: make it first"]
