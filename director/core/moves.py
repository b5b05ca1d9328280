"""What lookups mean for a configuration in force: who moves, and who stays where it was for want of an answer.

One rule: a real server moves when its name says so, never because a name says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from director.core.model import Config, Method, RealServer, ServerRef, VirtualServer
from director.core.naming import Named, by_name
from director.kit.net import IPAddress

MOST_NAMED = 5  # servers in one sentence


@dataclass(frozen=True, slots=True)
class Move:
    """A real server's name has another address."""

    ref: ServerRef
    host: str
    was: IPAddress
    now: IPAddress

    def __str__(self) -> str:
        return f"{self.ref} from {self.was} to {self.now} ({self.host})"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A real server keeps an address that its name's last lookup did not give."""

    ref: ServerRef
    host: str
    address: IPAddress
    why: str

    def __str__(self) -> str:
        return f"{self.ref} {by_name(self.address, self.host)}"


def due_address(virtual: VirtualServer, real: RealServer, named: Named) -> IPAddress:
    """The address that `real` would have, were the file read now."""
    other = virtual.method_of(real) is Method.TUN
    return named.address(virtual.keys[0].family, other=other) or real.address


def moves(config: Config, known: Mapping[str, Named]) -> tuple[Move, ...]:
    """Every real server of `config` whose name has another address."""
    return tuple(
        Move(virtual.ref(real), real.host, real.address, due)
        for virtual, real in config.named()
        if (named := known.get(real.host)) is not None and (due := due_address(virtual, real, named)) != real.address
    )


def troubles(config: Config, known: Mapping[str, Named]) -> tuple[Trouble, ...]:
    """Every real server of `config` that has its address from an earlier lookup only."""
    return tuple(
        Trouble(virtual.ref(real), real.host, real.address, why)
        for virtual, real in config.named()
        if (named := known.get(real.host)) is not None
        and due_address(virtual, real, named) == real.address
        and (why := named.trouble(real.address))
    )


def trouble_sentences(found: Iterable[Trouble]) -> list[str]:
    """One for each reason, however many names have it."""
    by_reason: dict[str, list[Trouble]] = {}
    for trouble in found:
        by_reason.setdefault(trouble.why, []).append(trouble)
    return [f"name not resolved, the last address is kept: {few(each)}: {why}" for why, each in by_reason.items()]


def few(found: Iterable[Move | Trouble]) -> str:
    """The first of them, and how many more there are."""
    told = [str(each) for each in found]
    more = f" and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
    return ", ".join(told[:MOST_NAMED]) + more


def told_resolution(virtual: VirtualServer, real: RealServer, named: Named | None) -> str:
    """What is known of the name of `real`, in a sentence; empty where it is given by address."""
    if named is None:
        return ""
    has = ", ".join(map(str, named.addresses[:MOST_NAMED])) or "none"
    if due_address(virtual, real, named) != real.address:
        return f"{real.host} has {has} now, which is not taken over yet"
    if why := named.trouble(real.address):
        return f"{real.host} is not resolved, and its last address is kept: {why}"
    return f"{real.host} has {has}"
