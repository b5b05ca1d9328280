"""Who asks: what a client says of itself counts only where it is trusted, and what it says in our name never."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest

from tests.wire.harness import Origin, Running, fields_of, live, running, statuses_of, takes
from tests.wire.verdicts import LEFT_OPEN_S, expect_none, fault_of_answer, no_errors_logged

pytestmark = pytest.mark.unit

TRUSTED = ", trusted_proxies: [127.0.0.0/8, 10.0.0.0/8, '2001:db8::/32']"
ELSEWHERE = ", trusted_proxies: [10.0.0.0/8]"
GET = b"GET / HTTP/1.1\r\nHost: shop.example:81\r\nConnection: close\r\n"
SPOOFS = [
    b"X-Forwarded-For: 192.0.2.66",
    b"x-forwarded-FOR: 192.0.2.66, 127.0.0.1",
    b"X-Forwarded-For: 192.0.2.66\r\nX-Forwarded-For: 192.0.2.66",
    b"X-Forwarded-For:\t192.0.2.66",
    b"X-Forwarded-For:\r\nX-Forwarded-For: 192.0.2.66",
    b"X-Forwarded-Proto: spoofed",
    b"X-Forwarded-Host: spoofed.example",
    b"X-Forwarded-Port: 192",
    b"X-Forwarded-Prefix: /spoofed",
    b"X-Forwarded-Server: spoofed",
    b"X-Real-IP: 192.0.2.66",
    b"X-Real-Ip: 192.0.2.66",
    b"Forwarded: for=192.0.2.66;proto=spoofed;host=spoofed.example",
    b'forwarded: for="[2001:db8::66]"',
    b"X_Forwarded_For: 192.0.2.66",
    b"X_Forwarded-For: 192.0.2.66",
    b"X-Forwarded_Proto: spoofed",
    b"x_real_ip: 192.0.2.66",
]
MARKS = (b"192.0.2.66", b"spoofed", b"2001:db8::66")


def identity_of(head: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """X-Forwarded-For in one list, X-Forwarded-Proto, X-Forwarded-Host."""
    chain = [part.strip() for value in fields_of(head, b"x-forwarded-for") for part in value.split(b",")]
    return chain, fields_of(head, b"x-forwarded-proto"), fields_of(head, b"x-forwarded-host")


PLAIN = ([b"127.0.0.1"], [b"http"], [b"shop.example:81"])


@pytest.mark.parametrize(
    ("listener", "more"),
    [("", ""), (ELSEWHERE, ""), ("", "underscores: forward"), (ELSEWHERE + ", proxy_protocol: true", "")],
    ids=["nobody is trusted", "others are trusted", "underscores pass", "others speak PROXY"],
)
@live
async def test_what_a_stranger_claims_is_replaced(tmp_path: Path, listener: str, more: str) -> None:
    origin, faults = Origin(takes), {}
    async with running(tmp_path, origin, listener=listener, more=more) as proxy:
        for spoof in SPOOFS:
            got = await proxy.send(GET + spoof + b"\r\nX-Last: 1\r\n\r\n", patience_s=LEFT_OPEN_S)
            head = origin.heads[-1] if origin.heads else b""
            if statuses_of(got) != [200] or identity_of(head) != PLAIN or any(mark in head for mark in MARKS):
                faults[spoof.decode()] = f"got {got[:40]!r}, and the backend {head!r}"
            elif b"\r\nX-Last: 1\r\n" not in head or b"\r\nX-Forwarded-Port: 192" in head:
                faults[spoof.decode()] = f"the backend got {head!r}"
    expect_none(faults)


@pytest.mark.parametrize(
    ("lines", "chain", "proto", "host"),
    [
        (b"", [b"127.0.0.1"], b"http", b"shop.example:81"),
        (b"X-Forwarded-For: 192.0.2.7\r\n", [b"192.0.2.7", b"127.0.0.1"], b"http", b"shop.example:81"),
        (
            b"X-Forwarded-For: 192.0.2.7, 10.1.1.1\r\nX-Forwarded-Proto: https\r\n",
            [b"192.0.2.7", b"10.1.1.1", b"127.0.0.1"],
            b"https",
            b"shop.example:81",
        ),
        (
            b"X-Forwarded-For: 192.0.2.7\r\nX: y\r\nx-forwarded-for: 10.1.1.1\r\n",
            [b"192.0.2.7", b"10.1.1.1", b"127.0.0.1"],
            b"http",
            b"shop.example:81",
        ),
        (b"X-Forwarded-Host: front.example\r\n", [b"127.0.0.1"], b"http", b"front.example"),
        (b"X-Forwarded-For: 2001:db9::7\r\n", [b"2001:db9::7", b"127.0.0.1"], b"http", b"shop.example:81"),
    ],
)
@live
async def test_what_a_trusted_proxy_says_is_kept_and_extended(
    tmp_path: Path, lines: bytes, chain: list[bytes], proto: bytes, host: bytes
) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, listener=TRUSTED) as proxy:
        assert statuses_of(await proxy.send(GET + lines + b"\r\n")) == [200]
    assert identity_of(origin.heads[0]) == (chain, [proto], [host])


@live
async def test_forwarded_is_believed_from_a_trusted_proxy(tmp_path: Path) -> None:
    """RFC 7239: as it came and extended, or in the words of X-Forwarded-*."""
    origin = Origin(takes)
    async with running(tmp_path, origin, listener=TRUSTED) as proxy:
        await proxy.send(GET + b'Forwarded: for=192.0.2.43;proto=https, for="[2001:db8::17]:4711"\r\n\r\n')
    head = origin.heads[0]
    assert b"192.0.2.43" in head
    assert b"proto=https" in head or fields_of(head, b"x-forwarded-proto") == [b"https"]


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("203.0.113.6, 198.51.100.7", "198.51.100.7"),
        ("203.0.113.6, 198.51.100.7, 10.0.0.9", "198.51.100.7"),
        ("203.0.113.6, 198.51.100.7, 2001:db8::1, 10.0.0.9", "198.51.100.7"),
        ("203.0.113.6, 2001:db9::7", "2001:db9::7"),
    ],
)
@live
async def test_the_client_is_found_from_right_to_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], chain: str, client: str
) -> None:
    """The first one that nobody trusted vouches for; what stands left of it may be anybody's."""
    async with running(tmp_path, Origin(takes), listener=TRUSTED, access_log="json") as proxy:
        await proxy.send(GET + f"X-Forwarded-For: {chain}\r\n\r\n".encode())
    line = capfd.readouterr().out
    assert client in line
    assert "203.0.113.6" not in line


