"""What our chains in the packet filter say of virtual servers: which have full NAT, and what is marked for whom.

One rule: it reads the lines that `rules.py` writes, in whatever spelling iptables-save gives them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from itertools import pairwise
from types import MappingProxyType

from director.core.rules import NUMBERS, match_of, plain_words
from director.core.standing import Standing
from director.core.table import Protocol, VirtualKey
from director.kit.net import IPAddress

_NUMBERS = {str(number): protocol for protocol, number in NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class Marked:
    """Packets to `address` that get a mark: those to `ports` (first and last of each range), or all."""

    protocol: Protocol
    address: IPAddress
    ports: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Around:
    """`targets`: by IP version and a rule's match, a connection's new source; `marked`: by mark and IP version.

    `expires`: the setting that ends connections to dead servers is ours.
    """

    targets: Mapping[tuple[int, tuple[str, ...]], tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    marked: Mapping[tuple[int, int], tuple[Marked, ...]] = field(default_factory=lambda: MappingProxyType({}))
    expires: bool = False

    def full_nat(self, key: VirtualKey) -> tuple[bool, IPAddress | None]:
        """Whether connections of `key` get another source, and which; None is that of the way out."""
        target = self.targets.get((key.family, plain_words(match_of(key))), ())
        match target:
            case ("SNAT", "--to-source", source):
                return True, ip_address(source)
            case ("MASQUERADE", *_):
                return True, None
        return False, None

    def traffic(self, key: VirtualKey) -> tuple[Marked, ...]:
        """What is marked for `key`."""
        return self.marked.get((key.mark or 0, key.family), ())


def read_around(standing: Standing) -> Around:
    """What `standing` says of virtual servers."""
    targets: dict[tuple[int, tuple[str, ...]], tuple[str, ...]] = {}
    marked: dict[tuple[int, int], tuple[Marked, ...]] = {}
    for kept in standing.rules:
        for line in kept.lines:
            words = plain_words(line)
            if "-j" not in words:
                continue
            at = words.index("-j")
            if kept.table == "nat":
                targets.setdefault((kept.version, words[:at]), words[at + 1 :])
            elif words[at + 1 : at + 3] == ("MARK", "--set-mark"):
                place = (int(words[at + 3]), kept.version)
                marked[place] = (*marked.get(place, ()), *_marked(words[:at]))
    expires = any(each.name == "net.ipv4.vs.expire_nodest_conn" and each.ours == "1" for each in standing.settings)
    return Around(
        MappingProxyType(targets), MappingProxyType({at: _joined(each) for at, each in marked.items()}), expires
    )


def _marked(words: tuple[str, ...]) -> Iterator[Marked]:
    said = dict(pairwise(words))
    protocol = _NUMBERS.get(said.get("-p", ""))
    if protocol is not None and "-d" in said:
        ports = said.get("--dports", "").split(",") if "--dports" in said else []
        ranges = tuple((int(first), int(last or first)) for first, _, last in (port.partition(":") for port in ports))
        yield Marked(protocol, ip_network(said["-d"]).network_address, ranges)


def _joined(marked: Iterable[Marked]) -> tuple[Marked, ...]:
    """A rule holds so many ports and no more: those of one address and protocol belong together."""
    ports: dict[tuple[Protocol, IPAddress], tuple[tuple[int, int], ...]] = {}
    for each in marked:
        place = (each.protocol, each.address)
        ports[place] = (*ports.get(place, ()), *each.ports)
    return tuple(Marked(protocol, address, found) for (protocol, address), found in ports.items())
