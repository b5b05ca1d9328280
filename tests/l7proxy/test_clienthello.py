"""Server names in ClientHellos, however they are cut, and whatever else comes."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.clienthello import LONGEST_BYTES, ClientHelloReader, Hello, NoHello

pytestmark = pytest.mark.unit


def hello_of(name: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """What OpenSSL sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    sent = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return sent.read()


def read(pieces: Sequence[bytes]) -> Hello | NoHello | None:
    reader = ClientHelloReader()
    for piece in pieces:
        found = reader.feed(piece)
        if found is not None:
            return found
    return None


def records(message: bytes, sizes: Sequence[int]) -> bytes:
    """A handshake message in records of these sizes, the last of what is left."""
    made = b""
    for size in [*sizes, len(message)]:
        piece, message = message[:size], message[size:]
        if piece:
            made += b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece
    return made


def vector(size: int, content: bytes) -> bytes:
    return len(content).to_bytes(size, "big") + content


def message(extensions: bytes | None) -> bytes:
    """A ClientHello by hand; None has no extensions, as before TLS 1.2."""
    body = b"\x03\x03" + bytes(32) + vector(1, bytes(32)) + vector(2, b"\x0a\x0a\x13\x01") + vector(1, b"\x00")
    if extensions is not None:
        body += vector(2, extensions)
    return b"\x01" + vector(3, body)


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, content)


def named(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


GREASE = extension(0x1A1A, b"") + extension(0x2A2A, b"\x00")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_name_is_found_in_what_openssl_sends(version: ssl.TLSVersion) -> None:
    assert read([hello_of("Shop.Example.ORG", version)]) == Hello("shop.example.org")
    assert read([hello_of(None, version)]) == Hello(None)


@pytest.mark.parametrize(
    ("extensions", "found"),
    [
        (None, Hello(None)),
        (b"", Hello(None)),
        (GREASE, Hello(None)),
        (GREASE + named(b"a.example") + GREASE, Hello("a.example")),
        (named(b"a.example."), Hello("a.example")),
        (named(b"a.example", kind=7), Hello(None)),
        (named(b"xn--bcher-kva.example"), Hello("xn--bcher-kva.example")),
        (named(), Hello(None)),
        (named(b"a" * 254), Hello("a" * 254)),
        (named(b"a", b"b"), NoHello("a ClientHello with two server names")),
        (named(b"a") + named(b"b"), NoHello("a ClientHello with two lists of server names")),
        (named(b""), NoHello("a ClientHello whose server name is none")),
        (named(b"a\nb"), NoHello("a ClientHello whose server name is none")),
        (named("bücher".encode()), NoHello("a ClientHello whose server name is none")),
        (named(b"a" * 256), NoHello("a ClientHello whose server name is none")),
        (extension(0, b"\x00\x09\x00\x00\x01a"), NoHello("a ClientHello that ends within a field")),
        (b"\x00\x00\x00\x99", NoHello("a ClientHello that ends within a field")),
        (extension(0, b""), NoHello("a ClientHello that ends within a field")),
    ],
)
def test_extensions(extensions: bytes | None, found: Hello | NoHello) -> None:
    assert read([records(message(extensions), [])]) == found


@given(st.lists(st.integers(1, 90), max_size=40), st.lists(st.integers(1, 40), max_size=60))
def test_however_it_is_cut_into_records_and_packets_the_name_is_the_same(
    records_of: list[int], packets_of: list[int]
) -> None:
    stream = records(message(GREASE + named(b"a.example")), records_of)
    pieces, rest = [], stream + b"what follows it"
    for size in packets_of:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert read([*(piece for piece in pieces if piece), rest]) == Hello("a.example")


def test_each_beginning_is_no_answer_yet() -> None:
    stream = hello_of("a.example")
    for end in range(len(stream)):
        assert read([stream[:end]] if end else []) is None
    assert read([stream[at : at + 1] for at in range(len(stream))]) == Hello("a.example")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "no TLS: it begins with 0x47"),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "no TLS: it begins with 0x00"),  # PostgreSQL's SSLRequest
        (b"\x80\x2e\x01\x03\x01\x00\x15", "a ClientHello of SSL 2.0"),
        (b"\x80\x2e\x04", "no TLS: it begins with 0x80"),
        (b"\x16\x02", "no TLS: its version is 2.x"),
        (b"\x16\x03\x01\x00\x00", "a record without content"),
        (b"\x16\x03\x01\xff\xff", "a record of 65535 bytes"),
        (b"\x16\x03\x01\x00\x01\x02", "a handshake message of type 2 in place of a ClientHello"),
        (b"\x16\x03\x01\x00\x01\x01\x15\x03", "a record of type 21 within the ClientHello"),
        (b"\x16\x03\x01\x00\x04\x01\x01\x00\x00", f"a ClientHello of 65536 bytes: at most {LONGEST_BYTES} are read"),
        (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x02\x00", "a ClientHello of version 2.0"),
        (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", "a ClientHello that ends within a field"),
    ],
)
def test_what_is_none_is_told_at_once(data: bytes, reason: str) -> None:
    assert read([data]) == NoHello(reason)
    assert read([data[at : at + 1] for at in range(len(data))]) == NoHello(reason)


def test_what_does_not_come_to_an_end_is_bounded() -> None:
    reader = ClientHelloReader()
    whole = records(b"\x01\x00\x3f\x00" + bytes(LONGEST_BYTES), [1] * LONGEST_BYTES)
    fed = 0
    while (found := reader.feed(whole[fed : fed + 100])) is None:
        fed += 100
    assert isinstance(found, NoHello)
    assert fed <= LONGEST_BYTES


@given(st.binary(max_size=300))
def test_garbage_is_never_a_crash(data: bytes) -> None:
    read([data])
    read([b"\x16\x03\x01" + vector(2, b"\x01" + vector(3, data))] if data else [])


@given(st.integers(0, 600), st.integers(0, 255))
def test_one_wrong_byte_is_never_a_crash(at: int, value: int) -> None:
    stream = bytearray(records(message(GREASE + named(b"a.example")), [9, 50]))
    stream[at % len(stream)] = value
    read([bytes(stream)])
