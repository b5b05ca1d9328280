"""udp, dns, icmp, script and file checks, from YAML to the value that a probe runs from."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from director.kit.checks.base import Route
from director.kit.checks.check import AnyCheckSection, Check, CheckSection, Probe, resolve, timing_findings
from director.kit.checks.dns import DnsProbe, canonical_record
from director.kit.checks.file import FileProbe
from director.kit.checks.icmp import IcmpProbe
from director.kit.checks.placeholders import filled_in
from director.kit.checks.script import ScriptProbe
from director.kit.checks.udp import UdpProbe
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

SECTION: TypeAdapter[AnyCheckSection] = TypeAdapter(CheckSection)
SERVER = Endpoint(ip_address("10.0.0.1"), 5353)
PORTLESS = Endpoint(ip_address("10.0.0.1"), 0)
MINIMAL: dict[str, dict[str, object]] = {
    "udp": {"type": "udp", "send": "x"},
    "dns": {"type": "dns", "name": "a.example"},
    "icmp": {"type": "icmp"},
    "script": {"type": "script", "command": ["/bin/true"]},
    "file": {"type": "file", "path": "/run/x"},
}


def _section(**keys: object) -> AnyCheckSection:
    return SECTION.validate_python(keys)


def _resolved(keys: dict[str, object], *defaults: AnyCheckSection, server: Endpoint = SERVER) -> Check:
    return resolve(_section(**keys), defaults, server)


@pytest.mark.parametrize(
    ("keys", "probe"),
    [
        ({"type": "udp", "send": r"PING\r\n"}, UdpProbe(b"PING\r\n")),
        (
            {"type": "udp", "send": r"\x00", "expect": "^a", "expect_bytes": r"\xff", "silence": "up"},
            UdpProbe(b"\0", "^a", b"\xff", True),
        ),
        ({"type": "dns", "name": "a.example"}, DnsProbe("a.example.")),
        (
            {
                "type": "dns",
                "name": "a.example.",
                "record": "mx",
                "transport": "tcp",
                "recursion": False,
                "expect": {"answer": ["20 b.example", "10 a.example."], "match": "all"},
            },
            DnsProbe("a.example.", "MX", True, False, ("NOERROR",), ("10 a.example.", "20 b.example."), True, True),
        ),
        (
            {"type": "dns", "name": "a.example", "expect": {"rcode": ["refused", "NXDOMAIN"]}},
            DnsProbe("a.example.", rcodes=("NXDOMAIN", "REFUSED"), some=False),
        ),
        ({"type": "icmp"}, IcmpProbe(56)),
        ({"type": "icmp", "size": 1400}, IcmpProbe(1400)),
        ({"type": "script", "command": ["/bin/x", "{port}"], "user": "app"}, ScriptProbe(("/bin/x", "{port}"), "app")),
        ({"type": "file", "path": "/run/{address}", "missing": "keep"}, FileProbe("/run/{address}", "keep")),
    ],
)
def test_every_key_arrives(keys: dict[str, object], probe: Probe) -> None:
    check = _resolved(keys)
    assert check.probe == probe
    assert hash(check) == hash(_resolved(keys))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"type": "udp"}, "Field required"),
        ({"type": "udp", "send": ""}, "it is empty"),
        ({"type": "udp", "send": r"\q"}, "is not an escape"),
        ({"type": "udp", "send": "x", "expect": "("}, "is not a regular expression"),
        ({"type": "udp", "send": "x", "silence": "maybe"}, "'up' or 'down'"),
        ({"type": "dns"}, "Field required"),
        ({"type": "dns", "name": "a..b"}, "'a..b' is not a domain name"),
        ({"type": "dns", "name": "a" * 64}, "is not a domain name"),
        ({"type": "dns", "name": ""}, ""),
        ({"type": "dns", "name": 7}, "7 is not a domain name"),
        ({"type": "dns", "name": "a", "record": "ANY"}, "'ANY' is not a record type"),
        ({"type": "dns", "name": "a", "record": "AXFR"}, "is not a record type"),
        ({"type": "dns", "name": "a", "record": "NONSENSE"}, "is not a record type"),
        ({"type": "dns", "name": "a", "record": "TYPE99999999"}, "is not a record type"),
        ({"type": "dns", "name": "a", "expect": {"rcode": "FINE"}}, "is not a response code"),
        ({"type": "dns", "name": "a", "expect": {"rcode": []}}, "at least 1 item"),
        ({"type": "dns", "name": "a", "expect": {"answer": "999.0.2.1"}}, "is not the data of an A record"),
        ({"type": "dns", "name": "a", "record": "MX", "expect": {"answer": "mail"}}, "is not the data of an MX record"),
        ({"type": "icmp", "port": 80}, "Extra inputs"),
        ({"type": "icmp", "size": 7}, "greater than or equal to 8"),
        ({"type": "icmp", "size": 65508}, "less than or equal to 65507"),
        ({"type": "script", "command": "/bin/true"}, "valid tuple"),
        ({"type": "script", "command": []}, "at least 1 item"),
        ({"type": "script", "command": ["true"]}, "'true' is not an absolute path"),
        ({"type": "script", "command": ["/bin/true"], "source": "10.0.0.1"}, "Extra inputs"),
        ({"type": "file", "path": "run/x"}, "is not an absolute path"),
        ({"type": "file", "path": "/run/x", "missing": "maybe"}, "'up', 'down' or 'keep'"),
    ],
)
def test_what_cannot_work_is_refused(keys: dict[str, object], words: str) -> None:
    if keys.get("name") == "":
        assert _resolved(keys).probe == DnsProbe(".")  # the root, whose servers answer for it
        return
    with pytest.raises(ValidationError, match=words.replace("(", r"\(")):
        _section(**keys)


@pytest.mark.parametrize(
    ("keys", "server", "target"),
    [
        (MINIMAL["udp"], SERVER, SERVER),
        ({**MINIMAL["udp"], "port": 7}, PORTLESS, Endpoint(SERVER.address, 7)),
        (MINIMAL["icmp"], SERVER, PORTLESS),
        (MINIMAL["script"], PORTLESS, PORTLESS),
        (MINIMAL["file"], SERVER, PORTLESS),
        ({"type": "script", "command": ["/bin/x", "{port}"]}, SERVER, SERVER),
        ({"type": "file", "path": "/run/{port}"}, SERVER, SERVER),
    ],
)
def test_target_has_a_port_where_it_is_of_use(keys: dict[str, object], server: Endpoint, target: Endpoint) -> None:
    assert _resolved(keys, server=server).target == target


def test_check_without_a_port_names_none() -> None:
    assert str(_resolved(MINIMAL["icmp"])) == "icmp 10.0.0.1"
    assert str(_resolved(MINIMAL["file"])) == "file /run/x 10.0.0.1"
    assert str(_resolved(MINIMAL["dns"])) == "dns a.example. A 10.0.0.1:5353"


def test_one_look_at_a_file_is_enough_whatever_the_defaults_are() -> None:
    default = _section(type="tcp", rise=4, fall=5, interval="9s")
    timing = _resolved(MINIMAL["file"], default).timing
    assert (timing.rise, timing.fall, timing.interval_s) == (1, 1, 9.0)
    timing = _resolved({**MINIMAL["file"], "rise": 2, "fall": 3}, default).timing
    assert (timing.rise, timing.fall) == (2, 3)
    timing = _resolved(MINIMAL["script"], default).timing
    assert (timing.rise, timing.fall) == (4, 5)


def test_route_is_inherited_by_what_sends_packets() -> None:
    default = _section(type="tcp", source="10.0.0.9", fwmark=7)
    for name, keys in MINIMAL.items():
        routed = name in {"udp", "dns", "icmp"}
        assert _resolved(keys, default).route == (Route(ip_address("10.0.0.9"), 7) if routed else Route())


def test_source_of_the_other_version_is_not_inherited_and_not_to_be_written() -> None:
    server = Endpoint(ip_address("2001:db8::1"), 80)
    default = _section(type="tcp", source="10.0.0.9")
    inherited = _resolved(MINIMAL["udp"], default, server=server)
    assert inherited.route == Route()
    assert list(timing_findings(inherited)) == []
    written = _resolved({**MINIMAL["udp"], "source": "10.0.0.9"}, server=server)
    assert list(timing_findings(written)) == [
        "source 10.0.0.9 cannot reach 2001:db8::1, which is IPv6: give that a check of its own"
    ]


@given(st.text(max_size=60), st.sampled_from(["A", "MX", "TXT", "SRV", "SOA", "CAA", "TYPE65280"]))
def test_any_text_is_record_data_or_refused(text: str, record: str) -> None:
    try:
        data = canonical_record(record, text)
    except ValueError as error:
        data = ""
        assert "write it as in a zone file" in str(error)  # noqa: PT017 -- both ways are right
    assert not data or canonical_record(record, data) == data


@given(st.text(max_size=80), st.text(max_size=20))
def test_any_name_is_taken_or_refused(name: str, record: str) -> None:
    try:
        section = _section(type="dns", name=name, record=record)
    except ValidationError:
        return
    assert section.probe() == _section(type="dns", name=section.probe().name, record=record).probe()  # type: ignore[union-attr]


@given(st.text(max_size=60))
def test_only_placeholders_are_filled_in(word: str) -> None:
    filled = filled_in(word, SERVER)
    if "{address}" not in word and "{port}" not in word:
        assert filled == word
