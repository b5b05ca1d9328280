"""From a check's YAML to the value that a probe runs from."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from pydantic import TypeAdapter, ValidationError

from director.kit.checks.base import Timing, Tls, is_name
from director.kit.checks.check import AnyCheckSection, Check, CheckSection, resolve, timing_findings
from director.kit.checks.http import HttpProbe, parse_statuses
from director.kit.checks.tcp import TcpProbe
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

SECTION: TypeAdapter[AnyCheckSection] = TypeAdapter(CheckSection)
SERVER = Endpoint(ip_address("10.0.0.1"), 8080)


def _section(**keys: object) -> AnyCheckSection:
    return SECTION.validate_python(keys)


def test_check_without_more_has_the_defaults() -> None:
    assert resolve(_section(type="tcp"), (), SERVER) == Check(SERVER, TcpProbe(), Timing(2.0, 1.0, 0.5, 2, 3))
    assert resolve(_section(type="http"), (), SERVER).probe == HttpProbe()


def test_every_key_arrives() -> None:
    section = _section(
        type="https",
        path="/h?a=b",
        host="a.example:81",
        server_name="b.example",
        verify=False,
        port=9,
        interval="8s",
        timeout="3s",
        fast_interval="1s",
        rise=4,
        fall=5,
        expect={"status": ["500-503", 200], "body": "x+"},
    )
    assert resolve(section, (), SERVER) == Check(
        Endpoint(SERVER.address, 9),
        HttpProbe(
            tls=Tls(verify=False, server_name="b.example", alpn=("http/1.1",)),
            path="/h?a=b",
            host="a.example:81",
            statuses=((200, 200), (500, 503)),
            body="x+",
        ),
        Timing(8.0, 3.0, 1.0, 4, 5),
    )


def test_what_is_left_out_comes_from_the_nearest_default() -> None:
    near = _section(type="tcp", interval="4s", rise=7)
    far = _section(type="tcp", interval="9s", timeout="5s", port=99)
    found = resolve(_section(type="http", rise=1), (near, far), SERVER)
    assert found.timing == Timing(4.0, 5.0, 1.0, 1, 3)
    assert found.target == SERVER


def test_equal_checks_are_one() -> None:
    first = resolve(_section(type="http", expect={"status": [200, 404]}), (), SERVER)
    second = resolve(_section(type="http", expect={"status": ["404", "200-200"]}), (), SERVER)
    assert len({first, second}) == 1


@pytest.mark.parametrize(("interval", "fast"), [("2s", 0.5), ("100ms", 0.05), ("20ms", 0.02)])
def test_fast_interval_that_is_left_out_is_never_longer_than_the_interval(interval: str, fast: float) -> None:
    check = resolve(_section(type="tcp", interval=interval), (), SERVER)
    assert check.timing.fast_interval_s == fast
    assert list(timing_findings(check)) == []


def test_fast_interval_longer_than_the_interval_is_found() -> None:
    check = resolve(_section(type="tcp", interval="1s", fast_interval="2s"), (), SERVER)
    assert list(timing_findings(check)) == [
        "fast_interval 2s is longer than interval 1s: write a shorter fast_interval"
    ]


@pytest.mark.parametrize(
    "keys",
    [
        {"path": "x"},
        {"path": "/ä"},
        {"path": "/a b"},
        {"path": "/a#b"},
        {"path": "/a\r\nX: y"},
        {"path": ""},
        {"host": ""},
        {"host": "a b"},
        {"host": "a\r\nX: y"},
        {"host": "a:80:80"},
        {"host": "[::1"},
        {"server_name": "a:80"},
        {"server_name": "a..b"},
        {"server_name": "."},
        {"server_name": "a" * 64},
        {"server_name": "-a"},
        {"verify": "no"},
        {"expect": {"status": []}},
        {"expect": {"status": [99]}},
        {"expect": {"status": [600]}},
        {"expect": {"status": "300-200"}},
        {"expect": {"status": True}},
        {"expect": {"status": 200.0}},
        {"expect": {"status": "2\u0660\u0660"}},
        {"expect": {"body": "("}},
        {"expect": {"body": "(?u)x"}},
        {"expect": {"body": "\ud800"}},
        {"rise": 0},
        {"fall": True},
        {"port": 0},
        {"interval": "0s"},
        {"qq": 1},
    ],
)
def test_what_cannot_work_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        _section(type="https", **keys)


@pytest.mark.parametrize("host", ["a", "a.b:80", "10.0.0.1", "10.0.0.1:80", "[2001:db8::1]", "[::1]:80", "a_b.c."])
def test_host_is_a_name_or_an_address_with_or_without_port(host: str) -> None:
    probe = resolve(_section(type="http", host=host), (), SERVER).probe
    assert isinstance(probe, HttpProbe)
    assert probe.host == host


@pytest.mark.parametrize("keys", [{"server_name": "a"}, {"verify": False}])
def test_keys_of_tls_need_https(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"belongs to TLS: use `type: https`, or remove it"):
        _section(type="http", **keys)


def test_statuses_and_names() -> None:
    assert parse_statuses("200-299") == (200, 299)
    assert parse_statuses(204) == (204, 204)
    assert is_name("x" * 63 + ".example.")
    assert not is_name("")
    assert not is_name("a." * 127)


def test_check_reads_as_what_it_does() -> None:
    assert str(resolve(_section(type="tcp"), (), SERVER)) == "tcp 10.0.0.1:8080"
    assert str(resolve(_section(type="https", path="/h"), (), SERVER)) == "https GET /h 10.0.0.1:8080"


@pytest.mark.parametrize("pattern", ["(", "a{1001}", "(?=x)", r"(a)\1", "\ud800"])
def test_pattern_that_cannot_be_matched_in_linear_time_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"is not a regular expression that can be used here: .*RE2 syntax"):
        _section(type="http", expect={"body": pattern})
