"""The PROXY protocol, as it is received and sent."""

from __future__ import annotations

import struct
import time
from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.proxyprotocol import (
    LONGEST_V1_BYTES,
    LONGEST_V2_BYTES,
    Malformed,
    ProxyHeader,
    crc32c,
    proxy_header_v1,
    proxy_header_v2,
    read_proxy_header,
)

pytestmark = pytest.mark.unit

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TCP4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 4711, 80)
TCP6 = IPv6Address("2001:db8::1").packed + IPv6Address("::ffff:192.0.2.2").packed + struct.pack("!HH", 1, 65535)
UNIX = b"/tmp/a".ljust(108, b"\0") + b"/tmp/b".ljust(108, b"\0")


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def checked(body: bytes, after: bytes = b"", spoil: int = 0) -> bytes:
    """A header whose TLVs hold its checksum, before `after`."""
    blank = v2(0x21, 0x11, body + tlv(3, bytes(4)) + after)
    at = len(blank) - len(after) - 4
    return blank[:at] + struct.pack("!I", crc32c(blank) ^ spoil) + blank[at + 4 :]


Said = tuple[str | None, str | None, int, int]

V4: Said = ("192.0.2.1", "192.0.2.2", 4711, 80)
NOBODY: Said = (None, None, 0, 0)

VALID: list[tuple[bytes, Said]] = [
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n", V4),
    (b"PROXY TCP4 255.255.255.255 0.0.0.0 0 65535\r\n", ("255.255.255.255", "0.0.0.0", 0, 65535)),
    (b"PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", ("2001:db8::1", "::1", 1, 2)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", ("192.0.2.1", "::1", 1, 2)),
    (
        b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n",
        (":".join(["ffff"] * 8), ":".join(["ffff"] * 8), 65535, 65535),
    ),
    (b"PROXY UNKNOWN\r\n", NOBODY),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", NOBODY),
    (v2(0x21, 0x11, TCP4), V4),
    (v2(0x21, 0x21, TCP6), ("2001:db8::1", "192.0.2.2", 1, 65535)),
    (v2(0x21, 0x11, TCP4 + tlv(2, b"a.example") + tlv(4, b"") + tlv(0xE0, bytes(500))), V4),
    (v2(0x21, 0x11, TCP4 + tlv(4, bytes(LONGEST_V2_BYTES - 16 - 12 - 3))), V4),
    (checked(TCP4), V4),
    (checked(TCP4 + tlv(1, b"h2"), tlv(4, b"\0\0")), V4),
    (v2(0x21, 0x31, UNIX), NOBODY),
    (v2(0x21, 0x32, UNIX + tlv(4, b"x")), NOBODY),
    (v2(0x21, 0x00, b""), NOBODY),
    (v2(0x21, 0x00, b"anything"), NOBODY),
    (v2(0x20, 0x00, b""), NOBODY),
    (v2(0x20, 0x11, TCP4), NOBODY),
    (v2(0x20, 0x11, b"short"), NOBODY),
    (v2(0x20, 0x77, b"?"), NOBODY),
]


@pytest.mark.parametrize(("data", "said"), VALID)
def test_a_header_is_read_however_it_is_cut(data: bytes, said: Said) -> None:
    expected = ProxyHeader(*said, len(data))
    assert read_proxy_header(data) == expected
    assert read_proxy_header(data + b"GET / HTTP/1.1\r\n") == expected
    assert {read_proxy_header(data[:cut]) for cut in range(len(data))} == {None}


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"PROXX",
        b"\r\n\r\nG",
        b"\n",
        b"\x16\x03\x01",
        b"proxy TCP4 192.0.2.1 192.0.2.2 4711 80\r\n",
        b"PROXY  TCP4 192.0.2.1 192.0.2.2 4711 80\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\t80\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 4711 80\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 4711 80\r\n",
        b"PROXY TCP4 192.0.2 192.0.2.2 4711 80\r\n",
        b"PROXY TCP4 ::1 ::1 4711 80\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 4711 80\r\n",
        b"PROXY TCP6 ::1 192.0.2.2 4711 80\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 4711 80\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 04711 80\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 -1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 4711 80\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNKNOWN a\nb\r\n",
        b"PROXY \r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY " + b"1" * 101,
        SIGNATURE + b"\x11",
        SIGNATURE + b"\x22",
        SIGNATURE + b"\x31",
        v2(0x21, 0x12, TCP4),
        v2(0x21, 0x22, TCP6),
        v2(0x21, 0x41, TCP4),
        v2(0x21, 0x01, TCP4),
        v2(0x21, 0x10, TCP4),
        v2(0x21, 0x11, TCP4[:-1]),
        v2(0x21, 0x21, TCP6[:-1]),
        v2(0x21, 0x31, UNIX[:-1]),
        v2(0x21, 0x11, b"", LONGEST_V2_BYTES - 15),
        v2(0x20, 0x00, b"", 65535),
        v2(0x21, 0x11, TCP4 + b"\x01"),
        v2(0x21, 0x11, TCP4 + b"\x01\x00"),
        v2(0x21, 0x11, TCP4 + b"\x01\x00\x02x"),
        v2(0x21, 0x11, TCP4 + tlv(3, b"123")),
        checked(TCP4, spoil=1),
        checked(TCP4, tlv(3, bytes(4))),
    ],
)
def test_what_is_no_header_is_refused_at_once(data: bytes) -> None:
    assert isinstance(read_proxy_header(data), Malformed)
    assert isinstance(read_proxy_header(data + b"GET / HTTP/1.1\r\n\r\n" * 10), Malformed)


