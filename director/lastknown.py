"""What was known of real servers and quorums when a director last looked, for the one that starts next.

One rule: it is a help, never a need: a file that is missing or damaged means that nothing is known.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from director.core.model import Config, ServerRef
from director.kit import statefile
from director.kit.errors import HostError
from director.kit.health import HealthState, Status

log = logging.getLogger(__name__)

VERSION = 1
Member = tuple[str, str, str]
"""A virtual server's name, and a real server's with its address and port: at another one is another server."""


@dataclass(frozen=True, slots=True)
class Known:
    """Statuses of real servers, and by virtual server whether quorum was held."""

    statuses: Mapping[Member, Status] = field(default_factory=dict)
    quorate: Mapping[str, bool] = field(default_factory=dict)


class LastKnown:
    """`Known`, kept in `directory`/health.json."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "health.json"
        self._is_saved = True
        self._known = self._read()
        self._told = ""
        self._members: tuple[Config | None, list[tuple[ServerRef, Member]]] = (None, [])

    @property
    def quorate(self) -> Mapping[str, bool]:
        return self._known.quorate

    @property
    def is_behind(self) -> bool:
        """Whether what is on disk is not what is known."""
        return not self._is_saved

    def presumed(self, config: Config) -> dict[ServerRef, Status]:
        """What every real server of `config` was, where that is known."""
        statuses = self._known.statuses
        if not statuses:
            return {}
        return {ref: statuses[member] for ref, member in self._members_of(config) if member in statuses}

    def updated(self, config: Config, health: Mapping[ServerRef, HealthState], quorate: Mapping[str, bool]) -> Known:
        """What is known now; of servers that have no verdict yet, what was known before."""
        before = self._known.statuses
        statuses: dict[Member, Status] = {}
        for ref, member in self._members_of(config):
            state = health.get(ref)
            if state is not None and state.status is not Status.PENDING:
                statuses[member] = state.status
            elif member in before:
                statuses[member] = before[member]
        return Known(statuses, dict(quorate))

    def save(self, known: Known) -> None:
        """Remember `known`, written to disk where it is news. That it cannot be is told once, and tried again."""
        if known == self._known and self._is_saved:
            return
        self._known, self._is_saved = known, False
        try:
            statefile.save(self._path, VERSION, _to_json(known))
            self._is_saved, self._told = True, ""
        except HostError as error:
            if str(error) != self._told:
                log.warning("a restart will not know what is up and down", extra={"reason": str(error)})
            self._told = str(error)

    def _members_of(self, config: Config) -> list[tuple[ServerRef, Member]]:
        if self._members[0] is not config:
            self._members = (config, list(_members(config)))
        return self._members[1]

    def _read(self) -> Known:
        try:
            content = statefile.load(self._path, VERSION)
            return Known() if content is None else _from_json(content)
        except (HostError, KeyError, TypeError, ValueError) as error:
            log.warning("what was up and down is not known", extra={"file": str(self._path), "reason": str(error)})
            self._is_saved = False
            return Known()


def _members(config: Config) -> Iterable[tuple[ServerRef, Member]]:
    for virtual in config.virtual_servers:
        for ref, real in zip(virtual.refs, virtual.real_servers, strict=True):
            if real.check is not None:
                yield ref, (virtual.name, real.name, str(real.at(virtual.keys[0])))


def _to_json(known: Known) -> dict[str, statefile.Json]:
    def named(status: Status) -> list[statefile.Json]:
        return [list(member) for member, each in sorted(known.statuses.items()) if each is status]

    return {"up": named(Status.UP), "down": named(Status.DOWN), "quorum": dict(known.quorate)}


def _from_json(content: Mapping[str, statefile.Json]) -> Known:
    statuses: dict[Member, Status] = {}
    for status in (Status.UP, Status.DOWN):
        members = content[status.value]
        for member in members if isinstance(members, list) else [None]:
            match member:
                case [str(virtual), str(real), str(place)] if (virtual, real, place) not in statuses:
                    statuses[virtual, real, place] = status
                case _:
                    raise ValueError(f"{member!r} is no real server, or stands there twice")
    quorum = content["quorum"]
    if not isinstance(quorum, dict):
        raise TypeError("quorum is no object")
    held = {name: value for name, value in quorum.items() if isinstance(value, bool)}
    if len(held) < len(quorum):
        raise ValueError("quorum is held or not: true or false")
    return Known(statuses, held)
