"""How endpoints are read and written."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.net import Endpoint, IPAddress, parse_endpoint, parse_unicast

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("10.0.0.1:0", "10.0.0.1", 0),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ("[2001:DB8:0:0::1]:1", "2001:db8::1", 1),
        ("[::ffff:10.0.0.1]:1", "::ffff:a00:1", 1),
        ("[fe80::1%eth0.5]:1", "fe80::1%eth0.5", 1),
    ],
)
def test_endpoint_is_address_and_port(text: str, address: str, port: int) -> None:
    assert parse_endpoint(text) == Endpoint(ip_address(address), port)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no port"),
        ("80", "has no port"),
        (":80", "has no address"),
        ("10.0.0.1", "has no port"),
        ("[::1]", "has no port"),
        ("10.0.0.1:", "'' is not a port: use 1 to 65535"),
        ("10.0.0.1:http", "'http' is not a port"),
        ("10.0.0.1:65536", "'65536' is not a port"),
        ("10.0.0.1:-1", "'-1' is not a port"),
        ("10.0.0.1:8_0", "'8_0' is not a port"),
        ("10.0.0.1:\u0668", "'\u0668' is not a port"),
        ("10.0.0.1:80\n", "is not a port"),
        ("10.0.0.1:" + "1" * 5000, "is not a port"),
        ("http://127.0.0.1:28104/", "is a URL: write address:port, without http:// and a path"),
        ("https://[::1]", "is a URL: write address:port, without http:// and a path"),
        ("::1:80", "is ambiguous: write an IPv6 address in brackets"),
        ("2001:db8::1", "is ambiguous: write an IPv6 address in brackets"),
        ("[10.0.0.1]:80", "is not an IP address"),
        ("[]:80", "is not an IP address"),
        ("[::1:80", "is ambiguous"),
        ("web:80", "'web' is not an IP address: use one such as 10.0.0.1"),
        ("010.0.0.1:80", "is not an IP address"),
        (" 10.0.0.1:80", "is not an IP address"),
        ("[fe80::1%a b]:80", "has a zone that is no interface's name"),
        ("[fe80::1%a\nb]:80", "has a zone that is no interface's name"),
    ],
)
def test_what_is_no_endpoint_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- compared below
        parse_endpoint(text)
    assert message in str(caught.value)


ENDPOINTS = st.builds(Endpoint, st.ip_addresses(), st.integers(0, 65535))


@given(ENDPOINTS)
def test_what_is_written_reads_the_same(endpoint: Endpoint) -> None:
    assert parse_endpoint(str(endpoint)) == endpoint


@given(st.text() | st.from_regex(r"\[?[0-9a-f.:%]*\]?:[0-9]*"))
def test_any_text_is_an_endpoint_or_a_value_error(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except ValueError:
        return
    assert parse_endpoint(str(endpoint)) == endpoint


@given(st.lists(ENDPOINTS))
def test_order_is_family_address_port(endpoints: list[Endpoint]) -> None:
    ordered = sorted(endpoints)
    assert [each.address.version for each in ordered] == sorted(each.address.version for each in endpoints)
    for first, second in pairwise(ordered):
        assert first == second or first < second


@given(
    st.text(max_size=20)
    | st.from_regex(r"\A[0-9]{1,4}(\.[0-9]{1,4}){2,4}[ \n]?\Z")
    | st.ip_addresses().map(str)
    | st.sampled_from(
        ["1.2.3.4\0", "1.2.3.04", "0x7f.1", "127.1", "\u0661.2.3.4", " 1.2.3.4", "::ffff:1.2.3.4", "fe80::1%x"]
    )
)
def test_unicast_address_is_read_as_python_reads_it(text: str) -> None:
    def refused(address: IPAddress) -> bool:
        if isinstance(address, IPv6Address) and (address.is_link_local or address.scope_id or address.ipv4_mapped):
            return True
        return address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255"

    try:
        expected = ip_address(text)
    except ValueError:
        expected = None
    if expected is None or refused(expected):
        with pytest.raises(ValueError, match=r"is not an IP address|cannot be used here"):
            parse_unicast(text)
    else:
        assert parse_unicast(text) == expected


@pytest.mark.parametrize("address", ["0.0.0.1", "223.255.255.255", "240.0.0.0", "255.255.255.254", "2001:db8::1"])
def test_bounds_of_unicast(address: str) -> None:
    assert str(parse_unicast(address)) == address


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "224.0.0.0", "239.255.255.255", "255.255.255.255", "::", "ff02::1", "fe80::1"]
)
def test_what_is_no_unicast_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="cannot be used here"):
        parse_unicast(address)
