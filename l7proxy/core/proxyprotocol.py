"""The PROXY protocol, versions 1 and 2, both ways (HAProxy, doc/proxy-protocol.txt).

One rule: a header is understood whole or the connection is closed. It decides who the client is, so nothing in it is
guessed at, and nothing that is no header passes for the beginning of a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import pack, unpack_from

from director.kit.net import IPAddress
from l7proxy.core.forwarded import plain_address

LONGEST_V1_BYTES = 107
LONGEST_V2_BYTES = 4096
"""With its TLVs. Addresses take at most 232; certificates of clients and names of clouds take the rest."""

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED_BYTES = 16
_LINE = re.compile(
    rb"PROXY (?:TCP4 ([0-9.]{7,15}) ([0-9.]{7,15})|TCP6 ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}))"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)
_ADDRESS_BYTES = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216, 0x32: 216}
"""Families and transports that a stream's header can have: none, TCP4, TCP6, and the two of UNIX."""
_CRC32C = 0x03
_CRC32C_TABLE: list[int] = []


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What the header says, and its length. `source` is None where it names no address: the peer is then the client.

    That is so for LOCAL (a proxy's own check), UNKNOWN, UNSPEC, and UNIX sockets.
    """

    source: str | None
    destination: str | None
    source_port: int
    destination_port: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """No header, or not one to believe; for the log."""

    reason: str


def read_proxy_header(data: bytes) -> ProxyHeader | Malformed | None:
    r"""The header that `data` begins with; None while it may yet become one.

    What can no longer become one is told at once, not when time has run out. LONGEST_V1_BYTES and LONGEST_V2_BYTES
    bound what has to be kept; of longer data, only the beginning is looked at.

    >>> read_proxy_header(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\nGET /")
    ProxyHeader(source='192.0.2.1', destination='192.0.2.2', source_port=4711, destination_port=80, used_bytes=40)
    >>> read_proxy_header(b"PROXY TC"), read_proxy_header(b"GET / HTTP/1.1")
    (None, Malformed(reason='no PROXY header'))
    """
    if data.startswith(_SIGNATURE):
        return _read_v2(data)
    if data.startswith(b"PROXY "):
        return _read_v1(data)
    if _SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        return None
    return Malformed("no PROXY header")


def _read_v1(data: bytes) -> ProxyHeader | Malformed | None:
    newline = data.find(b"\n", 0, LONGEST_V1_BYTES)
    if newline < 0:
        if len(data) >= LONGEST_V1_BYTES:
            return Malformed(f"a PROXY header without an end within {LONGEST_V1_BYTES} bytes")
        return None
    end = newline - 1
    if data[end] != 0x0D:
        return Malformed("a PROXY header that ends with a bare LF")
    used = end + 2
    line = data[:end]
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return ProxyHeader(None, None, 0, 0, used)
    match = _LINE.fullmatch(line)
    if match is None:
        return Malformed("a PROXY header that is none of version 1")
    source, destination = (plain_address(text.decode("ascii")) for text in (match[1] or match[3], match[2] or match[4]))
    source_port, destination_port = int(match[5]), int(match[6])
    if source is None or destination is None or (match[3] and not (b":" in match[3] and b":" in match[4])):
        return Malformed("a PROXY header with an address that is none")
    if source_port > 65535 or destination_port > 65535:
        return Malformed("a PROXY header with a port that is none")
    return ProxyHeader(str(source), str(destination), source_port, destination_port, used)


def _read_v2(data: bytes) -> ProxyHeader | Malformed | None:
    if len(data) > 12 and data[12] not in {0x20, 0x21}:
        return Malformed(f"a PROXY header with version and command 0x{data[12]:02x}")
    if len(data) < _FIXED_BYTES:
        return None
    command, family, length = unpack_from("!BBH", data, 12)
    used = _FIXED_BYTES + length
    if used > LONGEST_V2_BYTES:
        return Malformed(f"a PROXY header of {used} bytes: at most {LONGEST_V2_BYTES} are read")
    local = command == 0x20  # whose family and addresses say nothing
    taken = _ADDRESS_BYTES.get(family, 0 if local else None)
    if taken is None:
        return Malformed(f"a PROXY header with family and transport 0x{family:02x}")
    if length < taken:
        if not local:
            return Malformed("a PROXY header too short for its addresses")
        taken = length
    if len(data) < used:
        return None
    # Of UNSPEC and LOCAL nobody knows where TLVs would begin.
    if not local and family and (reason := _wrong_with_tlvs(data[:used], _FIXED_BYTES + taken)):
        return Malformed(reason)
    if local or family not in {0x11, 0x21}:
        return ProxyHeader(None, None, 0, 0, used)
    if family == 0x11:
        source, destination, source_port, destination_port = unpack_from("!4s4sHH", data, _FIXED_BYTES)
    else:
        source, destination, source_port, destination_port = unpack_from("!16s16sHH", data, _FIXED_BYTES)
    return ProxyHeader(_shown(source), _shown(destination), source_port, destination_port, used)


def _shown(packed: bytes) -> str:
    if len(packed) == 4:
        return str(IPv4Address(packed))
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def _wrong_with_tlvs(header: bytes, at: int) -> str:
    """What is; nothing is read of them but a checksum, which covers the whole header (2.2.3)."""
    seen = False
    while at < len(header):
        if len(header) - at < 3:
            return "a PROXY header with a cut TLV"
        kind, length = unpack_from("!BH", header, at)
        at += 3
        if length > len(header) - at:
            return "a PROXY header with a TLV longer than itself"
        if kind == _CRC32C:
            if length != 4 or seen:
                return "a PROXY header with a checksum that is none"
            seen = True
            (told,) = unpack_from("!I", header, at)
            if crc32c(header[:at] + bytes(4) + header[at + 4 :]) != told:
                return "a PROXY header with a wrong checksum"
        at += length
    return ""


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 9260 B), a byte at a time: 7 us for 100 bytes, once a connection.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    table = _CRC32C_TABLE or _made_table()
    value = 0xFFFFFFFF
    for octet in data:
        value = table[(value ^ octet) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _made_table() -> list[int]:
    made = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ 0x82F63B78 if value & 1 else value >> 1  # noqa: PLW2901 -- eight steps on it
        made.append(value)
    _CRC32C_TABLE[:] = made
    return _CRC32C_TABLE


def proxy_header_v1(source: str, source_port: int, destination: str, destination_port: int) -> bytes:
    r"""The line for a connection from `source` to `destination`; ports are 0 to 65535.

    Where only one is IPv6, the other is written as IPv4 in IPv6; where one is no address (a UNIX socket's), all that
    can be said is UNKNOWN.

    >>> proxy_header_v1("2001:db8::1", 4711, "192.0.2.2", 80)
    b'PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 4711 80\r\n'
    """
    pair = _pair(source, destination)
    if pair is None:
        return b"PROXY UNKNOWN\r\n"
    shown = [f"::ffff:{_low(each)}" if each.version == 6 and _low(each) else str(each) for each in pair]
    line = f"PROXY TCP{pair[0].version} {shown[0]} {shown[1]} {source_port} {destination_port}\r\n"
    return line.encode("ascii")


def proxy_header_v2(source: str, source_port: int, destination: str, destination_port: int) -> bytes:
    """The same in version 2; without addresses it is LOCAL."""
    pair = _pair(source, destination)
    if pair is None:
        return _SIGNATURE + b"\x20\x00\x00\x00"
    body = pair[0].packed + pair[1].packed + pack("!HH", source_port, destination_port)
    return _SIGNATURE + pack("!BBH", 0x21, 0x11 if pair[0].version == 4 else 0x21, len(body)) + body


def _pair(source: str, destination: str) -> tuple[IPAddress, IPAddress] | None:
    """Both in one family."""
    one, other = (plain_address(text.partition("%")[0]) for text in (source, destination))
    if one is None or other is None:
        return None
    if one.version != other.version:
        return _as6(one), _as6(other)
    return one, other


def _as6(address: IPAddress) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(b"\x00" * 10 + b"\xff\xff" + address.packed)


def _low(address: IPAddress) -> IPv4Address | None:
    return address.ipv4_mapped if isinstance(address, IPv6Address) else None
