"""Who may pass: networks, and header lines that only this proxy may write.

One rule: what is not known is not allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Network, IPv6Network

from l7proxy.core.forwarded import plain_address

MOST_KNOWN = 4096
_BLANKED = bytes(0x20 if octet < 0x20 or octet == 0x7F else octet for octet in range(256))


class NetworkRules:
    """Whom `allow` and `deny` let pass: the longest prefix that fits decides, else `others`."""

    __slots__ = ("_known", "_others", "_rules")

    def __init__(
        self,
        allow: Iterable[IPv4Network | IPv6Network],
        deny: Iterable[IPv4Network | IPv6Network],
        others: bool,
    ) -> None:
        found: dict[int, dict[tuple[int, int], dict[int, bool]]] = {4: {}, 6: {}}
        for networks, may in ((allow, True), (deny, False)):  # `deny` is the last to say it
            for network in networks:
                by_prefix = found[network.version].setdefault((network.prefixlen, int(network.netmask)), {})
                by_prefix[int(network.network_address)] = may
        self._rules = {
            version: [(mask, rules) for (_, mask), rules in sorted(of.items(), reverse=True)]
            for version, of in found.items()
        }
        self._others = others
        self._known: dict[str, bool] = {}

    def let_pass(self, client: str) -> bool:
        """Whether the client at an address may pass; who has none may not.

        >>> from ipaddress import ip_network
        >>> rules = NetworkRules([ip_network("10.0.0.0/8")], [ip_network("10.1.0.0/16")], False)
        >>> rules.let_pass("10.2.0.1"), rules.let_pass("10.1.0.1"), rules.let_pass("192.0.2.1")
        (True, False, False)
        """
        known = self._known.get(client)
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[client] = known = self._judge(client)
        return known

    def _judge(self, client: str) -> bool:
        address = plain_address(client.partition("%")[0])
        if address is None:
            return False
        value = int(address)
        for mask, rules in self._rules[address.version]:
            may = rules.get(value & mask)
            if may is not None:
                return may
        return self._others


def without(fields: bytes, names: Collection[bytes]) -> bytes:
    """Header lines without those called one of `names` (lower-case). `_` counts as `-`, as CGI and WSGI have it.

    >>> without(b"Host: a\\r\\nx-user: ann\\r\\nX_User: bob\\r\\n", [b"x-user"])
    b'Host: a\\r\\n'
    """
    lowered = fields.lower().replace(b"_", b"-")
    if not any(lowered.startswith(name + b":") or b"\n" + name + b":" in lowered for name in names):
        return fields
    kept = [
        line for line in fields.split(b"\r\n")[:-1] if line.partition(b":")[0].lower().replace(b"_", b"-") not in names
    ]
    return b"".join(line + b"\r\n" for line in kept)


def line_of(name: str, value: bytes) -> bytes:
    """A header line. Control characters of its value become blanks: they cannot begin another one.

    >>> line_of("X-User", b"ann\\r\\nX-Admin: 1")
    b'X-User: ann  X-Admin: 1\\r\\n'
    """
    return b"%b: %b\r\n" % (name.encode("ascii"), value.translate(_BLANKED).strip(b" "))
