"""Who asks, by what trusted proxies say: X-Forwarded-For, Forwarded (RFC 7239), and an element of our own.

One rule: a claim counts only as far as trusted proxies vouch for it. The walk goes from the right, where the nearest
proxy wrote; the first address that is none of ours is the client, and what stands left of it is never read.

X-Forwarded-For and Forwarded are never mixed: where any X-Forwarded-For came, Forwarded is not looked at. A trusted
proxy that writes one of them and passes the other on as the client sent it therefore has to be told to drop that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

from director.kit.net import IPAddress
from l7proxy.core.model import IPNetwork

MOST_HOPS = 32
"""Entries that one walk looks at; of a longer chain of trusted proxies, the last one looked at counts as the client."""
LONGEST_FORWARDED_BYTES = 4096
"""A longer line of Forwarded is malformed."""
MOST_KNOWN = 4096
"""Addresses whose answer a `TrustedNetworks` keeps; when full, it begins anew."""

_LONGEST_ADDRESS = 64  # an IPv6 address with dotted end, brackets, and a port has 53
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+)"'
_PAIR = re.compile(rb"(%b)=(?:(%b)|%b)" % (_TOKEN, _TOKEN, _QUOTED))
_SEPARATORS = re.compile(rb"[ \t;]*+")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_PORTED = re.compile(rb"(?:\[([0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,44})\]|([0-9.]{7,15}))(?::([0-9]{1,5}))?")
_NODE = re.compile(
    rb"(?:\[([0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,44})\]|([0-9.]{7,15}))(?::([0-9]{1,5}|_[A-Za-z0-9._-]{1,64}))?"
)
_BARE = re.compile(_TOKEN)
_NOT_QUOTABLE = re.compile(rb"[^\t -~\x80-\xff]")
_NEEDS_ESCAPE = re.compile(rb'(["\\])')


_Key = TypeVar("_Key")
_Kept = TypeVar("_Kept")


class TrustedNetworks:
    """Networks, compiled to integers, that remember whom they were asked about: a peer asks again and again."""

    __slots__ = ("_known", "_masks4", "_masks6", "_peers")

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        masks: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for network in networks:
            by_mask = masks[network.version].setdefault(int(network.netmask), set())
            by_mask.add(int(network.network_address))
        self._masks4 = tuple(masks[4].items())
        self._masks6 = tuple(masks[6].items())
        self._known: dict[bytes, tuple[str, bool] | None] = {}
        self._peers: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._masks4 or self._masks6)

    def trust(self, peer: str) -> bool:
        """Whether the address of a peer is in a network; one that is no address (a UNIX socket's) is in none."""
        known = self._peers.get(peer)
        if known is None:
            address = plain_address(peer.partition("%")[0])  # a link-local peer has a zone
            known = address is not None and self._contain(address)
            _keep(self._peers, peer, known)
        return known

    def judge(self, entry: bytes) -> tuple[str, bool] | None:
        """The address that an entry of X-Forwarded-For names, and whether it is in a network; None: it names none.

        With a port, as some proxies write it, it names its address all the same.
        """
        try:
            return self._known[entry]
        except KeyError:
            pass
        if len(entry) > _LONGEST_ADDRESS:
            return None
        match = _PORTED.fullmatch(entry)
        text = (match[1] or match[2]) if match is not None else entry
        address = plain_address(text.decode("latin-1"))
        return _keep(self._known, entry, None if address is None else (str(address), self._contain(address)))

    def _contain(self, address: IPAddress) -> bool:
        value = int(address)
        masks = self._masks4 if address.version == 4 else self._masks6
        return any(value & mask in networks for mask, networks in masks)


def _keep(known: dict[_Key, _Kept], key: _Key, value: _Kept) -> _Kept:
    if len(known) >= MOST_KNOWN:
        known.clear()
    known[key] = value
    return value


def plain_address(text: str) -> IPAddress | None:
    """The address in `text`, or None. IPv4 in IPv6 (::ffff:192.0.2.1) is the IPv4 address; one with a zone is none."""
    if "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def client_of(
    peer: str, trusted: TrustedNetworks, xff_values: Sequence[bytes], forwarded_values: Sequence[bytes]
) -> tuple[str, bool]:
    """The client's address, and whether the peer is trusted: whether what it says about its client may go on.

    The values are those of all X-Forwarded-For and all Forwarded lines, in their order. An entry that is no address
    (`unknown`, `_hidden`, rubbish) ends the walk: the client is then whoever is known to have passed it on.

    >>> from ipaddress import ip_network
    >>> client_of("10.0.0.1", TrustedNetworks([ip_network("10.0.0.0/8")]), [b"6.6.6.6, 192.0.2.7", b"10.0.0.2"], [])
    ('192.0.2.7', True)
    """
    if not trusted or not trusted.trust(peer):
        return peer, False
    if xff_values:
        return _walk(peer, trusted, xff_values), True
    if forwarded_values:
        return _walk_forwarded(peer, trusted, forwarded_values), True
    return peer, True


