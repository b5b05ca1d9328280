"""Who asks, by what trusted proxies say."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core import forwarded
from l7proxy.core.forwarded import Element, TrustedNetworks, client_of, forwarded_element, parse_forwarded

pytestmark = pytest.mark.unit

NETWORKS = tuple(
    ip_network(text) for text in ("10.0.0.0/8", "172.16.5.0/24", "192.0.2.5/32", "2001:db8::/32", "fe80::/10")
)


def client(peer: str, xff: list[bytes] | None = None, forwarded_values: list[bytes] | None = None) -> tuple[str, bool]:
    return client_of(peer, TrustedNetworks(NETWORKS), xff or [], forwarded_values or [])


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.255.0.1", True),
        ("11.0.0.0", False),
        ("172.16.5.255", True),
        ("172.16.6.0", False),
        ("192.0.2.5", True),
        ("192.0.2.4", False),
        ("2001:db8:ffff::1", True),
        ("2001:db9::", False),
        ("::ffff:10.0.0.1", True),
        ("::10.0.0.1", False),
        ("fe80::1%eth0", True),
        ("", False),
        ("unix:", False),
    ],
)
def test_networks_hold_what_they_cover(peer: str, trusted: bool) -> None:
    networks = TrustedNetworks(NETWORKS)
    assert [networks.trust(peer) for _ in range(2)] == [trusted, trusted]


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0"])
def test_a_network_of_everything_is_one_of_its_own_version(text: str) -> None:
    networks = TrustedNetworks([ip_network(text)])
    assert (networks.trust("1.2.3.4"), networks.trust("2001:db8::1")) == (text == "0.0.0.0/0", text == "::/0")


@given(st.ip_addresses(), st.lists(st.tuples(st.ip_addresses(), st.integers(0, 32)), max_size=5))
def test_compiled_networks_answer_as_ipaddress_does(address: object, nets: list[tuple[object, int]]) -> None:
    networks = [ip_network(f"{base}/{bits}", strict=False) for base, bits in nets]
    own = ip_address(str(address))
    mapped = getattr(own, "ipv4_mapped", None)
    expected = any((mapped or own) in network for network in networks)
    assert TrustedNetworks(networks).trust(str(address)) is expected


@pytest.mark.parametrize(
    ("peer", "chain", "expected"),
    [
        ("192.0.2.1", [b"1.1.1.1"], ("192.0.2.1", False)),
        ("10.0.0.1", [], ("10.0.0.1", True)),
        ("10.0.0.1", [b"1.1.1.1"], ("1.1.1.1", True)),
        ("10.0.0.1", [b"6.6.6.6, 1.1.1.1, 10.0.0.2"], ("1.1.1.1", True)),
        ("10.0.0.1", [b"6.6.6.6", b"1.1.1.1", b"10.0.0.2"], ("1.1.1.1", True)),
        ("10.0.0.1", [b"10.0.0.9, 10.0.0.2"], ("10.0.0.9", True)),
        ("10.0.0.1", [b"1.1.1.1, rubbish"], ("10.0.0.1", True)),
        ("10.0.0.1", [b"1.1.1.1, unknown, 10.0.0.2"], ("10.0.0.2", True)),
        ("10.0.0.1", [b""], ("10.0.0.1", True)),
        ("10.0.0.1", [b" , ,1.1.1.1\t, ,"], ("1.1.1.1", True)),
        ("10.0.0.1", [b"1.1.1.1:4711"], ("1.1.1.1", True)),
        ("10.0.0.1", [b"[2001:db9::1]:443, [2001:db8::1]"], ("2001:db9::1", True)),
        ("10.0.0.1", [b"2001:0db9::0001"], ("2001:db9::1", True)),
        ("10.0.0.1", [b"::ffff:1.1.1.1"], ("1.1.1.1", True)),
        ("10.0.0.1", [b"fe80::1%eth0"], ("10.0.0.1", True)),
        ("10.0.0.1", [b"010.0.0.2"], ("10.0.0.1", True)),
        ("10.0.0.1", [b"[1.1.1.1]"], ("10.0.0.1", True)),
        ("10.0.0.1", [b"1.1.1.1:"], ("10.0.0.1", True)),
        ("10.0.0.1", ["\u0661.1.1.1".encode()], ("10.0.0.1", True)),
        ("2001:db8::1", [b"2001:0:0::5"], ("2001::5", True)),
    ],
)
def test_the_client_is_the_last_address_nobody_vouches_for(
    peer: str, chain: list[bytes], expected: tuple[str, bool]
) -> None:
    assert client(peer, chain) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"for=1.1.1.1"], "1.1.1.1"),
        ([b"for=6.6.6.6, for=1.1.1.1;proto=https, for=10.0.0.2"], "1.1.1.1"),
        ([b"for=6.6.6.6", b"for=1.1.1.1"], "1.1.1.1"),
        ([b'For="[2001:db9::17]:4711"'], "2001:db9::17"),
        ([b'for="1.1.1.1:80"'], "1.1.1.1"),
        ([b'for="1.1.1.1:_port"'], "1.1.1.1"),
        ([b'for="\\1.1.1.\\1"'], "1.1.1.1"),
        ([b"for=unknown"], "10.0.0.1"),
        ([b"for=_hidden, for=10.0.0.2"], "10.0.0.2"),
        ([b"for=1.1.1.1, proto=https"], "10.0.0.1"),
        ([b'for=1.1.1.1, for="'], "10.0.0.1"),
        ([b'for=6.6.6.6;x="', b"for=1.1.1.1"], "1.1.1.1"),
        ([b'for=6.6.6.6;x=", for=1.1.1.1;by="[::1]"'], "10.0.0.1"),
        ([b'for="2001:db9::1"'], "10.0.0.1"),
        ([b"for=10.0.0.3," * 40 + b"for=10.0.0.2"], "10.0.0.3"),
    ],
)
def test_forwarded_is_walked_alike(lines: list[bytes], expected: str) -> None:
    assert client("10.0.0.1", None, lines) == (expected, True)
    assert client("192.0.2.1", None, lines) == ("192.0.2.1", False)


def test_the_two_headers_are_never_mixed() -> None:
    assert client("10.0.0.1", [b"1.1.1.1"], [b"for=2.2.2.2"]) == ("1.1.1.1", True)
    assert client("10.0.0.1", [b"10.0.0.2"], [b"for=2.2.2.2"]) == ("10.0.0.2", True)


def test_nobody_is_trusted_where_no_network_is_named() -> None:
    assert client_of("10.0.0.1", TrustedNetworks([]), [b"1.1.1.1"], []) == ("10.0.0.1", False)


def test_a_long_chain_of_trusted_proxies_ends_somewhere() -> None:
    chain = b",".join(b"10.0.0.%d" % n for n in reversed(range(200)))
    assert client("10.0.0.1", [chain]) == ("10.0.0.31", True)


@given(
    st.lists(
        st.sampled_from([b"10.0.0.2", b"1.1.1.1", b"2001:db8::5", b"x", b"[::1]:5", b"", b" 2.2.2.2 "]), max_size=8
    ),
    st.lists(st.integers(0, 8), max_size=3),
)
def test_lines_and_their_joint_list_say_the_same(entries: list[bytes], cuts: list[int]) -> None:
    borders = [0, *sorted(cut for cut in cuts if cut <= len(entries)), len(entries)]
    lines = [b",".join(entries[one:other]) for one, other in pairwise(borders)]
    assert client("10.0.0.1", lines) == client("10.0.0.1", [b", ".join(entries)])


@given(st.text(max_size=20), st.lists(st.binary(max_size=60), max_size=4), st.lists(st.binary(max_size=60), max_size=4))
def test_nothing_that_is_claimed_raises(peer: str, xff: list[bytes], lines: list[bytes]) -> None:
    assert client(peer, xff, lines)[0] == peer  # none of it names an address, by all odds
    assert client("10.0.0.1", xff, lines)[1]


PIECES = [
    b"for=",
    b"by=",
    b"x=",
    b'"',
    b"\\",
    b";",
    b",",
    b" ",
    b"1.1.1.1",
    b"10.0.0.2",
    b"_a",
    b"[::1]",
    b":1",
    b"=",
    b"\xe4",
]


@given(st.lists(st.sampled_from(PIECES), max_size=20))
def test_no_forwarded_line_raises(pieces: list[bytes]) -> None:
    value = b"".join(pieces)
    elements = parse_forwarded(value)
    found, trusted = client("10.0.0.1", None, [value])
    assert trusted
    if elements is None:
        assert found == "10.0.0.1"
    else:  # what was understood is what a reader of the combined list understands
        assert parse_forwarded(value + b", for=9.9.9.9") == [*elements, Element(client=b"9.9.9.9")]


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        (b"", []),
        (b" , ;; ,\t", []),
        (b"FOR=a;By=b;HOST=c;proto=d;secret=e", [Element(b"a", b"b", b"c", b"d")]),
        (b'for=a ; host="b\\"c" ,, proto=d', [Element(b"a", None, b'b"c', None), Element(proto=b"d")]),
        (b'host=""', [Element(host=b"")]),
        (b'host="a;b,c=\xe4"', [Element(host=b"a;b,c=\xe4")]),
    ],
)
def test_forwarded_is_read(value: bytes, elements: list[Element]) -> None:
    assert parse_forwarded(value) == elements


@pytest.mark.parametrize(
    "value",
    [
        b"for",
        b"for=",
        b"=a",
        b"for =a",
        b"for= a",
        b"for=a:80",
        b"for=[::1]",
        b"for=a;for=b",
        b"for=a;FOR=b",
        b"for=a proto=b",
        b'for="a"b',
        b'for="a',
        b'for="a\\',
        b'for="a\\"',
        b'for="a\x00"',
        b'for="a\nb"',
        b'for="\\\r"',
        b"f\xe4r=a",
        b"for=a" * 1000,
        b"for=a," * 1000,
    ],
)
def test_malformed_forwarded_is_none(value: bytes) -> None:
    assert parse_forwarded(value) is None


@pytest.mark.parametrize(
    ("address", "host", "line"),
    [
        ("192.0.2.1", b"shop.example.org", b"for=192.0.2.1;host=shop.example.org;proto=http"),
        ("2001:db8::1", b"a:80", b'for="[2001:db8::1]";host="a:80";proto=http'),
        ("fe80::1%eth0", b"[::1]", b'for="[fe80::1]";host="[::1]";proto=http'),
        ("", b"", b"for=unknown;proto=http"),
        ("unix", b'a"\\', b'for=unknown;host="a\\"\\\\";proto=http'),
        ("192.0.2.1", b"a\r\nb: c", b"for=192.0.2.1;proto=http"),
    ],
)
def test_our_own_element(address: str, host: bytes, line: bytes) -> None:
    assert forwarded_element(address, host, b"http") == line


@given(st.ip_addresses(), st.binary(max_size=30))
def test_our_own_element_is_read_back(address: object, host: bytes) -> None:
    line = forwarded_element(str(address), host, b"https")
    (element,) = parse_forwarded(line) or [Element()]
    assert element.proto == b"https"
    assert element.host in {host, None}
    mapped = getattr(address, "ipv4_mapped", None)
    assert client_of("192.0.2.5", TrustedNetworks([ip_network("192.0.2.5")]), [], [line])[0] == str(mapped or address)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarded, "MOST_KNOWN", 16)
    networks = TrustedNetworks(NETWORKS)
    for index in range(1000):
        assert networks.trust(f"10.0.{index // 256}.{index % 256}")
        assert networks.judge(b"11.0.%d.%d" % divmod(index, 256)) == (f"11.0.{index // 256}.{index % 256}", False)
        assert networks.judge(b"x" * 10 + b"%d" % index) is None
    assert networks.judge(b"1" * 30_000) is None
    assert len(networks._known) <= 16
    assert len(networks._peers) <= 16


@pytest.mark.parametrize("line", [b"10.0.0.2," * 3600, b"," * 32_000, b"1" * 32_000, b'for="' + b"\\a" * 16_000])
def test_no_line_makes_the_walk_slow(line: bytes) -> None:
    networks = TrustedNetworks(NETWORKS)
    started_at = time.process_time()
    for _ in range(100):
        client_of("10.0.0.1", networks, [line], [])
        client_of("10.0.0.1", networks, [], [line])
    assert time.process_time() - started_at < 1.0
