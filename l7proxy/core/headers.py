"""Which headers go on, in both directions.

One rule: lines that go on keep their bytes, order and duplicates. Lines about one connection never go on, and what
a client says about itself (X-Forwarded-*, Forwarded, X-Real-IP) goes on only when the peer is a trusted proxy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from director.kit.net import IPAddress
from l7proxy.core.head import HOP_BY_HOP, LONGEST_BODY, Fields, RequestHead
from l7proxy.core.model import IPNetwork

VIA_NAME = "l7proxy"
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = frozenset({b"content-length", b"content-type", b"content-encoding", b"set-cookie", b"date", b"location"})
"""What a backend's Connection header cannot take away."""


class BodyFraming(Enum):
    """How the end of an answer's body is told to the client (RFC 9112 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """An answer's lines as they go to the client, without those about the connection, and its framing."""

    status: int
    fields: list[tuple[bytes, bytes]]
    framing: BodyFraming
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks. `client` is the peer's address, or what trusted proxies say; `trusted` is whether they may speak."""

    client: str
    peer: str
    trusted: bool


def is_claim(name: bytes) -> bool:
    """Whether a header (lower case) says where a request came from. `_` counts as `-`: CGI makes them one.

    >>> is_claim(b"x_forwarded_for"), is_claim(b"x-forward")
    (True, False)
    """
    if name[:1] not in {b"x", b"f"}:
        return False
    plain = name.replace(b"_", b"-")
    return plain.startswith(b"x-forwarded-") or plain in {b"forwarded", b"x-real-ip"}


def origin_of(head: RequestHead, peer: str, trusted_proxies: Sequence[IPNetwork]) -> Origin:
    """Who asks: from the right, the first address in X-Forwarded-For that is no trusted proxy."""
    if not trusted_proxies or not _within(peer, trusted_proxies):
        return Origin(peer, peer, trusted=False)
    client = peer
    for entry in reversed(_listed(head, b"x-forwarded-for")):
        address = _address(entry)
        if address is None:
            break
        client = str(address)
        if not any(address in network for network in trusted_proxies):
            break
    return Origin(client, peer, trusted=True)


def forward_request(head: RequestHead, origin: Origin, via: bool, authority: bytes) -> list[tuple[bytes, bytes]]:
    """The header lines for the backend; `authority` is the Host for a client that sent none."""
    host = head.authority or authority
    dropped = head.dropped
    fields = [(b"Host", host)]
    chain: list[bytes] = []
    claimed: set[bytes] = set()
    for name, line in zip(head.names, head.fields, strict=True):
        if name in dropped or name == b"host":
            continue
        if is_claim(name):
            if not origin.trusted:
                continue
            if name == b"x-forwarded-for":
                chain.append(line[1])
                continue
            claimed.add(name)
        elif name == b"expect" and head.http10:
            continue
        fields.append(line)
    if head.chunked:
        fields.append((b"Transfer-Encoding", b"chunked"))
    chain.append(origin.peer.encode("ascii"))
    fields.append((b"X-Forwarded-For", b", ".join(part for part in chain if part)))
    if b"x-forwarded-proto" not in claimed:
        fields.append((b"X-Forwarded-Proto", b"http"))
    if b"x-forwarded-host" not in claimed and head.authority:
        fields.append((b"X-Forwarded-Host", head.authority))
    if via:
        fields.append((b"Via", b"1.0 l7proxy" if head.http10 else b"1.1 l7proxy"))
    return fields


def forward_answer(status: int, fields: Fields, head: RequestHead, chunked: bool, date: bytes) -> AnswerHead | str:
    """The answer's head for the client, or what is wrong with it. `chunked` is how the backend framed its body."""
    names = [name.lower() for name, _ in fields]
    dropped = HOP_BY_HOP
    if b"connection" in names:
        named = {
            token.strip().lower()
            for name, (_, value) in zip(names, fields, strict=True)
            if name == b"connection"
            for token in value.split(b",")
        }
        dropped |= named - _FRAMING
    length: int | None = None
    kept: list[tuple[bytes, bytes]] = []
    for name, line in zip(names, fields, strict=True):
        value = line[1]
        if _FORBIDDEN.search(value):
            return "a header of the answer has a control character"
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return "the answer has a Transfer-Encoding that is not chunked"
        if name in dropped:
            continue
        if name == b"content-length":
            if not value.isdigit() or len(value) > 19 or int(value) > LONGEST_BODY:
                return "the answer has a Content-Length that is no length"
            if length is not None:
                if length != int(value):
                    return "the answer has two Content-Lengths"
                continue
            length = int(value)
            if chunked:
                return "the answer has Content-Length and Transfer-Encoding together"
            if status < 200 or status == 204:  # RFC 9110 8.6
                continue
        kept.append(line)
    if status >= 200 and b"date" not in names:  # RFC 9110 6.6.1
        kept.append((b"Date", date))
    return AnswerHead(status, kept, _framing(status, head, length), length)


def _framing(status: int, head: RequestHead, length: int | None) -> BodyFraming:
    if status < 200 or status in {204, 304} or head.method == "HEAD":
        return BodyFraming.NONE
    if length is not None:
        return BodyFraming.LENGTH
    return BodyFraming.CLOSE if head.http10 else BodyFraming.CHUNKED


def join(start: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head's bytes: the start line, the fields, and the empty line."""
    lines = [b"%b: %b\r\n" % field for field in fields]
    return b"".join((start, b"\r\n", *lines, b"\r\n"))


def _within(text: str, networks: Sequence[IPNetwork]) -> bool:
    address = _address(text.encode())
    return address is not None and any(address in network for network in networks)


def _listed(head: RequestHead, wanted: bytes) -> list[bytes]:
    return [
        part.strip()
        for name, (_, value) in zip(head.names, head.fields, strict=True)
        if name == wanted
        for part in value.split(b",")
    ]


def _address(text: bytes) -> IPAddress | None:
    try:
        return ip_address(text.decode("ascii")) if b"%" not in text else None
    except ValueError:
        return None