@live
async def test_names_with_underscores_are_dropped(tmp_path: Path) -> None:
    """CGI reads `_` where `-` was: who may send one may say the other."""
    lines = b"X_A: 1\r\n_: 1\r\nX-B_: 1\r\n_X: 1\r\nContent_Length: 9\r\nTransfer_Encoding: chunked\r\nX-Kept: 1\r\n"
    for underscores in ("", "underscores: drop", "underscores: forward"):
        origin = Origin(takes)
        async with running(tmp_path, origin, more=underscores) as proxy:
            assert statuses_of(await proxy.send(GET + lines + b"\r\n")) == [200]
        names = {line.partition(b":")[0] for line in origin.heads[0].split(b"\r\n")}
        assert b"X-Kept" in names
        kept = {name for name in names if b"_" in name}
        if underscores.endswith("forward"):
            assert kept >= {b"X_A", b"_", b"X-B_", b"_X"}
        else:
            assert kept == set()


@live
async def test_an_answers_underscores_pass(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX_A: 1\r\nContent-Length: 0\r\n\r\n")

    async with running(tmp_path, Origin(answer)) as proxy:
        assert fields_of(await proxy.get(), b"x_a") == [b"1"]


V2 = b"\r\n\r\n\x00\r\nQUIT\n"


def version_2(
    command: int = 0x21,
    family: int = 0x11,
    addresses: bytes | None = None,
    more: bytes = b"",
    length: int | None = None,
) -> bytes:
    """A PROXY header of version 2, of 192.0.2.9:4000 to 10.0.0.1:80 where nothing else is said."""
    if addresses is None:
        addresses = socket.inet_aton("192.0.2.9") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 4000, 80)
    return V2 + bytes([command, family]) + struct.pack("!H", len(addresses) + len(more)) + addresses + more


IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db9::9")
SIX = IPV6 + IPV6 + struct.pack("!HH", 4000, 80)
SPEAKS = ", trusted_proxies: [127.0.0.0/8], proxy_protocol: true"