def test_a_changed_byte_shows_in_the_checksum() -> None:
    data = checked(TCP4 + tlv(2, b"name"))
    for at in range(16, len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert isinstance(read_proxy_header(changed), Malformed) or at == 35, at  # where it says that it is one


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00"])
)
def test_no_bytes_raise_and_more_bytes_change_no_verdict(data: bytes, start: bytes) -> None:
    said = read_proxy_header(start + data)
    if said is not None:
        assert read_proxy_header(start + data + b"\r\n\x00") == said
    if isinstance(said, ProxyHeader):
        assert read_proxy_header((start + data)[: said.used_bytes]) == said
    assert read_proxy_header(start + data + bytes(LONGEST_V2_BYTES)) is not None


@given(st.sampled_from([data for data, _ in VALID]), st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_raises_nothing(data: bytes, at: int, octet: int) -> None:
    at %= len(data)
    said = read_proxy_header(data[:at] + bytes([octet]) + data[at + 1 :])
    assert said is None or isinstance(said, Malformed) or said.used_bytes <= LONGEST_V2_BYTES


ADDRESSES = st.ip_addresses().map(str)
PORTS = st.integers(0, 65535)


@given(ADDRESSES, PORTS, ADDRESSES, PORTS)
def test_what_is_sent_is_received(source: str, source_port: int, destination: str, destination_port: int) -> None:
    one, other = (str(getattr(ip_address(text), "ipv4_mapped", None) or text) for text in (source, destination))
    for make in (proxy_header_v1, proxy_header_v2):
        data = make(source, source_port, destination, destination_port)
        assert len(data) <= LONGEST_V1_BYTES
        assert read_proxy_header(data) == ProxyHeader(one, other, source_port, destination_port, len(data))


def test_what_is_sent_is_what_the_specification_shows() -> None:
    assert proxy_header_v1("192.0.2.1", 4711, "192.0.2.2", 80) == b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n"
    assert proxy_header_v2("192.0.2.1", 4711, "192.0.2.2", 80) == v2(0x21, 0x11, TCP4)
    assert proxy_header_v2("2001:db8::1", 1, "192.0.2.2", 65535) == v2(0x21, 0x21, TCP6)


@given(st.text(max_size=20), st.text(max_size=20))
def test_what_is_no_address_is_told_as_nobody(source: str, destination: str) -> None:
    assert proxy_header_v1("x" + source, 1, destination, 2) == b"PROXY UNKNOWN\r\n"
    assert proxy_header_v2(source, 1, "x" + destination, 2) == v2(0x20, 0x00, b"")


@pytest.mark.parametrize(
    "data", [b"PROXY " * 5000, v2(0x21, 0x11, TCP4 + tlv(4, b"") * 1356), checked(TCP4 + tlv(4, b"") * 1350)]
)
def test_no_header_is_slow(data: bytes) -> None:
    started_at = time.process_time()
    for _ in range(100):
        assert read_proxy_header(data) is not None
    assert time.process_time() - started_at < 1.0
