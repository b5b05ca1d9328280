"""Real servers that are given by name: which of its addresses is used, whatever lookups say.

One rule: who has had an address always has one: a lookup that fails, or that lacks an IP version, takes none away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from director.kit.net import Answer, IPAddress

NO_ADDRESS = "it has no address"
MOST_ADDRESSES = 64  # of one name and IP version: what a server may say, and is remembered


# RFC 1123, 2.1; `_` is common where names are made by machines. A top-level domain begins with a letter (RFC 3696, 2),
# so that a mistyped address is not taken as a name; nor is a number as inet_aton(3) reads it.
@dataclass(frozen=True, slots=True)
class Named:
    """A host name with its addresses by its last answer, IPv4 first; in each IP version the one to use comes first.

    `kept` are addresses of IP versions that the last answer lacks. `why` says why the last lookup gave none.
    """

    host: str
    addresses: tuple[IPAddress, ...] = ()
    kept: tuple[IPAddress, ...] = ()
    why: str = ""

    def after(self, answer: Answer, used: Collection[IPAddress] = ()) -> Named:
        """What is known after one more lookup: what is in use stays in use while the name has it.

        `used` are the addresses in use, where these are others than the first ones here.
        """
        if not answer:
            answer = NO_ADDRESS
        if isinstance(answer, str):
            return replace(self, why=answer)
        addresses: list[IPAddress] = []
        kept: list[IPAddress] = []
        for version in (4, 6):
            found = sorted({each for each in answer if each.version == version}, key=int)
            firsts = [*used, *_first(self.addresses, version), *_first(self.kept, version)]
            present = next((each for each in firsts if each in found), None)
            if present is not None:
                found = [present, *(each for each in found if each != present)]
            addresses += found[:MOST_ADDRESSES]
            kept += [] if found else [each for each in firsts if each.version == version][:1]
        return Named(self.host, tuple(addresses), tuple(kept))

    def address(self, version: int, *, other: bool) -> IPAddress | None:
        """The address for a virtual server of that IP version; None when none is known of any.

        `other`: one of another IP version is as good as one that the name no longer has. Without it that is the
        last resort.
        """
        own, kept = _first(self.addresses, version), _first(self.kept, version)
        ways = (own, self.addresses, kept, self.kept) if other else (own, kept, self.addresses, self.kept)
        return next((way[0] for way in ways if way), None)

    def trouble(self, address: IPAddress) -> str:
        """Why `address`, which is in use, may be outdated; empty when the last answer has it."""
        if self.why:
            return self.why
        if address in self.addresses:
            return ""
        return f"its last answer has no IPv{address.version} address"


def by_name(address: object, host: str) -> str:
    """An address as people are told of it.

    >>> by_name("10.0.0.5", "db1.example.org"), by_name("10.0.0.5", "")
    ('10.0.0.5 (db1.example.org)', '10.0.0.5')
    """
    return f"{address} ({host})" if host else str(address)


def _first(addresses: Iterable[IPAddress], version: int) -> tuple[IPAddress, ...]:
    return next(((each,) for each in addresses if each.version == version), ())


Lookup = Callable[[Collection[str]], Mapping[str, Named | str]]
"""Every one of the names given: with an address at least, or why there is none."""


def no_lookup(hosts: Collection[str]) -> Mapping[str, Named | str]:
    """For who reads a file where nothing can be looked up."""
    return dict.fromkeys(hosts, "names are not looked up here")


class Lookups:
    """The names of one file, looked up together: what its validators ask of the world (`configfile.Facts`)."""

    def __init__(self, look_up: Lookup) -> None:
        self._look_up = look_up
        self._asked: set[str] = set()
        self._found: dict[str, Named | str] = {}

    @staticmethod
    def named(host: str, context: Any) -> Named:
        """What is known of `host`; without an address on the first reading, which is followed by another.

        Raises: ValueError, with a message an operator can act on.
        """
        lookups = context if isinstance(context, Lookups) else Lookups(no_lookup)
        found = lookups._found.get(host)
        if found is None:
            lookups._asked.add(host)
            return Named(host)
        if isinstance(found, str):
            raise ValueError(
                f"{host} cannot be resolved, and no address of it is remembered: {found}: see what "
                f"`getent ahosts {host}` says, or write an address"
            )
        return found

    def complete(self) -> bool:
        """Look up what was asked for; False when there was nothing new."""
        news, self._asked = self._asked, set()
        if news:
            self._found |= self._look_up(sorted(news))
        return bool(news)
