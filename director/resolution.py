"""Looks the names of real servers up again, and has the director follow them.

One rule: another address is taken over by the way that a reload takes, whole or not at all; no answer changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable

from director.api.asking import ask_as
from director.control import Control
from director.core.config import parse_config
from director.core.event import Event, EventKind
from director.core.model import Config, ServerRef
from director.core.moves import Move, few, moves, trouble_sentences, troubles
from director.core.naming import by_name
from director.core.notifying import REFUSED
from director.kit.errors import ConfigError, DirectorError
from director.names import Names

log = logging.getLogger(__name__)

DRAIN_S = 60.0  # for connections to an address that a name no longer has
JITTER = 0.1  # of the interval


class Resolution:
    """Keeps what `control` has in force where its names point. `tell` hears of events."""

    def __init__(self, names: Names, control: Control, tell: Callable[[Event], None]) -> None:
        self.names = names
        self._control = control
        self._tell = tell
        self._woken = asyncio.Event()
        self._troubled: dict[ServerRef, str] = {}  # the name of each that was told of
        self._refused: tuple[Config, tuple[Move, ...], str] | None = None
        self._held = ""  # why a move that is due has not been made

    def wake(self) -> None:
        """Another configuration is in force."""
        self._woken.set()

    def notes(self) -> list[str]:
        """What an operator should know, in sentences."""
        config, known = self._control.config, self.names.known
        due = moves(config, known)
        held = [f"another address is not taken over: {few(due)}: {self._held}"] if due and self._held else []
        return [*trouble_sentences(troubles(config, known)), *held]

    async def run(self) -> None:
        """Look until cancelled."""
        ask_as("name resolution")
        if self._control.config.hosts() and self.names.unreadable:
            log.warning("the last addresses of names are not known", extra={"reason": self.names.unreadable})
        while True:
            try:
                self._tell_troubles()
                await self._remember()
                if not await self._wait():
                    await self._look()
            except Exception:
                log.exception("could not look names up, trying again")
                await asyncio.sleep(self._control.config.resolve_interval_s)

    async def _wait(self) -> bool:
        """Until the next look is due, or another configuration is in force: then True."""
        interval_s = self._control.config.resolve_interval_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        try:
            async with asyncio.timeout(interval_s):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    async def _look(self) -> None:
        config = self._control.config
        if not config.hosts():
            return
        await asyncio.to_thread(self.names.renew, config)  # name servers take their time
        self._tell_troubles()
        await self._follow()

    async def _remember(self) -> None:
        pending = self._control.unconfirmed
        configs = (self._control.config, *((pending.former.config,) if pending else ()))
        await asyncio.to_thread(self.names.remember, *configs)  # the disk takes its time

    async def _follow(self) -> None:
        """Have every real server where its name points, unless something stands against it."""
        control = self._control
        force = control.force
        due = moves(force.config, self.names.known)
        if not due or self._awaits_confirmation():
            self._held = "a change awaits confirmation" if due else ""
            return
        if self._refused is not None and self._refused[0] is force.config and self._refused[1] == due:
            self._held = self._refused[2]
            return
        left_s = 0.0 if force.drain_until_at is None else force.drain_until_at - time.monotonic()
        try:
            config = await asyncio.to_thread(parse_config, force.text, force.source, self.names.presumed)
            await control.change(
                config, force.source, force.text, drain_s=max(DRAIN_S, left_s), in_place_of=force.config
            )
        except DirectorError as error:
            if control.config is force.config and not self._awaits_confirmation():  # else the next look sees to it
                self._tell_refused(due, str(error))
                if isinstance(error, ConfigError):  # what the kernel refused is tried again
                    self._refused = (force.config, due, str(error))
            return
        self._held = ""
        for move in due:
            log.info("a name has another address", extra={"move": str(move)})
            self._event(move.ref, str(move.was), str(move.now), move.host)

    def _awaits_confirmation(self) -> bool:
        return self._control.unconfirmed is not None

    def _tell_refused(self, due: tuple[Move, ...], why: str) -> None:
        if why == self._held:
            return
        self._held = why
        log.error("a name's other address was not taken over", extra={"moves": few(due), "reason": why})
        for move in due:
            self._event(move.ref, str(move.was), REFUSED, f"{by_name(move.now, move.host)}: {why}")

    def _tell_troubles(self) -> None:
        """Log and tell, once, whose name gives no answer, and whose gives one again."""
        config = self._control.config
        found = {trouble.ref: trouble for trouble in troubles(config, self.names.known)}
        news = [trouble for ref, trouble in found.items() if self._troubled.get(ref) != trouble.host]
        for sentence in trouble_sentences(news):
            log.warning("a name is not resolved", extra={"reason": sentence})
        for trouble in news:
            reason = f"{trouble.host}: {trouble.why}; its last address {trouble.address} is kept"
            self._event(trouble.ref, "", "failing", reason)
        given = {virtual.ref(real): real.host for virtual, real in config.named()}
        over = [ref for ref, host in self._troubled.items() if ref not in found and given.get(ref) == host]
        if over:
            log.info("names are resolved again", extra={"names": _few_names(given[ref] for ref in over)})
        for ref in over:
            self._event(ref, "failing", "resolved", given[ref])
        self._troubled = {ref: trouble.host for ref, trouble in found.items()}

    def _event(self, ref: ServerRef, was: str, now: str, reason: str) -> None:
        self._tell(
            Event(time.time(), EventKind.RESOLUTION, ref.virtual_server, ref.real_server, was, now, reason=reason)
        )


def _few_names(hosts: Iterable[str]) -> str:
    names = sorted(set(hosts))
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