def _walk(client: str, trusted: TrustedNetworks, values: Sequence[bytes]) -> str:
    left = MOST_HOPS
    for value in reversed(values):
        end = len(value)
        while end >= 0 and left:
            left -= 1
            comma = value.rfind(b",", 0, end)
            entry = value[comma + 1 : end].strip(b" \t")
            end = comma
            if not entry:  # RFC 9110 5.6.1: empty elements of a list are ignored
                continue
            judged = trusted.judge(entry)
            if judged is None:
                return client
            client, is_trusted = judged
            if not is_trusted:
                return client
    return client


def _walk_forwarded(client: str, trusted: TrustedNetworks, values: Sequence[bytes]) -> str:
    left = MOST_HOPS
    for value in reversed(values):
        elements = parse_forwarded(value)
        if elements is None:
            return client
        for element in reversed(elements):
            match = _NODE.fullmatch(element.client) if element.client is not None else None
            judged = trusted.judge(match[1] or match[2]) if match is not None else None
            if judged is None or not left:
                return client
            left -= 1
            client, is_trusted = judged
            if not is_trusted:
                return client
    return client


@dataclass(frozen=True, slots=True)
class Element:
    """What one proxy says in Forwarded, unquoted: `client` is its `for`, `proxy` its `by`; others are dropped.

    Nodes are as RFC 7239 6 writes them: an address, IPv6 in brackets, perhaps a port; `unknown`; `_name`.
    """

    client: bytes | None = None
    proxy: bytes | None = None
    host: bytes | None = None
    proto: bytes | None = None


def parse_forwarded(value: bytes) -> list[Element] | None:
    """The elements of one line of Forwarded, from left to right, or None where it is malformed.

    Each line stands alone: a quote that a client left open cannot swallow the line that a proxy adds. Blanks around
    `;`, which RFC 7239 4 does not have and proxies write, are skipped. A parameter that comes twice in an element,
    anything behind a closing quote, and a line of more than LONGEST_FORWARDED_BYTES are malformed.

    >>> parse_forwarded(b'for="[2001:db8::1]:47";proto=https, for=unknown')
    [Element(client=b'[2001:db8::1]:47', proxy=None, host=None, proto=b'https'), Element(client=b'unknown', \
proxy=None, host=None, proto=None)]
    """
    if len(value) > LONGEST_FORWARDED_BYTES:
        return None
    elements: list[Element] = []
    found: dict[bytes, bytes] = {}
    at, end = 0, len(value)
    while True:
        at = _skip(value, at)
        if at == end or value[at] == 0x2C:  # a comma
            if found:
                elements.append(Element(found.get(b"for"), found.get(b"by"), found.get(b"host"), found.get(b"proto")))
                found = {}
            if at == end:
                return elements
            at += 1
            continue
        match = _PAIR.match(value, at)
        if match is None:
            return None
        name = match[1].lower()
        if name in found:
            return None
        found[name] = match[2] if match[2] is not None else _ESCAPE.sub(rb"\1", match[3])
        at = match.end()
        if at < end and value[at] not in b" \t;,":
            return None
        after = _skip(value, at)
        if after < end and value[after] != 0x2C and b";" not in value[at:after]:
            return None  # two pairs with no more than a blank between them
        at = after


def _skip(value: bytes, at: int) -> int:
    match = _SEPARATORS.match(value, at)
    return match.end() if match is not None else at


def forwarded_element(client: str, host: bytes, proto: bytes) -> bytes:
    """Our own element: who asked us, for which host, by which scheme. An empty or unspeakable host is left out.

    >>> forwarded_element("2001:db8::1", b"shop.example.org:8080", b"https")
    b'for="[2001:db8::1]";host="shop.example.org:8080";proto=https'
    """
    if ":" in client:
        node = b'"[%b]"' % client.partition("%")[0].encode("ascii", "replace")
    else:
        node = client.encode("ascii", "replace")
        if not _NODE.fullmatch(node):
            node = b"unknown"
    if not host or _NOT_QUOTABLE.search(host):
        return b"for=%b;proto=%b" % (node, proto)
    if not _BARE.fullmatch(host):
        host = b'"%b"' % _NEEDS_ESCAPE.sub(rb"\\\1", host)
    return b"for=%b;host=%b;proto=%b" % (node, host, proto)
