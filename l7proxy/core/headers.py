"""What is added to requests and answers, after everything about one connection has been taken off.

One rule: lines that go on keep their bytes, order and duplicates. What a client says about itself (X-Forwarded-*,
Forwarded, X-Real-IP) goes on only when the peer is a trusted proxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from l7proxy.core.forwarded import TrustedNetworks, client_of
from l7proxy.core.head import RequestHead, ResponseHead


def own_tail(peer: str, scheme: str, authority: bytes, via: bytes, http10: bool = False) -> bytes:
    """The end of a request's head for a client that nobody vouches for: what it says of itself is not in it.

    >>> own_tail("192.0.2.1", "http", b"a.example", b"edge")[:34]
    b'X-Forwarded-For: 192.0.2.1\\r\\nX-Forw'
    """
    lines = [b"X-Forwarded-For: " + peer.encode("ascii"), b"X-Forwarded-Proto: " + scheme.encode("ascii")]
    if authority:
        lines.append(b"X-Forwarded-Host: " + authority)
    return b"\r\n".join([*lines, *_via(via, http10), b"\r\n"])


def own_tail_around(peer: str, scheme: str, via: bytes) -> tuple[bytes, bytes]:
    """What stands in `own_tail` before the authority, and after it.

    >>> before, after = own_tail_around("192.0.2.1", "http", b"edge")
    >>> before + b"a.example" + after == own_tail("192.0.2.1", "http", b"a.example", b"edge")
    True
    """
    before, after = own_tail(peer, scheme, b"\0", via).split(b"\0")
    return before, after


@lru_cache(maxsize=64)
def via_tail(via: bytes, http10: bool) -> bytes:
    """The end of a request's head that says nothing of a client.

    >>> via_tail(b"edge", False), via_tail(b"", False)
    (b'Via: 1.1 edge\\r\\n\\r\\n', b'\\r\\n')
    """
    return b"".join([line + b"\r\n" for line in _via(via, http10)]) + b"\r\n"


def trusted_tail(head: RequestHead, peer: str, scheme: str, via: bytes, trusted: TrustedNetworks) -> tuple[str, bytes]:
    """Who asks, and the end of a request's head, where the peer is a trusted proxy: its claims stand, and grow."""
    chain: list[bytes] = []
    forwarded: list[bytes] = []
    lines: list[bytes] = []
    claimed: set[bytes] = set()
    for line in head.claims:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"x-forwarded-for":
            chain.append(value.strip(b" \t"))
            continue
        if name == b"forwarded":
            forwarded.append(value)
        claimed.add(name)
        lines.append(line)
    client, _ = client_of(peer, trusted, chain, forwarded)
    chain.append(peer.encode("ascii"))
    lines.append(b"X-Forwarded-For: " + b", ".join(part for part in chain if part))
    if b"x-forwarded-proto" not in claimed:
        lines.append(b"X-Forwarded-Proto: " + scheme.encode("ascii"))
    if b"x-forwarded-host" not in claimed and head.authority:
        lines.append(b"X-Forwarded-Host: " + head.authority)
    return client, b"\r\n".join([*lines, *_via(via, head.http10), b"\r\n"])


def claimed_scheme(head: RequestHead) -> str:
    """The scheme that X-Forwarded-Proto says, of a request from a trusted proxy; empty where it says none. Of several
    the last one is that of the nearest proxy.

    >>> head = RequestHead()
    >>> head.claims = (b"X-Forwarded-Proto: http, HTTPS",)
    >>> claimed_scheme(head)
    'https'
    """
    for line in reversed(head.claims):
        if line[:18].lower() == b"x-forwarded-proto:":
            said = line[18:].rpartition(b",")[2].strip(b" \t").lower()
            return said.decode("ascii") if said in {b"http", b"https"} else ""
    return ""


def _via(name: bytes, http10: bool) -> Sequence[bytes]:
    return ((b"Via: 1.0 " if http10 else b"Via: 1.1 ") + name,) if name else ()


def names_in_via(via: bytes, name: bytes) -> bool:
    """Whether Via's values name the proxy `name` (RFC 9110 7.6.3).

    >>> names_in_via(b"1.1 edge-1, 1.0 b (edge)", b"edge"), names_in_via(b"HTTP/1.1 edge", b"edge")
    (False, True)
    """
    via, name = via.lower(), name.lower()
    if name not in via:
        return False
    return any(name in part.split(b"(")[0].split()[1:2] for part in via.split(b","))


def request_bytes(head: RequestHead, tail: bytes, authority: bytes) -> bytes:
    """A request's head for a backend; `authority` is the Host for a client that sent none."""
    if head.authority and not head.chunked and not head.upgrade:
        return b"".join((head.start, b"\r\n", head.fields, tail))
    more = [head.start]
    if not head.authority:
        more.append(b"Host: " + authority)
    if head.chunked:
        more.append(b"Transfer-Encoding: chunked")
    if head.upgrade:
        more += [b"Connection: Upgrade", b"Upgrade: " + head.upgrade]
    return b"\r\n".join((*more, head.fields + tail))


def decrement_max_forwards(head: RequestHead) -> None:
    """One hop less is left (RFC 9110 7.6.2)."""
    if head.max_forwards is not None:
        kept = [line for line in head.lines if line[:13].lower() != b"max-forwards:"]
        head.fields = b"\r\n".join((*kept, b"Max-Forwards: %d\r\n" % (head.max_forwards - 1)))


_starts: dict[tuple[int, bytes], bytes] = {}


def status_line(head: ResponseHead) -> bytes:
    """The answer's first line, with the backend's own phrase."""
    key = head.status, head.phrase
    found = _starts.get(key)
    if found is None:
        found = b"HTTP/1.1 %d %b" % key
        if len(found) <= 64:
            if len(_starts) >= 256:
                _starts.clear()
            _starts[key] = found
    return found