PROXIED: dict[str, tuple[bytes, bytes]] = {
    "1, IPv4": (b"PROXY TCP4 192.0.2.9 10.0.0.1 4000 80\r\n", b"192.0.2.9"),
    "1, IPv6": (b"PROXY TCP6 2001:db9::9 2001:db8::1 4000 80\r\n", b"2001:db9::9"),
    "1, IPv6 at its longest": (
        b"PROXY TCP6 2001:0db9:0000:0000:0000:0000:0000:0009 2001:0db8:0000:0000:0000:0000:0000:0001 65535 65535\r\n",
        b"2001:db9::9",
    ),
    "1, unknown": (b"PROXY UNKNOWN\r\n", b"127.0.0.1"),
    "1, unknown with more": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", b"127.0.0.1"),
    "2, IPv4": (version_2(), b"192.0.2.9"),
    "2, IPv6": (version_2(family=0x21, addresses=SIX), b"2001:db9::9"),
    "2, with TLVs": (version_2(more=b"\x04\x00\x04abcd" + b"\x05\x00\x02id"), b"192.0.2.9"),
    "2, with a large TLV": (version_2(more=b"\xe0\x08\x00" + b"x" * 2048), b"192.0.2.9"),
    "2, local": (version_2(command=0x20, family=0x00, addresses=b""), b"127.0.0.1"),
    "2, local with addresses": (version_2(command=0x20), b"127.0.0.1"),
    "2, unspecified": (version_2(family=0x00, addresses=b""), b"127.0.0.1"),
}
"""PROXY protocol 2.1 and 2.2, and whose address that is."""


