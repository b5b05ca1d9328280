"""What of a file the doctor looks at: every address and port by itself, and what the file keeps in the table."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from director.core.config import parse_config
from director.doctor.situation import Situation, of_config, of_vips

pytestmark = pytest.mark.unit

FILE = """
defaults: {interface: eth0}
virtual_servers:
  web:
    address: 192.0.2.10
    port: [80, 443]
    forward: nat
    real_servers:
      a: {address: 10.0.0.21, port: 8080}
      b: {address: 10.0.0.22, state: disabled}
"""


def read(text: str) -> Situation:
    return of_config(parse_config(text, "f"), "f")


def test_each_address_and_port_is_one_of_its_own() -> None:
    found = read(FILE)
    assert [(each.name, str(each), each.port) for each in found.virtuals] == [
        ("web", "tcp 192.0.2.10:80", 80),
        ("web", "tcp 192.0.2.10:443", 443),
    ]
    assert [[(real.name, real.port) for real in each.reals] for each in found.virtuals] == [[("a", 8080)]] * 2
    assert list(found.keys.values()) == ["web", "web"]
    assert {each.interface for each in found.virtuals} == {"eth0"}


def test_a_real_server_serves_what_names_its_address() -> None:
    found = read(FILE)
    assert [str(each) for each in found.served_by([ip_address("10.0.0.21")])] == [
        "tcp 192.0.2.10:80",
        "tcp 192.0.2.10:443",
    ]
    assert found.served_by([ip_address("10.0.0.22")]) == (), "it is disabled"
    named = of_vips([ip_address("192.0.2.7")], "tun")
    assert named.served_by([]) == named.virtuals
    assert named.virtuals[0].apply_command("f") == "director realserver apply --vip 192.0.2.7 --forward tun"
    assert found.virtuals[0].apply_command("f") == "director realserver apply f"


MARKED = """
virtual_servers:
  marked:
    fwmark: 7
    traffic: [{address: 192.0.2.10, port: [80, 443]}, {address: 192.0.2.11}]
    forward: dr
    real_servers:
      a: {address: 192.0.2.21}
  others:
    fwmark: 8
    forward: dr
    real_servers:
      a: {address: 192.0.2.21}
"""


def test_a_mark_is_looked_at_where_its_traffic_is_known_and_is_an_entry_in_any_case() -> None:
    found = read(MARKED)
    assert [(each.name, str(each.vip), each.port) for each in found.virtuals] == [
        ("marked", "192.0.2.10", 80),
        ("marked", "192.0.2.10", 443),
        ("marked", "192.0.2.11", None),
    ]
    assert [each.reals[0].port for each in found.virtuals] == [80, 443, None]
    assert {str(key): name for key, name in found.keys.items()} == {"fwmark 7": "marked", "fwmark 8": "others"}