@live
async def test_a_proxy_header_says_who_asks(tmp_path: Path) -> None:
    """In one piece with the request, before it, and octet by octet; for every request of the connection."""
    origin, faults = Origin(takes), {}
    async with running(tmp_path, origin, listener=SPEAKS) as proxy:
        request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.6\r\n\r\n" + GET + b"\r\n"
        for name, (header, client) in PROXIED.items():
            octets = [bytes([octet]) for octet in header[:120]]
            for way, pieces in {
                "in one piece": [header + request],
                "in two": [header, request],
                "cut in its middle": [header[: len(header) // 2], header[len(header) // 2 :] + request],
                "octet by octet": [*octets, header[120:] + request],
            }.items():
                count = len(origin.heads)
                got = await proxy.send(*(piece for piece in pieces if piece), patience_s=LEFT_OPEN_S)
                chains = [identity_of(head)[0] for head in origin.heads[count:]]
                wanted = [[client], [client]]
                if client == b"127.0.0.1":  # which is trusted
                    wanted[0] = [b"203.0.113.6", client]
                if statuses_of(got) != [200, 200] or chains != wanted:
                    faults[f"{name}, {way}"] = f"got {got[:60]!r}, and the backend {chains}"
    expect_none(faults)


@live
async def test_addresses_of_other_families_pass_for_the_peers(tmp_path: Path) -> None:
    """A UNIX socket's, or a datagram's: answered as the peer's, or closed, and never taken for something else."""
    headers = [
        version_2(family=0x31, addresses=b"\0" * 216),
        version_2(family=0x12),
        version_2(family=0x22, addresses=SIX),
    ]
    origin = Origin(takes)
    async with running(tmp_path, origin, listener=SPEAKS) as proxy:
        for header in headers:
            got = await proxy.send(header + GET + b"\r\n", patience_s=LEFT_OPEN_S)
            assert not got.endswith(b"<OPEN>")
    for head in origin.heads:
        assert identity_of(head)[0] in ([b"127.0.0.1"], [b"192.0.2.9"], [b"2001:db9::9"])


NO_PROXY_HEADER: dict[str, bytes] = {
    "none": b"",
    "lower case": b"proxy TCP4 192.0.2.9 10.0.0.1 4000 80\r\n",
    "bare LF": b"PROXY TCP4 192.0.2.9 10.0.0.1 4000 80\n",
    "an unknown family": b"PROXY TCP5 192.0.2.9 10.0.0.1 4000 80\r\n",
    "UDP": b"PROXY UDP4 192.0.2.9 10.0.0.1 4000 80\r\n",
    "no addresses": b"PROXY TCP4\r\n",
    "no ports": b"PROXY TCP4 192.0.2.9 10.0.0.1\r\n",
    "one port": b"PROXY TCP4 192.0.2.9 10.0.0.1 4000\r\n",
    "a word too many": b"PROXY TCP4 192.0.2.9 10.0.0.1 4000 80 x\r\n",
    "two spaces": b"PROXY TCP4  192.0.2.9 10.0.0.1 4000 80\r\n",
    "a name": b"PROXY TCP4 client.example 10.0.0.1 4000 80\r\n",
    "an address out of range": b"PROXY TCP4 192.0.2.256 10.0.0.1 4000 80\r\n",
    "an address of the other family": b"PROXY TCP4 2001:db9::9 2001:db9::1 4000 80\r\n",
    "and the other way round": b"PROXY TCP6 192.0.2.9 10.0.0.1 4000 80\r\n",
    "a port out of range": b"PROXY TCP4 192.0.2.9 10.0.0.1 65536 80\r\n",
    "a negative port": b"PROXY TCP4 192.0.2.9 10.0.0.1 -1 80\r\n",
    "a port in letters": b"PROXY TCP4 192.0.2.9 10.0.0.1 http 80\r\n",
    "a line over 107 octets": b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
    "a line without end": b"PROXY TCP4 " + b"1" * 5000,
    "version 3": version_2(command=0x31),
    "version 1 in binary": version_2(command=0x11),
    "an unknown command": version_2(command=0x22),
    "addresses cut short": version_2(addresses=b"\xc0\x00\x02\x09"),
    "IPv6 that is too short": version_2(family=0x21),
    "a signature that is none": V2[:-1] + b"\r" + version_2()[12:],
}


@live
async def test_what_is_no_proxy_header_closes_the_connection(tmp_path: Path) -> None:
    """PROXY protocol 2: nothing is guessed, so nothing reaches a backend."""
    origin, faults = Origin(takes), {}
    async with running(tmp_path, origin, listener=SPEAKS, more="timeouts: {head: 300ms}") as proxy:
        with no_errors_logged():
            for name, header in NO_PROXY_HEADER.items():
                got = await proxy.send(header + GET + b"\r\n", patience_s=LEFT_OPEN_S)
                refused = not got or got == b"<RST>" or not fault_of_answer(got, [400])
                if not refused or origin.received:
                    faults[name] = f"got {got[:80]!r}, and the backend {bytes(origin.received[:80])!r}"
                    origin.received.clear()
    expect_none(faults)


@live
async def test_a_proxy_header_that_never_ends_is_waited_for_no_longer_than_a_head(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(takes), listener=SPEAKS, more="timeouts: {head: 300ms}") as proxy:
        for piece in (b"PROXY TCP4 192.0.2.9", V2 + b"\x21"):
            got = await proxy.send(piece, patience_s=LEFT_OPEN_S)
            assert not got.endswith(b"<OPEN>")


@live
async def test_a_second_proxy_header_is_no_request(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, listener=SPEAKS) as proxy:
        for header in (PROXIED["1, IPv4"][0], version_2()):
            other = header.replace(b"192.0.2.9", b"192.0.2.8")
            got = await proxy.send(header + other + GET + b"\r\n", patience_s=LEFT_OPEN_S)
            assert not fault_of_answer(got, [400])
            got = await proxy.send(header + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + other + GET + b"\r\n")
            assert statuses_of(got) == [200, 400]
    assert [identity_of(head)[0] for head in origin.heads] == [[b"192.0.2.9"]] * 2


@pytest.mark.parametrize("listener", ["", TRUSTED, ELSEWHERE + ", proxy_protocol: true"])
@live
async def test_a_proxy_header_nobody_asked_for_is_refused(tmp_path: Path, listener: str) -> None:
    """Where the listener does not speak it, or this peer is not trusted to."""
    origin = Origin(takes)
    async with running(tmp_path, origin, listener=listener) as proxy:
        for header in (PROXIED["1, IPv4"][0], version_2()):
            got = await proxy.send(header + GET + b"\r\n", patience_s=LEFT_OPEN_S)
            assert not fault_of_answer(got, [400])
        assert origin.received == b""
        assert statuses_of(await proxy.send(GET + b"\r\n")) == [200]
    assert identity_of(origin.heads[0]) == PLAIN


async def client_seen(proxy: Running, origin: Origin, header: bytes, lines: bytes = b"") -> list[bytes]:
    await proxy.send(header + GET + lines + b"\r\n", patience_s=LEFT_OPEN_S)
    return identity_of(origin.heads[-1])[0]


@live
async def test_trust_is_in_whom_the_proxy_header_names(tmp_path: Path) -> None:
    """A stranger behind a trusted balancer stays a stranger; a trusted proxy behind it is believed."""
    origin = Origin(takes)
    listener = ", trusted_proxies: [127.0.0.0/8, 10.0.0.0/8], proxy_protocol: true"
    spoof = b"X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n"
    async with running(tmp_path, origin, listener=listener) as proxy:
        stranger = b"PROXY TCP4 192.0.2.9 10.0.0.1 4000 80\r\n"
        assert await client_seen(proxy, origin, stranger, spoof) == [b"192.0.2.9"]
        assert fields_of(origin.heads[-1], b"x-forwarded-proto") == [b"http"]
        friend = b"PROXY TCP4 10.0.0.5 10.0.0.1 4000 80\r\n"
        assert await client_seen(proxy, origin, friend, spoof) == [b"198.51.100.7", b"10.0.0.5"]
        assert fields_of(origin.heads[-1], b"x-forwarded-proto") == [b"https"]
